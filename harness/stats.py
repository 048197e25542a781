"""Estimates with intervals. Pure numpy; the process is the unit of replication.

Iterations inside one process are not independent, so an interval over several processes resamples processes first
and iterations within them second (a two-level bootstrap, seeded). Two or three processes of one row cannot show how
processes differ, but all rows of a run together can: `between_processes` pools their spread, and an interval is at
least as wide as that spread makes it (Student's t on the log scale). Simulated with 24 rows, 2 processes, a
between-process sd of 4.5 % and 10 samples a process, the bootstrap alone covers the truth in about half of the cases,
the pooled interval in 95 % (tests/test_measuring.py).

Percentiles above the median are Harrell-Davis estimates (Harrell & Davis 1982, Biometrika 69:635), given only where
at least one sample is expected beyond them: p90 needs 10 samples, p95 20, p99 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

Array = NDArray[np.float64]
Estimator = Callable[[Array], Array]

RESAMPLES = 400
CONFIDENCE = 0.95


def needed_for(percentile: float) -> int:
    """Samples below which a percentile is not given.

    >>> needed_for(90), needed_for(99)
    (10, 100)
    """
    return math.ceil(round(1.0 / (1.0 - percentile / 100.0), 6))


@lru_cache(maxsize=256)
def _harrell_davis_weights(count: int, quantile: float) -> Array:
    edges = np.arange(count + 1) / count
    cumulative = scipy_stats.beta.cdf(edges, (count + 1) * quantile, (count + 1) * (1 - quantile))
    return np.diff(cumulative)


def percentile_of(values: Array, percentile: float) -> Array:
    """Harrell-Davis estimate of a percentile in 0..100 along the last axis; the plain median for 50."""
    return _percentile_of_sorted(values if percentile == 50 else np.sort(values, axis=-1), percentile)


def _percentile_of_sorted(values: Array, percentile: float) -> Array:
    """`percentile_of` values that ascend along the last axis; the median needs no order."""
    if percentile == 50:
        return np.asarray(np.median(values, axis=-1))
    return np.asarray(values @ _harrell_davis_weights(values.shape[-1], percentile / 100.0))


def pooled_percentile(groups: Sequence[Sequence[float]], percentile: float) -> float:
    """Harrell-Davis estimate of a percentile in 0..100 over several processes, each of which counts alike, however many
    samples it has: the weights of equal samples, at the number of samples that the unequal weights are worth (Kish
    1965, n = 1 / sum of squared weights). With equally many samples it is `percentile_of` all of them.

    >>> round(pooled_percentile([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], 90), 6) == round(
    ...     float(percentile_of(np.arange(1.0, 7.0), 90)), 6)
    True
    """
    arrays = [np.asarray(g, dtype=float) for g in groups if len(g)]
    values = np.concatenate(arrays)
    weights = np.concatenate([np.full(len(a), 1.0 / (len(arrays) * len(a))) for a in arrays])
    order = np.argsort(values, kind="stable")
    edges = np.minimum(np.concatenate([[0.0], np.cumsum(weights[order])]), 1.0)
    worth, quantile = 1.0 / float((weights**2).sum()), percentile / 100.0
    cumulative = scipy_stats.beta.cdf(edges, (worth + 1) * quantile, (worth + 1) * (1 - quantile))
    return float(values[order] @ np.diff(cumulative))


class Processes(tuple[Sequence[float], ...]):
    """The samples of one row, a sequence a process. Its resamples are drawn once for all estimates made of them: an
    interval costs its estimate alone."""

    @cached_property
    def drawn(self) -> Array | None:
        """(RESAMPLES, processes, samples) of seed 0: as many processes as there are, with replacement, and from each
        the mean number of samples. None where fewer than 2 values are there in all: one value has no spread."""
        arrays = [np.asarray(g, dtype=float) for g in self if len(g)]
        sizes = np.array([len(a) for a in arrays])
        if sizes.sum() < 2:
            return None
        padded = np.zeros((len(arrays), sizes.max()))
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        rng = np.random.default_rng(0)
        chosen = rng.integers(0, len(arrays), (RESAMPLES, len(arrays), 1))
        draws = max(1, round(float(sizes.mean())))
        within = (rng.random((RESAMPLES, len(arrays), draws)) * sizes[chosen]).astype(int)
        return np.asarray(padded[chosen, within])

    @cached_property
    def sorted_resamples(self) -> Array | None:
        """(RESAMPLES, processes * samples): all values of each resample in ascending order; None as in `drawn`."""
        return None if self.drawn is None else np.sort(self.drawn.reshape(RESAMPLES, -1), axis=-1)


def interval(
    groups: Sequence[Sequence[float]], estimate: Estimator, across: Estimator | None = None
) -> tuple[float, float] | None:
    """95 % two-level bootstrap interval of `estimate` over processes (`groups`) and the samples in them.

    `estimate` reduces the last axis, of each process's samples where `across` reduces its values over the processes,
    else of all samples. None where fewer than 2 values are there in all: one value has no spread.
    """
    drawn = _processes(groups).drawn
    if drawn is None:
        return None
    return _bounds(estimate(drawn.reshape(RESAMPLES, -1)) if across is None else across(estimate(drawn)))


def percentile_interval(groups: Sequence[Sequence[float]], percentile: float) -> tuple[float, float] | None:
    """`interval` of a percentile in 0..100 of all samples; the resamples are sorted once for all percentiles."""
    resamples = _processes(groups).sorted_resamples
    return None if resamples is None else _bounds(_percentile_of_sorted(resamples, percentile))


def _processes(groups: Sequence[Sequence[float]]) -> Processes:
    return groups if isinstance(groups, Processes) else Processes(groups)


def _bounds(found: Array) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How processes of one row differ: sd of the log of their medians, pooled over the rows, and degrees of freedom."""

    log_sd: float
    degrees: int


def between_processes(rows: Sequence[Sequence[Sequence[float]]]) -> Spread | None:
    """The pooled spread of process medians over rows of processes of samples; None where no row has two processes."""
    squares, degrees = 0.0, 0
    for groups in rows:
        medians = [float(np.median(g)) for g in groups if len(g)]
        if len(medians) >= 2 and min(medians) > 0:
            logs = np.log(medians)
            squares += float(((logs - logs.mean()) ** 2).sum())
            degrees += len(logs) - 1
    return Spread(log_sd=math.sqrt(squares / degrees), degrees=degrees) if degrees else None


def widened(value: float, bounds: tuple[float, float], spread: Spread, processes: int) -> tuple[float, float]:
    """`bounds`, or the interval that the spread between processes gives to `value` where that is wider."""
    quantile = float(scipy_stats.t.ppf(1 - (1 - CONFIDENCE) / 2, spread.degrees))
    factor = math.exp(quantile * spread.log_sd / math.sqrt(processes))
    return min(bounds[0], value / factor), max(bounds[1], value * factor)


def wilson(successes: float, count: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927), as used for top-1 and for the recognised share."""
    if count <= 0:
        raise ValueError(f"a share needs at least one item, got {count}")
    z = float(scipy_stats.norm.ppf(1 - (1 - CONFIDENCE) / 2))
    share, z2 = successes / count, z * z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
