"""FID and KID of two sets of images of the same seeds, compared by a paired bootstrap with a fixed seed.

Image i of both sets has the same prompt and seed, so the images are resampled together. A common bias, such as that of
FID for small sets, cancels in the difference.

    regressed      the difference is beyond the tolerance, and its 99 % interval above 0
    unchanged      the interval is within the tolerance
    inconclusive   neither

FID is computed as by Heusel et al. (NeurIPS 2017), KID as the unbiased estimate over all images (Binkowski et al.,
ICLR 2018; torch-fidelity's mean over subsets has the same expectation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from baselines.stored.rows import Row
from baselines.stored.rules import RuleResult, set_tolerance
from baselines.verdict import Outcome
from baselines.wording import ReasonKind, because
from harness.image_sets import Array, ImageSet, decode, kernel
from harness.types import Metric

FACT: Final = "picture_set"  # the stored key
RESAMPLES: Final = 1000
SEED: Final = 20
CONFIDENCE: Final = 0.99
SHOWN: Final = 0.95  # confidence of the interval of the ratio, as for other metrics
FEWEST: Final = 10  # images: a resample of fewer may have a single distinct one
# Significant digits of the compared values. The last bits depend on the BLAS and the number of threads, and a replay on
# another machine must give bit-identical decisions.
DIGITS: Final = 9

Weights = Array
Distance = Callable[[ImageSet, Weights], Array]


def fid(images: ImageSet, weights: Weights) -> Array:
    """The Frechet distance of each resample, (B,); `weights` (B, N) counts how often each image is in it."""
    count = weights.sum(axis=1)
    means = weights @ images.features / count[:, None]  # (B, F)
    spread = np.empty(len(weights))
    for number, (row, mean) in enumerate(zip(weights, means, strict=True)):
        centred = images.features - mean
        covariance = (centred * row[:, None]).T @ centred / (row.sum() - 1)  # (F, F)
        product = np.linalg.eigvalsh(images.root @ covariance @ images.root)
        spread[number] = np.trace(covariance) - 2 * np.sqrt(np.maximum(product, 0.0)).sum()
    distance = ((means - images.mean) ** 2).sum(axis=1)
    return np.asarray(distance + spread + (images.root**2).sum())


def kid(images: ImageSet, weights: Weights) -> Array:
    """The unbiased squared maximum mean discrepancy of each resample, (B,), without the term of the reference,
    which cancels in the difference."""
    own = kernel(images.features, images.features)
    np.fill_diagonal(own, 0.0)
    count = weights.sum(axis=1)
    among = ((weights @ own) * weights).sum(axis=1) / (count**2 - (weights**2).sum(axis=1))
    return np.asarray(among - 2 * weights @ images.cross / count)


DISTANCES: Final[Mapping[str, Distance]] = {"fid": fid, "kid": kid}


def by_bootstrap(metric: Metric, there: Row, here: Row, baseline: float, candidate: float) -> RuleResult | None:
    """The result of a paired bootstrap for the values `baseline` and `candidate`; None if one of the runs did not keep
    the features of its images, or if the metric cannot be computed from them."""
    sets = [_stored(row) for row in (there, here)]
    distance = DISTANCES.get(metric.name)
    if distance is None or sets[0] is None or sets[1] is None:
        return None
    try:
        before, now = decode(sets[0]), decode(sets[1])
    except (ValueError, KeyError, TypeError) as error:
        return RuleResult(outcome="not_comparable", reason=because(ReasonKind.SET_UNREADABLE, error=str(error)))
    if before.features.shape != now.features.shape:
        shapes = {"here": list(now.features.shape), "there": list(before.features.shape)}
        return RuleResult(outcome="not_comparable", reason=because(ReasonKind.SET_SHAPES_DIFFER, **shapes))
    allowed = set_tolerance(baseline)
    count = len(now.features)
    if count < FEWEST:
        reason = because(ReasonKind.SET_TOO_SMALL, images=count, needed=FEWEST)
        return RuleResult(outcome="inconclusive", reason=reason, baseline=baseline, candidate=candidate)
    found = paired_difference(distance, before, now)
    decimals = DIGITS - 1 - math.floor(math.log10(max(abs(baseline), abs(candidate), allowed)))
    return _result(baseline, candidate, allowed, found.rounded(decimals), count)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference now - before of a distance, with its intervals at CONFIDENCE, which decides, and at SHOWN."""

    shift: float
    deciding: tuple[float, float]
    shown: tuple[float, float]

    def rounded(self, decimals: int) -> Difference:
        deciding, shown = ((round(low, decimals), round(high, decimals)) for low, high in (self.deciding, self.shown))
        return Difference(shift=round(self.shift, decimals), deciding=deciding, shown=shown)


def paired_difference(distance: Distance, before: ImageSet, now: ImageSet) -> Difference:
    """The difference now - before of a distance, with the same images resampled in both."""
    count = len(now.features)
    weights = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    whole = np.ones((1, count))
    shift = float((distance(now, whole) - distance(before, whole))[0])
    shifts = distance(now, weights) - distance(before, weights)
    # The basic bootstrap: the spread is that of the resamples, and the centre of the interval is the shift.
    centred = shifts - shifts.mean()
    tails = [np.quantile(centred, [(1 - level) / 2, (1 + level) / 2]) for level in (CONFIDENCE, SHOWN)]
    deciding, shown = ((shift - float(high), shift - float(low)) for low, high in tails)
    return Difference(shift=shift, deciding=deciding, shown=shown)


def _result(baseline: float, candidate: float, allowed: float, found: Difference, count: int) -> RuleResult:
    shift, (low, high) = found.shift, found.deciding
    outcome: Outcome = "inconclusive"
    if -allowed <= low and high <= allowed:
        outcome = "unchanged"
    elif abs(shift) > allowed and (low > 0 or high < 0):
        outcome = "regressed" if shift > 0 else "improved"
    return RuleResult(
        outcome=outcome,
        reason=because(
            ReasonKind.SET_CHANGED,
            shift=shift,
            baseline=baseline,
            low=low,
            high=high,
            images=count,
            allowed=allowed,
        ),
        baseline=baseline,
        candidate=candidate,
        low=1 + found.shown[0] / baseline if baseline > 0 else None,
        high=1 + found.shown[1] / baseline if baseline > 0 else None,
        minimum_detectable=(allowed + (high - low) / 2) / abs(baseline) if baseline else None,
    )


def _stored(row: Row) -> Mapping[str, Any] | None:
    return next((m.facts[FACT] for m in row.processes if m.facts.get(FACT)), None)
