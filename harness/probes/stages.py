"""Where an iteration's time goes: each network, each denoising step, and the host code between them.

This is a pass of its own, with the device synchronised around every network. A denoising step lasts from one call of
the denoiser to the next network's call, scheduler included. `stage_sum_s` is the sum of the networks and the rest, and
is compared with the latency. A difference means that the stages overlap or that this pass was contended.
"""

from __future__ import annotations

import statistics
from typing import Any

from harness.measuring import cold_cache
from harness.measuring.trial import Findings, Trial
from harness.probes import probe
from harness.reasons import Reason
from harness.types import Forward, Metric

MIN_ITERATIONS = 3
MIN_TIME_S = 0.3
SUM_TOLERANCE = 0.10


def stage_metric(name: str, label: str, description: str) -> Metric:
    return Metric(name=name, unit="s", label=label, better="lower", kind="advisory", description=description)


OTHER = stage_metric(
    "stage_other_s", "Host code", "seconds an iteration spends outside its networks: scheduler, tokenizer, noise"
)
STEP = stage_metric(
    "denoise_step_s", "Denoising step", "seconds of one denoising step: the denoiser's call and the scheduler's"
)
SUM = stage_metric("stage_sum_s", "Sum of stages", "sum of all stages of one iteration, for comparison with latency_s")


def component_metric(component: str) -> Metric:
    """The metric of one network's seconds in an iteration, all of its calls together."""
    words = component.replace("_", " ")
    description = (
        f"seconds an iteration spends in the {words}, all of its calls together, device synchronised around each"
    )
    return stage_metric(
        f"stage_{component}_s", words.capitalize().replace("Unet", "U-Net").replace("Vae", "VAE"), description
    )


class Recorder:
    """Records every network call in an iteration: (name, start, stop) in seconds."""

    def __init__(self, trial: Trial) -> None:
        self._now = trial.timer.now
        self.calls: list[tuple[str, float, float]] = []

    def observe(self, name: str, forward: Forward) -> Forward:
        def recorded(*inputs: Any) -> Any:
            start = self._now()
            output = forward(*inputs)
            self.calls.append((name, start, self._now()))
            return output

        return recorded


@probe("stages", order=20, metrics=(OTHER, STEP, SUM), first_process_only=True, of_workload=True)
def stages(trial: Trial) -> Findings:
    """Seconds by stage over a few iterations, and the metrics of this workload's own networks in `facts`."""
    if not trial.protocol.stages:
        return Findings(missing=dict.fromkeys(("stage_other_s", "denoise_step_s", "stage_sum_s"), Reason("stages_off")))
    names = [c.name for c in trial.workload.components]
    repeated = {c.name for c in trial.workload.components if c.repeated}
    samples: dict[str, list[float]] = {}
    with cold_cache.flushed(trial) as flush:
        while len(samples.get(SUM.name, [])) < MIN_ITERATIONS or sum(samples[SUM.name]) < MIN_TIME_S:
            recorder = Recorder(trial)
            if flush is not None:
                flush()
            start = trial.timer.now()
            trial.observed_step(recorder.observe)
            for name, values in _of_iteration(recorder.calls, start, trial.timer.now(), names, repeated).items():
                samples.setdefault(name, []).extend(values)
    missing = {} if repeated else {"denoise_step_s": Reason("not_a_diffusion_model")}
    return Findings(samples=samples, missing=missing)


def _of_iteration(
    calls: list[tuple[str, float, float]], start: float, end: float, names: list[str], repeated: set[str]
) -> dict[str, list[float]]:
    found = {f"stage_{name}_s": [sum(stop - begin for n, begin, stop in calls if n == name)] for name in names}
    in_networks = sum(values[0] for values in found.values())
    starts = [begin for _, begin, _ in calls] + [end]
    steps = [starts[i + 1] - begin for i, (name, begin, _) in enumerate(calls) if name in repeated]
    found["stage_other_s"] = [end - start - in_networks]
    found["stage_sum_s"] = [end - start]
    if steps:
        found["denoise_step_s"] = steps
    return found


def sum_warning(samples: dict[str, list[float]]) -> tuple[Reason, ...]:
    """A warning if the sum of the stages differs from the latency by more than the tolerance."""
    if not samples.get("stage_sum_s") or not samples.get("latency_s"):
        return ()
    total, latency = statistics.median(samples["stage_sum_s"]), statistics.median(samples["latency_s"])
    gap = total / latency - 1
    return (Reason("stages", {"share": 1 + gap}),) if abs(gap) > SUM_TOLERANCE else ()
