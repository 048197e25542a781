"""Warms up to a steady state, then samples until the interval of the median is narrow enough. `measure()` is the
caller's function; this module only decides how often it is called.

The warm-up ends when its minimum time and count are reached and the medians of the last two windows agree within the
protocol's tolerance. It also ends at `warmup_max_s`, and the row then has the warning `unsteady`. Warm-up values are
stored.

A sample holds enough iterations to last the device's `shortest_sample_s`: 0.2 ms on a CPU and 4 ms on a GPU. On a GPU
the synchronisation that ends a sample costs 10 to 20 microseconds, which is 5 to 10 % of 0.2 ms, and at most 0.5 % of
4 ms. (These are usual costs of CUDA. They have not been measured here yet.)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.reasons import Reason
from harness.registry import DEVICES
from harness.types import Protocol

if TYPE_CHECKING:
    from harness.measuring.turns import Interleaving, Turns

WINDOW = 4
MIN_TIMED_S = 2e-4
BATCHES = 10
CHECKS = 8  # the precision is checked again after an eighth more samples


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Seconds per iteration: `warmup` of the warm-up, which do not count, and `steady` of the samples. A sample holds
    `loops` iterations.

    `interval` is half the width of the 95 % interval of the median, as a share of the median; None with fewer than 4
    samples.
    """

    warmup: list[float]
    steady: list[float]
    loops: int
    unsteady: Reason | None
    interval: float | None = None


def shortest_s(device: str, protocol: Protocol) -> float:
    """The shortest duration of a sample in seconds on `device`; 0 where each iteration is a sample of its own."""
    return 0.0 if protocol.cold_cache else float(DEVICES[device].shortest_sample_s)


def sample(
    measure: Callable[[int], float],
    protocol: Protocol,
    warm: Callable[[], None] = lambda: None,
    shortest_s: float = MIN_TIMED_S,
    whole_s: Callable[[float], float] = lambda timed_s: timed_s,
) -> Sampled:
    """Warms up and samples as the protocol says. `measure(loops)` returns seconds per iteration over `loops`
    iterations.

    A sample lasts at least `shortest_s` seconds, and `warm` is called between the warm-up and the samples. `whole_s`
    converts the seconds that a measurement timed into the seconds that it took of the protocol's time."""
    warmup, unsteady = _warm_up(measure, protocol, whole_s)
    loops = _loops(warmup, shortest_s)
    warm()
    steady: list[float] = []
    spent = 0.0
    next_check = protocol.min_samples
    while not (len(steady) >= 3 and spent >= protocol.max_sample_time_s):
        if len(steady) >= next_check and spent >= protocol.min_sample_time_s:
            if _precise(steady, protocol.target_interval):
                break
            next_check = len(steady) + max(1, len(steady) // CHECKS)
        steady.append(measure(loops))
        spent += whole_s(steady[-1] * loops)
    return Sampled(warmup=warmup, steady=steady, loops=loops, unsteady=unsteady, interval=interval(steady))


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of the median of `values`, as a share of the median; None for fewer than 4
    values. Where it decides when to stop, the repeated checks make it slightly too narrow.

    It is computed from the medians of up to BATCHES consecutive segments, so that a correlation of neighbouring samples
    does not make it too narrow (batch means; Law and Kelton, Simulation Modeling and Analysis, chapter 9).
    """
    from scipy import special  # already imported by the fork server

    count = min(BATCHES, len(values))
    if count < 4:
        return None
    bounds = [round(i * len(values) / count) for i in range(count + 1)]
    medians = [statistics.median(values[a:b]) for a, b in pairwise(bounds)]
    centre = statistics.fmean(medians)
    half = float(special.stdtrit(count - 1, 0.975)) * statistics.stdev(medians) / math.sqrt(count)
    return half / centre if centre > 0 else 0.0


def _precise(values: Sequence[float], target: float | None) -> bool:
    reached = interval(values)
    return target is None or (reached is not None and reached <= target)


def sample_in_turns(
    measure: Callable[[int], float],
    interleaving: Interleaving,
    turns: Turns,
    warm: Callable[[], None] = lambda: None,
    shortest_s: float = MIN_TIMED_S,
) -> Sampled:
    """Samples turn by turn, with the counts of `interleaving`, which are equal in both arms of a pair. `steady` holds
    the samples of all turns in order."""
    warmup = [measure(1) for _ in range(interleaving.warmups)]
    loops = _loops(warmup, shortest_s)
    warm()
    steady: list[float] = []
    for _ in range(interleaving.turns):
        turns.pass_on()
        warmup += [measure(1) for _ in range(interleaving.discarded)]
        steady += [measure(loops) for _ in range(interleaving.samples)]
    return Sampled(warmup=warmup, steady=steady, loops=loops, unsteady=None)


def _loops(warmup: Sequence[float], shortest_s: float) -> int:
    """The number of iterations in a sample of `shortest_s` seconds, estimated from the end of the warm-up."""
    return max(1, math.ceil(shortest_s / max(statistics.median(warmup[-WINDOW:]), 1e-9)))


def _warm_up(
    measure: Callable[[int], float], protocol: Protocol, whole_s: Callable[[float], float]
) -> tuple[list[float], Reason | None]:
    values: list[float] = []
    spent = 0.0
    while True:
        values.append(measure(1))
        spent += whole_s(values[-1])
        if len(values) >= protocol.warmup_min_iterations and spent >= protocol.warmup_min_s:
            drift = _drift(values)
            if drift is not None and drift <= protocol.steady_tolerance:
                return values, None
            if spent >= protocol.warmup_max_s:
                return values, Reason("unsteady", {"limit_s": protocol.warmup_max_s, "drift": drift})


def _drift(values: list[float]) -> float | None:
    """Relative change between the medians of the last two windows; None for fewer than two windows of two values.

    The first value is left out, because it includes cold caches and lazy initialisation.
    """
    window = min(WINDOW, (len(values) - 1) // 2)
    if window < 2:
        return None
    before, after = statistics.median(values[-2 * window : -window]), statistics.median(values[-window:])
    return abs(after - before) / before if before > 0 else 0.0
