"""Estimates with intervals. Pure numpy; the process is the unit of replication.

Iterations inside one process are not independent, so an interval over several processes resamples processes first
and iterations within them second (a two-level bootstrap, seeded). Two or three processes of one row cannot show how
processes differ, but all rows of a run together can: `between_processes` pools their spread, and an interval is at
least as wide as that spread makes it (Student's t on the log scale). Simulated with 24 rows, 2 processes, a
between-process sd of 4.5 % and 10 samples a process, the bootstrap alone covers the truth in about half of the cases,
the pooled interval in 95 % (tests/test_measuring.py).

A resample of m samples is drawn in ascending order: m sorted uniform variates give the positions of its values among
the sorted samples of its process. So an estimate that needs only a few ranks (a median or a high percentile) computes
only those ranks, and the random numbers are drawn once for all rows.

Percentiles above the median are Harrell-Davis estimates (Harrell & Davis 1982, Biometrika 69:635), given only where
at least one sample is expected beyond them: p90 needs 10 samples, p95 20, p99 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Estimator = Callable[[Array], Array]
Groups = Sequence[Sequence[float] | Array]  # the samples of one row, one sequence per process

RESAMPLES = 400
CONFIDENCE = 0.95
BLOCK = 2**17  # values that are resampled at a time
TOP_QUANTILE = 0.9  # from here on a percentile is computed from the highest ranks only
NEGLIGIBLE = 1e-12  # weight of all the lower ranks together
BELOW_ONE = 1 - 1e-12  # keeps a cumulative share that rounds to 1 inside its process


@lru_cache(maxsize=256)
def _harrell_davis_weights(count: int, quantile: float) -> Array:
    from scipy import stats as scipy_stats  # this import takes a second, which commands without intervals save

    edges = np.arange(count + 1) / count
    cumulative = scipy_stats.beta.cdf(edges, (count + 1) * quantile, (count + 1) * (1 - quantile))
    return np.diff(cumulative)


@lru_cache(maxsize=256)
def _top_weights(count: int, quantile: float) -> Array:
    """The Harrell-Davis weights of the highest ranks, normalised to 1; the lower ranks together weigh NEGLIGIBLE."""
    weights = _harrell_davis_weights(count, quantile)
    top = weights[np.searchsorted(np.cumsum(weights), NEGLIGIBLE) :]
    return np.asarray(top / top.sum())


def percentile_of(values: Array, percentile: float) -> Array:
    """Harrell-Davis estimate of a percentile in 0..100 along the last axis; the plain median for 50."""
    if percentile == 50:
        return np.asarray(np.median(values, axis=-1))
    return np.asarray(np.sort(values, axis=-1) @ _harrell_davis_weights(values.shape[-1], percentile / 100.0))


def median(values: Array) -> Array:
    """The median along the last axis, equal to numpy's and several times as fast on a handful of values.

    >>> float(median(np.array([3.0, 1.0, 2.0, 10.0])))
    2.5
    """
    return _middle(np.sort(values, axis=-1))


def _middle(ascending: Array) -> Array:
    """The median along the last axis of values that ascend along it."""
    count = ascending.shape[-1]
    return np.asarray((ascending[..., (count - 1) // 2] + ascending[..., count // 2]) / 2)


class Processes(tuple[Array, ...]):
    """The samples of one row, one array for each process that has any, in measuring order. Whatever several estimates
    need is computed once."""

    def __new__(cls, groups: Iterable[Sequence[float] | Array]) -> Processes:
        return super().__new__(cls, (np.asarray(g, dtype=float) for g in groups if len(g)))

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Samples of each process."""
        return np.array([len(samples) for samples in self], dtype=np.intp)

    @cached_property
    def draws(self) -> int:
        """Samples that a resample takes from each process: the mean count over the processes."""
        return max(1, round(len(self.ascending) / max(1, len(self))))

    @cached_property
    def ascending(self) -> Array:
        """All samples, process after process, each in ascending order."""
        return np.concatenate([np.empty(0), *(np.sort(samples) for samples in self)])

    @cached_property
    def pooled(self) -> tuple[Array, Array, float]:
        """(samples, shares, worth): all samples in ascending order; the cumulative weight up to and with each, with
        equal weight for every process; and the effective sample size (Kish 1965, n = 1 / sum of squared weights).
        `shares` begins with 0 and so has one entry more."""
        weights = np.repeat(1.0 / (len(self) * self.sizes), self.sizes)
        order = np.argsort(self.ascending, kind="stable")
        shares = np.minimum(np.concatenate([[0.0], np.cumsum(weights[order])]), 1.0)
        return self.ascending[order], shares, 1.0 / float((weights**2).sum())

    @cached_property
    def top(self) -> Array | None:
        """(RESAMPLES, ranks): the highest values of each resample, processes pooled, in ascending order: those with
        weight in percentiles from TOP_QUANTILE upwards. None as in `resampled`."""
        if len(self.ascending) < 2:
            return None
        count = len(_top_weights(len(self) * self.draws, TOP_QUANTILE))

        def merged(values: Array) -> Array:
            # A stable sort merges runs that are already sorted.
            return np.sort(values.reshape(len(values), -1), axis=-1, kind="stable")[:, -count:]

        return self.resampled(merged, slice(-count, None))  # as many from each process: the highest may all be in one

    def resampled(self, estimate: Estimator, ranks: slice = slice(None)) -> Array | None:
        """`estimate` of all resamples, RESAMPLES entries. It receives values (resamples, processes, ranks): for each
        resampled process, the requested `ranks` of its `draws` values, ascending. None if there are fewer than 2 values
        in all: one value has no spread."""
        if len(self.ascending) < 2:
            return None
        size = len(self) * len(range(self.draws)[ranks])
        step = max(1, BLOCK // size)
        blocks = (slice(first, first + step) for first in range(0, RESAMPLES, step))
        return np.concatenate([estimate(self._values(block, ranks)) for block in blocks])

    def _values(self, resamples: slice, ranks: slice) -> Array:
        """(resamples, processes, ranks): the values that `resampled` gives to an estimate."""
        chosen, sums = (table[resamples] for table in _resampling(len(self), 1 << (self.draws - 1).bit_length()))
        uniform_to_place = BELOW_ONE * self.sizes[chosen] / sums[..., self.draws, None]
        places = (sums[..., : self.draws][..., ranks] * uniform_to_place).astype(np.intp)
        places += (np.cumsum(self.sizes) - self.sizes)[chosen]
        return self.ascending.take(places)


@lru_cache(maxsize=32)
def _resampling(processes: int, capacity: int) -> tuple[NDArray[np.intp], Array]:
    """The random numbers that all rows share, seed 0: (RESAMPLES, processes, 1) indices of processes, drawn with
    replacement, and (RESAMPLES, processes, capacity + 1) cumulative sums of exponential variates.

    For any m up to `capacity`, the first m sums over the next one are m uniform variates in ascending order (Devroye
    1986, Non-Uniform Random Variate Generation, V.2.2): a resample of m sorted samples comes out in order, and a rank
    of it can be computed without the others.
    """
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, processes, (RESAMPLES, processes, 1))
    sums = rng.standard_exponential((RESAMPLES, processes, capacity + 1))
    return chosen, np.cumsum(sums, axis=-1, out=sums)


def pooled_percentile(groups: Groups, percentile: float) -> float:
    """Harrell-Davis estimate of a percentile in 0..100 over several processes, each with equal weight, however many
    samples it has: a weighted Harrell-Davis estimate with the effective sample size. With equally many samples in each
    process it is `percentile_of` all of them.

    >>> round(pooled_percentile([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], 90), 6) == round(
    ...     float(percentile_of(np.arange(1.0, 7.0), 90)), 6)
    True
    """
    values, shares, worth = processes(groups).pooled
    quantile = percentile / 100.0
    from scipy import special

    cumulative = special.betainc((worth + 1) * quantile, (worth + 1) * (1 - quantile), shares)
    return float(values @ np.diff(cumulative))


def interval(groups: Groups, estimate: Estimator, across: Estimator | None = None) -> tuple[float, float] | None:
    """95 % two-level bootstrap interval of `estimate` over processes (`groups`) and the samples in them.

    `estimate` reduces the last axis: of each process's samples if `across` then reduces its values over the processes,
    else of all samples. It must not depend on the order of the samples, since resamples are sorted. None if there are
    fewer than 2 values in all: one value has no spread.
    """
    found = processes(groups).resampled(
        lambda drawn: estimate(drawn.reshape(len(drawn), -1)) if across is None else across(estimate(drawn))
    )
    return _bounds(found)


def median_interval(groups: Groups) -> tuple[float, float] | None:
    """`interval` of the median over processes of each one's median. It needs only the middle ranks of a resample."""
    row = processes(groups)
    middle = slice((row.draws - 1) // 2, row.draws // 2 + 1)
    return _bounds(row.resampled(lambda drawn: median(_middle(drawn)), middle))


def percentile_interval(groups: Groups, percentile: float) -> tuple[float, float] | None:
    """`interval` of a percentile in 0..100 of all samples. From TOP_QUANTILE on it needs only the highest
    ranks of a resample."""
    row, quantile = processes(groups), percentile / 100.0
    if quantile < TOP_QUANTILE:
        return interval(row, lambda values: percentile_of(values, percentile))
    if row.top is None:
        return None
    weights = _top_weights(len(row) * row.draws, quantile)
    return _bounds(row.top[:, -len(weights) :] @ weights)


def processes(groups: Groups) -> Processes:
    """The groups as `Processes`; an instance of it is returned as it is, with what it has cached."""
    return groups if isinstance(groups, Processes) else Processes(groups)


def _bounds(found: Array | None) -> tuple[float, float] | None:
    """The two quantiles that enclose the central CONFIDENCE of the RESAMPLES values."""
    if found is None:
        return None
    tail = (1 - CONFIDENCE) / 2 * (RESAMPLES - 1)
    low, high = np.interp([tail, RESAMPLES - 1 - tail], np.arange(RESAMPLES), np.sort(found))
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How processes of one row differ: sd of the log of their medians, pooled over the rows, and degrees of freedom."""

    log_sd: float
    degrees: int


def between_processes(rows: Sequence[Groups]) -> Spread | None:
    """The pooled spread of process medians over rows of processes of samples; None where no row has two processes."""
    squares, degrees = 0.0, 0
    for groups in rows:
        medians = [float(median(samples)) for samples in processes(groups)]
        if len(medians) >= 2 and min(medians) > 0:
            logs = np.log(medians)
            squares += float(((logs - logs.mean()) ** 2).sum())
            degrees += len(logs) - 1
    return Spread(log_sd=math.sqrt(squares / degrees), degrees=degrees) if degrees else None


def widened(value: float, bounds: tuple[float, float], spread: Spread, processes: int) -> tuple[float, float]:
    """`bounds`, or the interval of `value` from the spread between processes if that is wider."""
    factor = math.exp(_student(spread.degrees) * spread.log_sd / math.sqrt(processes))
    return min(bounds[0], value / factor), max(bounds[1], value * factor)


@lru_cache(maxsize=256)
def _student(degrees: int) -> float:
    """Student's t at the upper end of a two-sided interval."""
    from scipy import stats as scipy_stats

    return float(scipy_stats.t.ppf(1 - (1 - CONFIDENCE) / 2, degrees))


def wilson(successes: float, count: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927), as used for top-1 and for the recognised share."""
    if count <= 0:
        raise ValueError(f"a share needs at least one item, got {count}")
    from scipy import special

    z = float(special.ndtri(1 - (1 - CONFIDENCE) / 2))
    share, z2 = successes / count, z * z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
