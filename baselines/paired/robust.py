"""Statistics of pairs: a trimmed mean for the screening, and signed ranks for the alarm. All values are log ratios, and
positive is worse.

Unlike a mean, the trimmed mean is robust to a few outliers in a hundred pairs. The signed-rank test is exact for any
symmetric noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

TRIM: Final = 0.2

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """A trimmed mean with its standard error and degrees of freedom (Yuen 1974, Biometrika 61:165)."""

    mean: float
    error: float
    degrees: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval of the mean."""
        half = student((1 + confidence) / 2, self.degrees) * self.error
        return self.mean - half, self.mean + half

    def lower(self, confidence: float) -> float:
        """One-sided lower bound of the size of the shift, in its direction."""
        return abs(self.mean) - student(confidence, self.degrees) * self.error


def trimmed(values: Sequence[float], share: float = TRIM) -> Trimmed:
    """The mean of at least 4 values without the smallest and the largest `share` of them. Raises ValueError."""
    count = len(values)
    if count < 4:
        raise ValueError(f"a trimmed mean with an error needs at least 4 values, got {count}")
    cut = int(share * count)
    ordered = sorted(values)
    kept = ordered[cut : count - cut]
    winsorised = [kept[0]] * cut + kept + [kept[-1]] * cut
    centre = math.fsum(winsorised) / count
    squares = math.fsum((v - centre) ** 2 for v in winsorised)
    left = len(kept)
    return Trimmed(mean=math.fsum(kept) / left, error=math.sqrt(squares / (left * (left - 1))), degrees=left - 1)


@lru_cache(maxsize=4096)
def student(share: float, degrees: int) -> float:
    """Quantile of Student's t."""
    return float(special.stdtrit(degrees, share))


def signed_rank_p(values: Sequence[float]) -> float:
    """The exact one-sided p-value of the Wilcoxon signed-rank test that the centre of `values` is above 0. Ties have
    their mean rank.

    Zeros have no direction and are left out. If all values are zero, the p-value is 1.
    """
    informative = np.asarray([v for v in values if v != 0.0])
    if len(informative) == 0:
        return 1.0
    sizes = np.abs(informative)
    order = np.sort(sizes)
    # Twice the mean rank, so that ties stay whole numbers.
    doubled = np.searchsorted(order, sizes, "left") + np.searchsorted(order, sizes, "right") + 1
    reached = int(doubled[informative > 0].sum())
    upper = _upper_tails(tuple(sorted(doubled.tolist())))
    return float(upper[reached])


@lru_cache(maxsize=512)
def _upper_tails(doubled_ranks: tuple[int, ...]) -> Array:
    """P(sum >= s) for each s, if each rank counts with probability 1/2."""
    chances = np.zeros(sum(doubled_ranks) + 1)
    chances[0] = 1.0
    for rank in doubled_ranks:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[:-rank]
        chances = (chances + shifted) / 2
    return np.cumsum(chances[::-1])[::-1]


def hodges_lehmann(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(shift, low, high): the median of all pairwise means, and its exact signed-rank interval.

    With fewer values than the confidence needs (6 for 95 %), the interval is the whole range of the pairwise means.
    """
    array = np.asarray(values, dtype=float)
    rows, columns = np.triu_indices(len(array))
    means = np.sort((array[rows] + array[columns]) / 2)
    skipped = _outside(len(array), (1 - confidence) / 2)
    return float(np.median(means)), float(means[skipped]), float(means[len(means) - 1 - skipped])


@lru_cache(maxsize=512)
def _outside(count: int, tail: float) -> int:
    """The number of smallest pairwise means outside an interval: the largest k with P(rank sum <= k) <= tail."""
    upper = _upper_tails(tuple(2 * rank for rank in range(1, count + 1)))
    lower = 1.0 - upper[2::2]  # P(sum <= s) for s = 0, 1, ...: P(sum >= s + 1) is its complement
    return max(int(np.searchsorted(lower, tail, "right")) - 1, 0)
