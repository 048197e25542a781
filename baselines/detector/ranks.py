"""Rank tests as other tools compute them: p-values of Mann-Whitney's U, and an interval of a median."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from baselines.detector.drawn import Array

EXACT_UP_TO: Final = 8
CONSERVATIVE_EXACT_UP_TO: Final = 20


def mann_whitney_p(first: Array, second: Array) -> float:
    """The two-sided p-value that `scipy.stats.mannwhitneyu` gives by default. It is exact if a sample has up to 8
    values and there are no ties. Otherwise it is the normal approximation with continuity and tie correction, in numpy
    for speed."""
    m, n = len(first), len(second)
    both = np.concatenate([first, second])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    if min(m, n) <= EXACT_UP_TO and len(counts) == m + n:
        return float(scipy_stats.mannwhitneyu(first, second, method="exact").pvalue)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    statistic = float(ranks[:m].sum()) - m * (m + 1) / 2
    largest = max(statistic, m * n - statistic)
    ties = float((counts**3 - counts).sum()) / ((m + n) * (m + n - 1))
    deviation = math.sqrt(m * n / 12 * (m + n + 1 - ties))
    if deviation == 0:
        return 1.0
    return min(1.0, 2 * float(special.ndtr(-(largest - m * n / 2 - 0.5) / deviation)))


def smallest_p(m: int, n: int) -> float:
    """The smallest one-sided p-value that m and n samples can give."""
    return 1 / math.comb(m + n, min(m, n))


def mann_whitney_conservative(first: Array, second: Array) -> float:
    """The two-sided p-value that asv computes. Ties are broken in the least significant way. The p-value is exact up to
    20 samples per arm, and a normal approximation without corrections for more samples."""
    m, n = len(first), len(second)
    wins = int((first[:, None] > second[None, :]).sum())
    ties = int((first[:, None] == second[None, :]).sum())
    middle = m * n // 2
    if wins <= middle <= wins + ties:
        ties = middle - wins
    least = max(min(wins, m * n - wins), min(wins + ties, m * n - wins - ties))
    if max(m, n) > CONSERVATIVE_EXACT_UP_TO:
        deviation = math.sqrt(m * n * (m + n + 1) / 12)
        return 2 * float(special.ndtr((least - m * n / 2) / deviation))
    chances = _u_distribution(m, n)
    upper = max(middle, m * n - least - 1)
    return float(chances[: least + 1].sum() + 1 - chances[: upper + 1].sum())


@lru_cache(maxsize=256)
def _u_distribution(m: int, n: int) -> Array:
    """P(U = u) for u = 0 .. m n: counted by the Gaussian binomial coefficient."""
    counts = np.zeros(m * n + 1)
    counts[0] = 1.0
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):
            counts[u] -= counts[u - n - i]
        for u in range(i, m * n + 1):
            counts[u] += counts[u - i]
    return np.asarray(counts / counts.sum())


def location_interval(values: Array) -> tuple[float, float]:
    """The 99 % interval of the median that asv computes: from order statistics, or from the Laplace posterior of the
    location.

    The posterior is the sum of distances to the power of -n (asv_runner/statistics.py). If there are fewer than 8
    values, the order statistics give no bound. The 0.5 % and 99.5 % quantiles of the posterior are then the bounds, but
    no bound is inside the range of the sample.
    """
    ordered = np.sort(values)
    count = len(ordered)
    reached = np.cumsum(special.comb(count, np.arange(count)) * 0.5**count)
    below = ordered[reached <= 0.005]
    above = ordered[reached >= 0.995]
    if count < 2:
        return (float(below[-1]) if len(below) else -math.inf), (float(above[0]) if len(above) else math.inf)
    low = float(below[-1]) if len(below) else min(_laplace_quantile(ordered, 0.005), float(ordered[0]))
    high = float(above[0]) if len(above) else max(_laplace_quantile(ordered, 0.995), float(ordered[-1]))
    return low, high


def _laplace_quantile(ordered: Array, share: float) -> float:
    """A quantile of the density that is proportional to (sum of |y - x|)^-n; the sum is linear between the values."""
    count = len(ordered)
    if ordered[0] == ordered[-1]:
        return float(ordered[0])
    centre, scale = float(np.median(ordered)), float(np.abs(ordered - np.median(ordered)).sum())
    values = (ordered - centre) / scale
    slopes = 2 * np.arange(count + 1) - count  # of the sum of distances, left of each value and right of the last
    sums = np.abs(values[:, None] - values[None, :]).sum(axis=0)
    power = 1 - count
    ends = sums**power
    masses = [ends[0] / (power * slopes[0])]
    for k in range(1, count):
        inside = (
            (values[k] - values[k - 1]) / sums[k] ** count
            if slopes[k] == 0
            else (ends[k] - ends[k - 1]) / (power * slopes[k])
        )
        masses.append(inside)
    masses.append(-ends[-1] / (power * slopes[-1]))
    total = np.cumsum(masses)
    wanted = share * total[-1]
    k = int(np.searchsorted(total, wanted))
    if k == 0:
        reached = wanted * power * slopes[0]
        return float(centre + scale * (values[0] - (sums[0] - reached ** (1 / power)) / slopes[0]))
    rest = wanted - total[k - 1]
    if slopes[k] == 0:
        return float(centre + scale * (values[k - 1] + rest * sums[k - 1] ** count))
    reached = ends[k - 1] + rest * power * slopes[k]
    return float(centre + scale * (values[k - 1] + (reached ** (1 / power) - sums[k - 1]) / slopes[k]))
