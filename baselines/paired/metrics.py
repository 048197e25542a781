"""The metrics of the paired rule: the value of a process, the shift of a pair, and the sensitivity.

Latency is the primary metric, which determines the number of pairs. The tail and the start-up are secondary metrics of
the same pairs. They are noisier, because the tail is a percentile of few samples, and a process has only one start. So
only larger shifts of them count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from baselines.paired.question import Sensitivity
from baselines.paired.robust import trimmed
from harness.derived_metrics import needed_for
from harness.stats import percentile_of
from harness.types import Measurement, Metric

TAIL: Final = 95.0
# The longest iterations have four turns. Trimming a quarter at each end keeps two of them, since a burst of other work
# affects one turn, but not the next one. Trimming a fifth would keep all four. Pairs of equal arms of digits_sd at
# batch 8 would then have a standard deviation of 5.4 % instead of 1.9 % (baselines/recorded/gate-one-server.json.gz;
# tests/test_recorded_noise.py).
TURN_TRIM: Final = 0.25
STARTS: Final = ("load_s", "build_s", "build_cached_s", "capture_s", "first_call_s")


@dataclass(frozen=True, kw_only=True)
class PairedMetric:
    """A metric of the paired rule. `figure` computes its value for a process, None if the process has no value or fewer
    than `samples` samples. `shift` is ln(head / base) of a pair. `short` is its name in a sentence."""

    metric: Metric
    sensitivity: Sensitivity
    primary: bool
    figure: Callable[[Measurement], float | None]
    short: str
    samples: int = 1
    by_turns: bool = False

    def shift(self, base: Measurement, head: Measurement) -> float | None:
        """ln(head / base) of one pair; None if an arm has no value. With `by_turns`, neighbouring turns are
        compared."""
        there, here = self.figure(base), self.figure(head)
        if there is None or here is None:
            return None
        return turn_shift(base, head) if self.by_turns else math.log(here / there)


def turn_shift(base: Measurement, head: Measurement) -> float:
    """The trimmed mean over the turns of ln(head's median / base's median). A drift that is slower than a turn
    cancels."""
    turns = [turn_medians(m.samples["latency_s"], m.facts.get("turns", 1)) for m in (base, head)]
    return mean_shift(*turns)


def mean_shift(base: Sequence[float], head: Sequence[float]) -> float:
    """The trimmed mean of ln(head / base) over turns, or the median if there are fewer than four turns. If the numbers
    of turns differ, it is ln of the ratio of the medians."""
    if len(base) != len(head):
        return math.log(statistics.median(head) / statistics.median(base))
    shifts = [math.log(here / there) for there, here in zip(base, head, strict=True)]
    return trimmed(shifts, TURN_TRIM).mean if len(shifts) >= 4 else statistics.median(shifts)


def turn_medians(samples: Sequence[float], turns: int) -> list[float]:
    """The median of each of `turns` segments of equal length."""
    size = max(1, len(samples) // turns)
    return [statistics.median(samples[i : i + size]) for i in range(0, len(samples), size)]


def _median(measurement: Measurement) -> float | None:
    samples = measurement.samples.get("latency_s")
    return statistics.median(samples) if samples else None


def _tail(measurement: Measurement) -> float | None:
    samples = measurement.samples.get("latency_s", [])
    return float(percentile_of(np.asarray(samples), TAIL)) if len(samples) >= needed_for(TAIL) else None


def _start(measurement: Measurement) -> float | None:
    parts = [value for name in STARTS for value in measurement.samples.get(name, [])]
    return sum(parts) if parts else None


def _metric(name: str, label: str, description: str) -> Metric:
    return Metric(name=name, unit="s", label=label, better="lower", kind="noisy", description=description)


PAIRED_METRICS: Final = (
    PairedMetric(
        metric=_metric("latency_s", "Latency p50", "median seconds of one iteration in a process"),
        sensitivity=Sensitivity(guarantee=0.025, floor=0.01),
        primary=True,
        figure=_median,
        short="p50",
        by_turns=True,
    ),
    PairedMetric(
        metric=_metric("latency_p95_s", "Latency p95", "95th percentile (Harrell-Davis) of a process's iterations"),
        sensitivity=Sensitivity(guarantee=0.10, floor=0.04),
        primary=False,
        figure=_tail,
        short="p95",
        samples=needed_for(TAIL),
    ),
    PairedMetric(
        metric=_metric("startup_s", "Start-up", "seconds to load, build with a warm cache, and call once"),
        sensitivity=Sensitivity(guarantee=0.10, floor=0.04),
        primary=False,
        figure=_start,
        short="start-up",
    ),
)
