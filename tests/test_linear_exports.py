"""Tables and exports of a run cost the same for every row, however many rows the run has."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats as scipy_stats

import baselines.store
import harness.stats
import harness.types
from harness import frames
from harness.types import Run
from reports import benchmark_json

REFERENCE = baselines.store.DEFAULT_ROOT / "reference" / "digits.json"


@cache
def stored() -> Run:
    return baselines.store.load(REFERENCE).run


def with_rows(count: int) -> Run:
    """A run of `count` rows, each with the samples of the stored run's first row; nothing of it is computed yet."""
    run = stored()
    own = [m for m in run.measurements if m.case == run.cases[0]]
    cases = tuple(replace(run.cases[0], seed=seed) for seed in range(count))
    measurements = tuple(
        replace(m, case=replace(case), samples={k: v[:12] for k, v in m.samples.items()}) for case in cases for m in own
    )
    return replace(run, cases=cases, measurements=measurements)


def counted(monkeypatch: pytest.MonkeyPatch, work: Callable[[Run], object], rows: int) -> Counter[str]:
    """How often hashing, drawing and sorting are called while `work` has a run of so many rows."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            calls[name] += 1
            return function(*arguments, **options)

        return call

    run = with_rows(rows)
    with monkeypatch.context() as patched:
        patched.setattr(harness.types.hashlib, "sha256", counting("hash", hashlib.sha256))
        patched.setattr(harness.stats.np.random, "default_rng", counting("draw", np.random.default_rng))
        patched.setattr(harness.stats.np, "sort", counting("sort", np.sort))
        patched.setattr(frames, "metrics_of", counting("metrics", frames.metrics_of))
        work(run)
    return calls


def exported(run: Run) -> object:
    pytest.importorskip("pytest_benchmark")
    return benchmark_json.document(run)


@pytest.mark.parametrize("work", [frames.cases_frame, exported], ids=["table", "pytest-benchmark"])
def test_ten_times_the_rows_call_for_ten_times_the_work(
    work: Callable[[Run], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = counted(monkeypatch, work, 4), counted(monkeypatch, work, 40)
    assert {name: many[name] <= 10 * calls for name, calls in few.items()} == dict.fromkeys(few, True), (few, many)
    measured = len(with_rows(40).measurements)
    assert many["hash"] <= measured + 40, "a case's id is computed once"
    assert many["metrics"] <= 1 + 40, "the metrics of a run are asked for once, and once a benchmark"


def test_the_estimates_of_a_row_share_their_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, frames.cases_frame, 10)
    metrics = [name for name, values in with_rows(1).measurements[0].samples.items() if values]
    assert calls["draw"] <= 10 * len(metrics)
    assert calls["sort"] <= 10, "percentiles of one metric read the same sorted resamples"


def by_definition(
    groups: list[list[float]], estimate: Callable[[np.ndarray], np.ndarray], across: Callable | None
) -> tuple[float, float]:
    """The two-level bootstrap interval as it is described, drawn for one estimate alone."""
    arrays = [np.asarray(g) for g in groups]
    sizes = np.array([len(a) for a in arrays])
    padded = np.zeros((len(arrays), sizes.max()))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(arrays), (400, len(arrays), 1))
    within = (rng.random((400, len(arrays), round(float(sizes.mean())))) * sizes[chosen]).astype(int)
    drawn = padded[chosen, within]
    found = estimate(drawn.reshape(400, -1)) if across is None else across(estimate(drawn))
    low, high = np.quantile(found, [(1 - 0.95) / 2, 1 - (1 - 0.95) / 2])
    return float(low), float(high)


def test_intervals_of_a_stored_run_are_those_of_the_definition_to_the_last_bit() -> None:
    run = stored()
    frame = frames.cases_frame(run).set_index("case_id")
    pooled = harness.stats.between_processes(
        [[m.samples["latency_s"] for m in ms if m.status == "ok"] for ms in run.by_case.values()]
    )
    assert pooled is not None
    quantile = float(scipy_stats.t.ppf(1 - (1 - 0.95) / 2, pooled.degrees))
    checked = 0
    for case in run.cases:
        groups = [m.samples["latency_s"] for m in run.by_case.get(case.id, ()) if m.status == "ok"]
        if not groups:
            continue
        factor = math.exp(quantile * pooled.log_sd / math.sqrt(len(groups)))
        median, row = lambda a: np.median(a, axis=-1), frame.loc[case.id]
        low, high = by_definition(groups, median, median)
        value = float(np.median([np.median(g) for g in groups]))
        assert (row["latency_s_low"], row["latency_s_high"]) == (min(low, value / factor), max(high, value * factor))
        for percentile in (90, 95, 99):
            name = f"latency_p{percentile}_s"
            if math.isnan(row[name]):
                continue
            low, high = by_definition(groups, lambda a, p=percentile: harness.stats.percentile_of(a, p), None)
            low, high = min(low, row[name] / factor), max(high, row[name] * factor)
            assert (row[f"{name}_low"], row[f"{name}_high"]) == (low, high)
            checked += 1
    assert checked > 30


def test_a_missing_value_says_so_in_the_same_order_every_time() -> None:
    """The order of the reasons is that of the metrics, and not that of a set, which changes from process to process."""
    run = stored()
    order = list(frames.metrics_of(run))
    for missing in frames.cases_frame(run)["missing"]:
        added = [name for name, reason in missing.items() if reason.startswith("this row has no such metric")]
        assert added == sorted(added, key=order.index)
