"""Intervals by ranks of ordered resamples have the distribution of the two-level bootstrap that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness import stats

MANY = 4_000  # resamples: two distributions that lie 5 % apart somewhere are told apart
SAMPLES = np.random.default_rng(5).lognormal(sigma=0.3, size=2000)

ROWS = {
    "one sample a process": [[1.0], [2.0]],
    "one process, odd": [SAMPLES[:15]],
    "one process, even": [SAMPLES[:64]],
    "two processes, odd": [SAMPLES[:15], SAMPLES[20:35]],
    "two processes, even": [SAMPLES[:30], SAMPLES[40:90]],
    "unequal counts": [SAMPLES[:5], SAMPLES[10:130]],
    "ties": [np.round(SAMPLES[:24], 1), np.round(SAMPLES[30:51], 1)],
    "processes far apart": [SAMPLES[:40], 10 * SAMPLES[40:81]],
    "five processes": [factor * SAMPLES[20 * i : 20 * i + 12 + i] for i, factor in enumerate((1, 1.1, 0.9, 3, 1))],
}


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Resamples enough to compare distributions, given as they are instead of their bounds."""
    stats._resampling.cache_clear()
    monkeypatch.setattr(stats, "RESAMPLES", MANY)
    monkeypatch.setattr(stats, "_bounds", lambda found: found)
    yield
    stats._resampling.cache_clear()


def plain(groups: stats.Groups, estimate: stats.Estimator, across: stats.Estimator | None) -> np.ndarray:
    """MANY estimates of the two-level bootstrap as it is described, one resample after the other."""
    rng = np.random.default_rng(17)
    arrays = [np.asarray(g, dtype=float) for g in groups]
    draws = round(sum(map(len, arrays)) / len(arrays))
    found = []
    for _ in range(MANY):
        chosen = [arrays[i] for i in rng.integers(0, len(arrays), len(arrays))]
        drawn = np.array([rng.choice(samples, draws) for samples in chosen])
        found.append(float(estimate(drawn.ravel()) if across is None else across(estimate(drawn))))
    return np.array(found)


def median(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(values, axis=-1))


def mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean(values, axis=-1))


def percentile(value: float) -> stats.Estimator:
    return lambda values: stats.percentile_of(values, value)


ESTIMATES: dict[str, tuple[Callable[[stats.Groups], object], stats.Estimator, stats.Estimator | None]] = {
    "median": (stats.median_interval, median, median),
    "mean": (lambda groups: stats.interval(groups, mean, mean), mean, mean),
    "p90": (lambda groups: stats.percentile_interval(groups, 90), percentile(90), None),
    "p99": (lambda groups: stats.percentile_interval(groups, 99), percentile(99), None),
}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("row", ROWS)
def test_estimates_of_resamples_are_distributed_as_those_of_the_plain_bootstrap(row: str, name: str) -> None:
    fast, estimate, across = ESTIMATES[name]
    ours, theirs = np.asarray(fast(ROWS[row])), plain(ROWS[row], estimate, across)
    assert ours.shape == (MANY,)
    # Sums of the same values in another order differ in their last bits, which would tear ties apart.
    ours, theirs = (np.array([float(f"{v:.9g}") for v in found]) for found in (ours, theirs))
    assert scipy_stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize("row", ROWS)
def test_the_ranks_that_are_left_out_change_nothing(row: str) -> None:
    """The general path and the paths of few ranks read the same resamples."""
    groups = ROWS[row]
    assert stats.median_interval(groups) == stats.interval(groups, median, median)
    for value in (50, 75, 90, 95, 99):
        whole = stats.interval(groups, percentile(value))
        assert stats.percentile_interval(groups, value) == pytest.approx(whole, rel=1e-9)


def test_one_reading_of_the_highest_ranks_serves_all_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    values = stats.Processes._values

    def counting(self: stats.Processes, resamples: slice, ranks: slice) -> np.ndarray:
        found = values(self, resamples, ranks)
        drawn.append(found.size)
        return found

    monkeypatch.setattr(stats.Processes, "_values", counting)
    row = stats.Processes([SAMPLES[:1000], SAMPLES[1000:]])
    assert None not in [stats.percentile_interval(row, value) for value in (90, 95, 99)]
    assert stats.RESAMPLES * 100 < sum(drawn) < 0.4 * stats.RESAMPLES * 2000


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: fast(ROWS["unequal counts"]) for name, (fast, _, _) in ESTIMATES.items()}
    for block in (1, 7 * 62, 10**9):
        monkeypatch.setattr(stats, "CHUNK", block)
        assert {name: fast(ROWS["unequal counts"]) for name, (fast, _, _) in ESTIMATES.items()} == whole


def test_a_share_that_rounds_to_one_stays_in_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last exponential variate can be so small that the highest rank is at 1: its sample is the process's last."""
    groups = [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    chosen, sums = stats._resampling(2, 4)
    at_one = np.ones_like(sums)
    monkeypatch.setattr(stats, "_resampling", lambda *_: (chosen, at_one))
    highest = stats.Processes(groups).resampled(lambda values: values[..., -1])
    assert highest is not None
    assert set(np.unique(highest)) == {3.0, 30.0}


def test_the_median_is_that_of_numpy_to_the_last_bit() -> None:
    for count in (1, 2, 3, 10, 25, 1000):
        assert float(stats.median(SAMPLES[:count])) == float(np.median(SAMPLES[:count]))


def test_a_percentile_of_equal_samples_is_that_sample() -> None:
    assert stats.percentile_interval([[0.1] * 200] * 2, 95) == pytest.approx((0.1, 0.1), rel=1e-15)


def test_one_value_has_no_interval() -> None:
    for fast, _, _ in ESTIMATES.values():
        assert fast([]) is None
        assert fast([[1.0]]) is None
        assert fast([[1.0], []]) is None
        assert fast([[1.0, 1.0]]) == pytest.approx((1.0, 1.0))
