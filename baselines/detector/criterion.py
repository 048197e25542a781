"""criterion.rs' bootstrap: a t-test by resampling the pooled samples, and an interval of the change of the mean.

criterion.rs draws 100,000 resamples for each comparison. This implementation draws RESAMPLES resamples once for each
pair of counts. They are a matrix of the number of times that each sample is drawn, so a comparison is one matrix
product. The resolution of the p-value is then 0.001 instead of 0.00002, which is still far below the threshold of 0.05.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baselines.detector.drawn import Array

SIGNIFICANCE: Final = 0.05
THRESHOLD: Final = 0.01
CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
CHANGE_RESAMPLES: Final = 100  # of each arm; each resample of one arm is compared with each of the other

Weights = NDArray[np.float32]


def t_test_p(first: Array, second: Array) -> float:
    """Two-sided p-value of Welch's t. Its distribution comes from resampling both arms from the pooled samples.

    NaN if no resample has a finite t, because all samples are equal. criterion.rs then finds no change.
    """
    m, n = len(first), len(second)
    pooled = np.concatenate([first, second])
    scaled = (pooled / pooled.mean() - 1).astype(np.float32)
    both = np.stack([scaled, scaled**2], axis=1)
    weights_first, weights_second = _pooled_weights(m, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = _t(weights_first @ both, m, weights_second @ both, n)
        error = first.var(ddof=1) / m + second.var(ddof=1) / n if min(m, n) > 1 else np.nan
        found = (first.mean() - second.mean()) / np.sqrt(error)
    finite = resampled[np.isfinite(resampled)]
    if len(finite) == 0:
        return float("nan")
    hits = int((finite < found).sum())
    return 2 * min(hits, len(finite) - hits) / len(finite)


def change_interval(first: Array, second: Array, confidence: float) -> tuple[float, float]:
    """Percentile interval of mean(first) / mean(second) - 1, with each arm resampled separately."""
    means = _weights_of_means(len(first), 1) @ first, _weights_of_means(len(second), 2) @ second
    changes = (means[0][:, None] / means[1][None, :] - 1).ravel()
    low, high = np.percentile(changes, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


def _t(first: NDArray[np.float32], m: int, second: NDArray[np.float32], n: int) -> Array:
    """Welch's t of each resample, from its sum and sum of squares."""
    means, others = first[:, 0].astype(float) / m, second[:, 0].astype(float) / n
    variance = (first[:, 1].astype(float) - m * means**2) / (m - 1)
    other_variance = (second[:, 1].astype(float) - n * others**2) / (n - 1)
    return np.asarray((means - others) / np.sqrt(variance / m + other_variance / n))


@lru_cache(maxsize=32)
def _pooled_weights(m: int, n: int) -> tuple[Weights, Weights]:
    """The number of times that each of m + n samples is drawn into each resampled arm."""
    generator = np.random.default_rng((m, n))
    shares = np.full(m + n, 1 / (m + n))
    first, second = (generator.multinomial(count, shares, RESAMPLES) for count in (m, n))
    return first.astype(np.float32), second.astype(np.float32)


@lru_cache(maxsize=64)
def _weights_of_means(count: int, seed: int) -> Array:
    """The share of each of an arm's samples in each of its resampled means."""
    generator = np.random.default_rng((count, seed))
    return np.asarray(generator.multinomial(count, np.full(count, 1 / count), CHANGE_RESAMPLES) / count)
