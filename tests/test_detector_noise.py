"""Models of noise have the moments that they state."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from baselines.detector.drawn import LATENCY
from baselines.detector.noise import MODELS


def test_shared_noise_has_its_stated_moments() -> None:
    model = replace(MODELS["shared"], contended=0.0, drift=0.0, rows=4)
    seconds = np.log(model.seconds(np.random.default_rng(1), 3000))
    assert (seconds - seconds.mean(axis=-1, keepdims=True)).std(ddof=1) == pytest.approx(0.03, rel=0.03)
    means = seconds.mean(axis=-1)
    assert means.std(axis=(1, 2)) == pytest.approx(math.hypot(0.025, 0.03 / 5), rel=0.04)
    own = means - means.mean(axis=(1, 2), keepdims=True)
    assert np.corrcoef(own[0].ravel(), own[1].ravel())[0, 1] == pytest.approx(0.5, abs=0.06)


def test_contended_processes_are_as_many_and_as_slow_as_stated() -> None:
    model = replace(MODELS["shared"], process=0.0, drift=0.0, iteration=0.0, rows=1)
    slowdown = model.seconds(np.random.default_rng(2), 4000)[0, :, :, 0] / model.latency_s()[0] - 1
    assert (slowdown > 1e-9).mean() == pytest.approx(0.05, abs=0.008)
    assert 0.05 <= slowdown[slowdown > 1e-9].min() < 0.07
    assert 0.57 < slowdown.max() <= 0.60


def test_a_layout_is_drawn_by_each_process() -> None:
    model = replace(MODELS["layout"], process=0.0, iteration=0.0, rows=2)
    offsets = np.log(model.seconds(np.random.default_rng(3), 400)[..., 0] / model.latency_s()[:, None, None])
    values, counts = np.unique(offsets.round(6), return_counts=True)
    assert values.tolist() == [0.0, 0.015, 0.03, 0.06]
    assert counts / offsets.size == pytest.approx(0.25, abs=0.05)


def test_a_server_offset_lasts_as_long_as_the_server() -> None:
    model = replace(MODELS["server"], process=0.0, iteration=0.0, rows=2, lifetime=8)
    shifts = model.draw(np.random.default_rng(4), 800).shifts[("row 00", LATENCY)].reshape(100, 8)
    assert np.ptp(shifts, axis=1).max() < 1e-12
    assert shifts[:, 0].std() == pytest.approx(0.005 * math.sqrt(2), rel=0.2)


def test_drift_moves_both_arms_of_a_pair_alike() -> None:
    model = replace(MODELS["drift"], process=0.0, iteration=0.0, rows=1)
    log = np.log(model.seconds(np.random.default_rng(5), 20_000)[0, :, :, 0])
    assert log.std() == pytest.approx(0.05, rel=0.05)
    assert np.corrcoef(log[:, 0], log[:, 1])[0, 1] == pytest.approx(0.95, abs=0.01)
    assert (log[:, 1] - log[:, 0]).mean() == pytest.approx(0.0, abs=0.0005)


def test_heavy_tails_are_those_of_t_with_two_degrees() -> None:
    model = replace(MODELS["heavy tails"], iteration=0.0, rows=1)
    log = np.log(model.seconds(np.random.default_rng(6), 20_000)[0, :, :, 0] / model.latency_s()[0]).ravel()
    assert np.median(np.abs(log)) < 0.011
    assert np.abs(log).max() > 0.3
    assert scipy_stats.kurtosis(log) > 50


def test_a_coarse_clock_gives_equal_samples() -> None:
    run = MODELS["quantised"].draw(np.random.default_rng(7), 16)
    assert run.shifts
    assert all(np.ptp(values) == 0 for values in run.shifts.values())
    assert all(np.ptp(process) == 0 for process in run.base["row 03"])


def test_a_seed_gives_the_same_noise() -> None:
    first, second = (MODELS["very noisy"].draw(np.random.default_rng(8), 10) for _ in range(2))
    assert first.shifts.keys() == second.shifts.keys() != set()
    assert all(np.array_equal(first.shifts[key], second.shifts[key]) for key in first.shifts)
