"""Energy from a hardware counter over a window of steady work, gross and net of the idle device.

A counter moves in steps (NVML's about every 100 ms), so a short window reads 0 J or one step too many: the window is
as long as the protocol says. Without a counter the metrics are missing with the reason; an estimate from a rating
would not be a measurement.
"""

from __future__ import annotations

import time

from harness.probes import probe
from harness.trial import Findings, Trial
from harness.types import Metric

IDLE_S = 2.0


def _joules(name: str, label: str, description: str) -> Metric:
    return Metric(
        name=name, unit="J", label=label, better="lower", kind="energy", description=description, summary="mean"
    )


GROSS = _joules("energy_per_image_j", "Energy per image", "joules of the device per image, idle share included")
NET = _joules(
    "energy_net_per_image_j", "Net energy per image", "joules per image less what the idle device draws meanwhile"
)
POWER = Metric(
    name="mean_power_w",
    unit="W",
    label="Mean power",
    better="lower",
    kind="advisory",
    description="joules of the window divided by its seconds",
    summary="mean",
)


@probe("energy", order=40, metrics=(GROSS, NET, POWER), first_process_only=True)
def energy(trial: Trial) -> Findings:
    """Joules per image and watts, from counter differences."""
    meter = trial.device.energy_meter()
    if isinstance(meter, str):
        return Findings(missing=dict.fromkeys((GROSS.name, NET.name, POWER.name), meter))
    start, joules = trial.timer.now(), meter.joules()
    time.sleep(IDLE_S)
    idle_w = (meter.joules() - joules) / (trial.timer.now() - start)
    images, start, joules = 0, trial.timer.now(), meter.joules()
    while trial.timer.now() - start < trial.protocol.energy_window_s:
        trial.step()
        images += trial.case.batch_size
    seconds, spent = trial.timer.now() - start, meter.joules() - joules
    if spent <= 0:
        reason = f"{meter.source} did not move in {seconds:.1f} s"
        return Findings(missing=dict.fromkeys((GROSS.name, NET.name, POWER.name), reason))
    net, missing = spent - idle_w * seconds, {}
    samples = {GROSS.name: [spent / images], POWER.name: [spent / seconds]}
    if net > 0:
        samples[NET.name] = [net / images]
    else:
        missing[NET.name] = f"not above the idle power of {idle_w:.1f} W"
    return Findings(
        samples=samples,
        missing=missing,
        facts={"energy_source": meter.source, "energy_window_s": seconds, "idle_w": idle_w},
    )
