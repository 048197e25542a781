"""Seconds per iteration, the one number that everything else stands beside. Nothing else runs in this pass."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from harness import sampling
from harness.probes import probe
from harness.trial import Findings, Trial, digest, output_fault
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
    "synchronised",
)


@probe("latency", order=10, metrics=(LATENCY,))
def latency(trial: Trial) -> Findings:
    """Warm-up and steady samples in seconds; the last output is checked, and a fault makes the row invalid."""
    with _no_garbage_collection():
        found = _sampled(trial)
    output = cast("torch.Tensor", trial.timer.last)
    return Findings(
        samples={"latency_s": found.steady},
        warmup={"latency_s": found.warmup},
        facts={"loops": found.loops, "output_hash": digest(output), **_turns(trial), **_interval(found)},
        warnings=tuple(filter(None, (found.unsteady, _imprecise(found, trial)))),
        invalid=output_fault(output, trial.workload),
    )


def _sampled(trial: Trial) -> sampling.Sampled:
    def measure(loops: int) -> float:
        return trial.timer.seconds(trial.step, loops)

    if trial.turns is not None and trial.interleaving is not None:
        return sampling.sample_in_turns(measure, trial.interleaving, trial.turns)
    return sampling.sample(measure, trial.protocol)


def _turns(trial: Trial) -> dict[str, int]:
    """How many turns the samples were taken in, where another process took turns with this one."""
    return {} if trial.interleaving is None else {"turns": trial.interleaving.turns}


def _interval(found: sampling.Sampled) -> dict[str, float]:
    return {} if found.interval is None else {"interval": found.interval}


def _imprecise(found: sampling.Sampled, trial: Trial) -> str | None:
    """The warning of a process that spent its time and does not know its own median as well as was asked for."""
    target = trial.protocol.target_interval
    if target is None or found.interval is None or found.interval <= target:
        return None
    return f"imprecise: the median inside a process is known to ±{found.interval:.1%}, asked for was ±{target:.1%}"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
