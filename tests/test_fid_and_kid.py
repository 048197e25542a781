"""FID and KID of stored image sets, and the paired bootstrap of their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.stored.fid_and_kid import by_bootstrap, fid, kid, paired_difference
from baselines.stored.rows import Row
from benches.digits import data, quality
from harness.image_sets import decode, encode, image_set, kernel
from harness.types import Case, Measurement, Metric

FID = Metric(name="fid", unit="1", label="FID", better="lower", kind="quality_set", description="", summary="last")
RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(300, 6))
IMAGES = RNG.normal(0.3, 1.1, size=(200, 6))


def row(stored: dict[str, Any] | None) -> Row:
    facts = {} if stored is None else {"picture_set": stored}
    measurement = Measurement(case=Case(model="m"), replicate=0, status="ok", samples={"fid": [1.0]}, facts=facts)
    return Row(case=measurement.case, status="ok", reason=None, processes=(measurement,))


def distance(features: np.ndarray) -> float:
    return float(fid(decode(encode(features, REFERENCE)), np.ones((1, len(features))))[0])


def verdict(before: np.ndarray, now: np.ndarray) -> Any:
    there, here = (row(encode(features, REFERENCE)) for features in (before, now))
    return by_bootstrap(FID, there, here, distance(before), distance(now))


def test_fid_and_kid_are_those_of_torch_fidelity() -> None:
    """On real scans: FID to the rounding of the stored features, KID to the luck of torch-fidelity's subsets."""
    held_out = data.load("held_out").images[:200]
    expected = quality.fid_and_kid(held_out)
    features, reference = quality.features(held_out).numpy(), quality.reference().numpy()
    whole, kept = np.ones((1, 200)), decode(encode(features, reference))
    assert fid(kept, whole)[0] == pytest.approx(expected["fid"], rel=0.01)
    own = kernel(reference, reference)
    among = (own.sum() - np.trace(own)) / (len(reference) * (len(reference) - 1))
    assert kid(kept, whole)[0] + among == pytest.approx(expected["kid_mean"], abs=4 * expected["kid_std"] / 50**0.5)


def test_a_picture_counted_twice_is_a_picture_that_is_there_twice() -> None:
    weights = np.ones((1, 200))
    weights[0, :50] = 2.0
    doubled = image_set(np.concatenate([IMAGES, IMAGES[:50]]), REFERENCE)
    assert fid(image_set(IMAGES, REFERENCE), weights)[0] == pytest.approx(fid(doubled, np.ones((1, 250)))[0])


def test_worse_pictures_regress_and_better_ones_improve() -> None:
    worse = IMAGES + 0.4
    assert verdict(IMAGES, worse).outcome == "regressed"
    assert verdict(worse, IMAGES).outcome == "improved"
    assert "paired bootstrap of 200 images" in str(verdict(IMAGES, worse).reason)


def test_rounding_is_no_change() -> None:
    found = verdict(IMAGES, IMAGES + np.random.default_rng(1).normal(0, 0.002, IMAGES.shape))
    assert found.outcome == "unchanged"
    assert found.minimum_detectable is not None


def test_other_pictures_of_the_same_quality_raise_no_alarm() -> None:
    """Two independent sets of 60 from one distribution differ in FID by more than the tolerance, by chance alone."""
    outcomes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        before, now = (rng.normal(0.3, 1.1, size=(60, 6)) for _ in range(2))
        outcomes.append(verdict(before, now).outcome)
    assert outcomes.count("regressed") + outcomes.count("improved") <= 3
    assert outcomes.count("inconclusive") >= 20


def test_the_interval_covers_the_difference_of_the_distributions() -> None:
    """The difference in KID, which is unbiased, of a shifted distribution; 99 % intervals of 100 sets of 100."""
    large = np.random.default_rng(99).normal(size=(40_000, 6))
    means = [kernel(large[:20_000] + shift, REFERENCE).mean() for shift in (0.0, 0.2)]
    among = [kernel(large[:2000] + shift, large[2000:4000] + shift).mean() for shift in (0.0, 0.2)]
    truth = (among[1] - 2 * means[1]) - (among[0] - 2 * means[0])
    covered = 0
    for seed in range(100):
        images = np.random.default_rng(seed).normal(size=(100, 6))
        low, high = paired_difference(kid, *(image_set(images + s, REFERENCE) for s in (0.0, 0.2))).deciding
        covered += low <= truth <= high
    assert covered >= 93


def test_another_linear_algebra_decides_bit_for_bit_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another BLAS, or another number of threads, gives other last bits of every eigenvalue."""
    now = IMAGES + np.random.default_rng(1).normal(0, 0.1, IMAGES.shape)
    here, noise, own = verdict(IMAGES, now), np.random.default_rng(2), np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda a: own(a) * (1 + 4e-16 * noise.standard_normal(len(a))))
    before, after = (decode(encode(features, REFERENCE)) for features in (IMAGES, now))
    differences = {paired_difference(fid, before, after) for _ in range(2)}
    assert len(differences) == 2, "the planted bits do change the raw figures"
    stored = [row(encode(features, REFERENCE)) for features in (IMAGES, now)]
    assert here.baseline is not None
    assert by_bootstrap(FID, stored[0], stored[1], here.baseline, here.candidate) == here


def test_without_features_there_is_no_interval() -> None:
    assert by_bootstrap(FID, row(None), row(encode(IMAGES, REFERENCE)), 1.0, 1.0) is None


def test_features_beyond_half_precision_are_kept_all_the_same() -> None:
    large = IMAGES * 1e6
    assert decode(encode(large, REFERENCE)).features == pytest.approx(large)


def test_features_that_cannot_be_read_are_no_pass() -> None:
    good, bad = encode(IMAGES, REFERENCE), {**encode(IMAGES, REFERENCE), "root": "edited"}
    found = by_bootstrap(FID, row(good), row(bad), 1.0, 1.0)
    assert found is not None
    assert found.outcome == "not_comparable"


def test_sets_of_other_sizes_are_not_comparable() -> None:
    found = by_bootstrap(FID, row(encode(IMAGES[:100], REFERENCE)), row(encode(IMAGES, REFERENCE)), 1.0, 1.0)
    assert found is not None
    assert found.outcome == "not_comparable"


def test_what_is_stored_is_read_back_and_nothing_else() -> None:
    stored = encode(IMAGES, REFERENCE)
    assert decode(stored).features == pytest.approx(IMAGES, rel=1e-3, abs=1e-6)
    assert len(str(stored)) < 20 * IMAGES.size
    with pytest.raises(ValueError, match="the same extractor"):
        encode(IMAGES, REFERENCE[:, :5])
    with pytest.raises(ValueError, match="finite"):
        encode(np.full((20, 6), np.inf), REFERENCE)
    with pytest.raises((ValueError, KeyError)):
        decode({**stored, "cross": {"shape": [3], "base64": "AAAA"}})


def test_a_handful_of_pictures_has_no_interval() -> None:
    found = verdict(IMAGES[:4], IMAGES[4:8])
    assert (found.outcome, found.low, found.high) == ("inconclusive", None, None)
    assert str(found.reason) == "4 images are too few for an interval (at least 10 are needed)"


def test_the_interval_beside_the_ratio_is_of_95_percent_and_the_deciding_one_wider() -> None:
    found = paired_difference(fid, image_set(IMAGES, REFERENCE), image_set(IMAGES + 0.1, REFERENCE))
    assert found.deciding[0] < found.shown[0] < found.shift < found.shown[1] < found.deciding[1]
