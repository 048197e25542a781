"""Energy from a hardware counter over a window of steady work, gross and net of the idle device.

A counter moves in steps (NVML's every 20 to 100 ms), so a short window reads 0 J or one step too many. The window is
therefore as long as the protocol says, and at least PERIODS of the counter's own measured period. The power of an idle
device falls slowly after work, so the device rests for SETTLE_S before its idle window. Some GPUs report only the mean
of their power over the last second, so the first readings of a window would still be those of the idle device. Where
the device reports its power, WARM_S seconds of the same work therefore run before the window begins.

Where the device reports its power, that is read and integrated over the same window. Counter and power come from one
driver, on a GPU both from NVML and perhaps from one sensor. Their agreement shows that they are consistent, and is no
independent check. Where they disagree by more than CONSISTENT, the row has a warning. Where they disagree by more than
CREDIBLE, the metrics are missing with the reason, since one of the two is wrong and nothing shows which. Where the
device does not report its power, the reason is a fact. Without a counter, or with one whose period could not be
measured, the metrics are missing with the reason; an estimate from a rating would not be a measurement.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from harness.devices import EnergyMeter, SensorLost
from harness.devices.power import PowerReadings
from harness.measuring.contention import ENERGY_PASS
from harness.measuring.trial import Findings, Trial
from harness.probes import probe
from harness.reasons import Reason
from harness.types import Kind, Metric

SETTLE_S = 3.0
IDLE_S = 2.0
WARM_S = 1.5
PERIODS = 50  # one step too many or too few is then 2 %
CONSISTENT = 0.10  # difference between the integrated power and the counter's joules, as a share of the latter
CREDIBLE = 0.25


def _joules(name: str, label: str, kind: Kind, description: str) -> Metric:
    return Metric(name=name, unit="J", label=label, better="lower", kind=kind, description=description, summary="mean")


GROSS = _joules(
    "energy_per_image_j",
    "Energy per image",
    "energy",
    "joules of the device per image, including what it draws when idle",
)
# A difference of two figures, which is small if the work draws little power: its relative noise has no bound.
NET = _joules(
    "energy_net_per_image_j",
    "Net energy per image",
    "advisory",
    "joules per image minus what the idle device draws in the same time",
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
NOT_MEASURED = Reason("not_measured")
NAMES = (GROSS.name, NET.name, POWER.name)


@dataclass(frozen=True, kw_only=True)
class Window:
    """`joules` by the counter in `seconds`; `mean_w` by the power readings, or the reason why there is none."""

    seconds: float
    joules: float
    images: int = 0
    mean_w: float | Reason = NOT_MEASURED

    @property
    def integrated_j(self) -> float | None:
        """Joules by the power readings."""
        return None if isinstance(self.mean_w, Reason) else self.mean_w * self.seconds


@probe("energy", order=40, metrics=(GROSS, NET, POWER), first_process_only=True, state=ENERGY_PASS)
def energy(trial: Trial) -> Findings:
    """Joules per image and watts, from counter differences."""
    meter = trial.device.energy_meter()
    if isinstance(meter, Reason | str):
        return Findings(missing=dict.fromkeys(NAMES, meter))
    if meter.period_s is None:
        reason = Reason("energy_period_unknown", {"source": meter.source})
        return Findings(missing=dict.fromkeys(NAMES, reason))
    try:
        idle = _idle(trial, meter)
        work = _work(trial, meter)
    except SensorLost as error:
        return Findings(missing=dict.fromkeys(NAMES, Reason("energy_sensor_lost", _of(meter, reason=error.reason))))
    if work.joules <= 0:
        still = Reason("energy_counter_still", _of(meter, seconds=work.seconds))
        return Findings(missing=dict.fromkeys(NAMES, still))
    return _findings(meter, idle.joules / idle.seconds if idle.joules > 0 else None, work)


def _findings(meter: EnergyMeter, idle_w: float | None, work: Window) -> Findings:
    """`idle_w` is None if the counter did not move while the device was idle, because an idle device draws power."""
    facts = _facts(meter, idle_w, work)
    if _inconsistent(work, CREDIBLE):
        reason = Reason("energy_not_credible", _of(meter, **_both(work), limit=CREDIBLE))
        return Findings(missing=dict.fromkeys(NAMES, reason), facts=facts)
    missing: dict[str, Reason] = {}
    samples = {GROSS.name: [work.joules / work.images], POWER.name: [work.joules / work.seconds]}
    net = None if idle_w is None else work.joules - idle_w * work.seconds
    if net is None:
        missing[NET.name] = Reason("energy_counter_still_when_idle", _of(meter))
    elif net > 0:
        samples[NET.name] = [net / work.images]
    else:
        missing[NET.name] = Reason("not_above_idle_power", {"idle_w": idle_w})
    inconsistent = _inconsistent(work, CONSISTENT)
    warnings = (Reason("energy", {**_both(work), "limit": CONSISTENT}),) if inconsistent else ()
    return Findings(samples=samples, missing=missing, facts=facts, warnings=warnings)


def _facts(meter: EnergyMeter, idle_w: float | None, work: Window) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "energy_source": meter.source,
        "energy_window_s": work.seconds,
        "energy_counter_period_s": meter.period_s,
        "idle_w": idle_w,
        "energy_counter_j": work.joules,
        "integrated_power_j": work.integrated_j,
    }
    if isinstance(work.mean_w, Reason):
        facts["integrated_power_missing"] = str(work.mean_w)
    return facts


def _inconsistent(work: Window, limit: float) -> bool:
    """Whether the counter and the integrated power differ by more than `limit`."""
    return work.integrated_j is not None and not abs(work.integrated_j / work.joules - 1) <= limit


def _both(work: Window) -> dict[str, Any]:
    return {"counter_j": work.joules, "integrated_j": work.integrated_j}


def _of(meter: EnergyMeter, **data: Any) -> dict[str, Any]:
    return {"source": meter.source, **data}


def _length(wanted_s: float, meter: EnergyMeter) -> float:
    return max(wanted_s, PERIODS * (meter.period_s or 0.0))


def _idle(trial: Trial, meter: EnergyMeter) -> Window:
    trial.timer.synchronize()
    time.sleep(SETTLE_S)
    start, joules = trial.timer.now(), meter.joules()
    time.sleep(_length(IDLE_S, meter))
    return Window(joules=meter.joules() - joules, seconds=trial.timer.now() - start)


def _work(trial: Trial, meter: EnergyMeter) -> Window:
    length, images = _length(trial.protocol.energy_window_s, meter), 0
    if meter.watts() is not None:
        warm = trial.timer.now() + WARM_S
        while trial.timer.now() < warm:
            trial.step()
    with PowerReadings(meter.watts) as power:
        start, joules = trial.timer.now(), meter.joules()
        stamp = start
        while stamp - start < length:
            trial.step()
            images += trial.case.batch_size
            stamp = trial.timer.now()
        spent = meter.joules() - joules
    return Window(joules=spent, seconds=stamp - start, images=images, mean_w=power.mean_w())
