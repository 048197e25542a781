"""Seconds per iteration, the main figure of a row. Nothing else runs in this pass.

The machine's counters are read at the end of the warm-up and after the last sample, because only what happened during
the samples counts, and not what happened while the model was loaded. A GPU's sensors are read in between
(`harness.devices.watch`).
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from harness import reasons
from harness.devices.watch import Watch, beside
from harness.measuring import cold_cache, contention, sampling, throttling
from harness.measuring.repeatability import first_process_error, repeat_error
from harness.measuring.trial import Findings, Trial, digest, output_fault
from harness.numerics.tolerance import repeat_ceiling
from harness.probes import probe
from harness.reasons import Reason
from harness.types import Metric

if TYPE_CHECKING:
    import torch

LATENCY = Metric(
    name="latency_s",
    unit="s",
    label="Latency p50",
    better="lower",
    kind="noisy",
    description="median seconds of one iteration over one batch in the steady state, host wall clock with the device "
    "synchronised; with cold_cache, after a flush of the caches, and on a GPU by the GPU's own clock. A sample of "
    "several iterations (fact loops) waits for a GPU only at its end: the time per iteration is the larger of the "
    "host's and the GPU's, and not the latency of a single call",
)


DEVICE_TIME = Metric(
    name="device_time_s",
    unit="s",
    label="GPU time p50",
    better="lower",
    kind="advisory",
    description="median seconds of the same iterations between two CUDA events, by the GPU's own clock",
)
CLOCKS_AGREE = 0.05  # difference of the two clocks, as a share of the wall clock
LAUNCH_S = 1e-4  # of a synchronisation, which only the wall clock includes


@probe("latency", order=10, metrics=(LATENCY, DEVICE_TIME))
def latency(trial: Trial) -> Findings:
    """Warm-up and steady samples in seconds; the last output is checked, and a fault makes the row invalid."""
    by_device: list[float] = []
    before: dict[str, Any] = {}
    with _no_garbage_collection():
        outputs = [trial.first_output]

        def warm() -> None:
            outputs.append(_on_cpu(trial.timer.last))
            before.update(trial.device.start_span())
            watch.begin(alone=trial.turns is None)

        with Watch(trial.device.sensors()) as watch, cold_cache.flushed(trial) as flush:
            found = _sampled(trial, by_device, watch, warm, flush)
        state = trial.device.span_state(before)
    if "gpu" in state:
        state["gpu"] = beside(state["gpu"], watch.summary())
    output = _on_cpu(trial.timer.last)
    fault = output_fault(output, trial.workload) or trial.batch_before.fault(trial.workload.batch)
    repeated = Repeated() if fault else _repeated(trial, [*outputs, output])
    samples, missing = _device_time(trial, found, by_device)
    return Findings(
        samples={"latency_s": found.steady, **samples},
        missing=missing,
        warmup={"latency_s": found.warmup},
        facts={
            "loops": found.loops,
            **({} if flush is None else {"cold_cache_bytes": flush.size}),
            "output_hash": digest(output),
            **repeated.facts,
            **({} if trial.replicate == 0 else first_process_error(trial, output)),
            **_turns(trial),
            **_interval(found),
        },
        warnings=tuple(
            filter(
                None,
                (
                    found.unsteady,
                    _imprecise(found, trial),
                    _clocks(found.steady, samples),
                    repeated.warning,
                    throttling.warning(state),
                ),
            )
        ),
        invalid=fault or repeated.invalid,
        state=_meanwhile(trial, state),
    )


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """How far apart the outputs of a process are, and what follows from it."""

    facts: Mapping[str, float] = field(default_factory=dict)
    warning: Reason | None = None
    invalid: Reason | None = None


def _repeated(trial: Trial, outputs: Sequence[torch.Tensor]) -> Repeated:
    """Compares the outputs of the first iteration, of the last warm-up iteration and of the last sample with each
    other."""
    error = repeat_error(outputs)
    if error == 0.0:
        return Repeated()
    facts = {"repeat_error": error}
    if not error <= repeat_ceiling(trial.case.precision, trial.workload.output_kind):
        return Repeated(facts=facts, invalid=Reason("iterations_differ", {"error": error}))
    return Repeated(facts=facts, warning=Reason("not_repeatable", {"error": error}))


def _on_cpu(output: object) -> torch.Tensor:
    return cast("torch.Tensor", output).detach().cpu().clone()


def _meanwhile(trial: Trial, state: dict[str, Any]) -> dict[str, Any]:
    """The machine's state during the samples. If two processes take turns, neither can distinguish the other from
    unrelated processes on the CPU, and the driver counts the CPU time for both. The state is then that of the GPU
    alone."""
    if trial.turns is None:
        return {contention.LATENCY_PASS: state}
    return {"gpu": state["gpu"]} if "gpu" in state else {}


def _device_time(
    trial: Trial, found: sampling.Sampled, by_device: list[float]
) -> tuple[dict[str, list[float]], dict[str, Reason]]:
    """The device's seconds of the steady samples, which were the last ones; or why there are none."""
    watch = trial.device.stopwatch()
    if isinstance(watch, Reason | str):
        return {}, {DEVICE_TIME.name: reasons.of(watch)}
    if trial.turns is not None:
        return {}, {DEVICE_TIME.name: Reason("not_taken_in_turns")}
    if trial.protocol.cold_cache:
        return {}, {DEVICE_TIME.name: Reason("latency_by_device_clock")}
    return {DEVICE_TIME.name: by_device[-len(found.steady) :]}, {}


def _clocks(wall: list[float], samples: dict[str, list[float]]) -> Reason | None:
    """The warning that the two clocks disagree."""
    if DEVICE_TIME.name not in samples:
        return None
    host, device = statistics.median(wall), statistics.median(samples[DEVICE_TIME.name])
    if abs(host - device) <= max(CLOCKS_AGREE * host, LAUNCH_S):
        return None
    return Reason("clocks", {"host_s": host, "device_s": device})


def _sampled(
    trial: Trial, by_device: list[float], watch: Watch, warm: Callable[[], None], flush: Callable[[], None] | None
) -> sampling.Sampled:
    def measure(loops: int) -> float:
        if flush is not None:
            seconds = trial.timer.cold_seconds(trial.step, flush)
            watch.after_sample(trial.timer.last_whole_s)
            return seconds
        seconds = trial.timer.seconds(trial.step, loops)
        watch.after_sample(seconds * loops)
        if trial.timer.last_device_s is not None:
            by_device.append(trial.timer.last_device_s)
        return seconds

    shortest_s = sampling.shortest_s(trial.device.name, trial.protocol)
    if trial.turns is not None and trial.interleaving is not None:
        return sampling.sample_in_turns(measure, trial.interleaving, trial.turns, warm, shortest_s)
    if flush is not None:
        return sampling.sample(measure, trial.protocol, warm, shortest_s, lambda _timed_s: trial.timer.last_whole_s)
    return sampling.sample(measure, trial.protocol, warm, shortest_s)


def _turns(trial: Trial) -> dict[str, int]:
    """How many turns the samples were taken in, where another process took turns with this one."""
    return {} if trial.interleaving is None else {"turns": trial.interleaving.turns}


def _interval(found: sampling.Sampled) -> dict[str, float]:
    return {} if found.interval is None else {"interval": found.interval}


def _imprecise(found: sampling.Sampled, trial: Trial) -> Reason | None:
    """The warning that the process ended before the interval of its median was within the target."""
    target = trial.protocol.target_interval
    if target is None or found.interval is None or found.interval <= target:
        return None
    return Reason("imprecise", {"interval": found.interval, "target": target})


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
