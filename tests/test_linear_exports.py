"""Tables and exports of a run cost the same for every row, however many rows the run has."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table
from scipy import stats as scipy_stats

import baselines.stored.store
import harness.stats
import harness.types
from baselines.stored.location import SHIPPED
from harness import frames
from harness.types import Run
from reports.formats import benchmark_json, terminal

REFERENCE = SHIPPED / "digits.json"


@cache
def stored() -> Run:
    return baselines.stored.store.load(REFERENCE).run


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
    """How often hashing, drawing and resampling are called while `work` has a run of so many rows."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            calls[name] += 1
            return function(*arguments, **options)

        return call

    run = with_rows(rows)
    harness.stats._resampling.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(harness.types.hashlib, "sha256", counting("hash", hashlib.sha256))
        patched.setattr(harness.stats.np.random, "default_rng", counting("draw", np.random.default_rng))
        patched.setattr(harness.stats.Processes, "_values", counting("resample", harness.stats.Processes._values))
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


def test_all_rows_share_one_drawing_of_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = counted(monkeypatch, frames.cases_frame, 4), counted(monkeypatch, frames.cases_frame, 40)
    assert 0 < many["draw"] == few["draw"]


def test_a_row_is_resampled_once_an_estimate_and_once_for_all_its_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = [name for name, values in with_rows(1).measurements[0].samples.items() if values]
    calls = counted(monkeypatch, frames.cases_frame, 10)
    assert 0 < calls["resample"] <= 10 * (len(metrics) + 2), "throughput and the percentiles come on top"


def test_values_of_a_stored_run_are_those_of_the_definition_to_the_last_bit() -> None:
    """Values of the table as numpy and scipy give them, one row and one estimate at a time."""
    run = stored()
    frame = frames.cases_frame(run).set_index("case_id")
    checked = 0
    for case in run.cases:
        groups = [m.samples["latency_s"] for m in run.by_case.get(case.id, ()) if m.status == "ok"]
        if not groups:
            continue
        row = frame.loc[case.id]
        assert row["latency_s"] == np.median([np.median(g) for g in groups])
        assert row["throughput"] == case.batch_size / np.mean([np.mean(g) for g in groups])
        for percentile in (90, 95, 99):
            if not math.isnan(row[f"latency_p{percentile}_s"]):
                assert row[f"latency_p{percentile}_s"] == harrell_davis(groups, percentile / 100)
                checked += 1
    assert checked > 30


def harrell_davis(groups: list[list[float]], quantile: float) -> float:
    """The pooled percentile as `stats.pooled_percentile` describes it."""
    weights = np.concatenate([np.full(len(g), 1 / (len(groups) * len(g))) for g in groups])
    values, worth = np.concatenate(groups), 1 / float((weights**2).sum())
    order = np.argsort(values, kind="stable")
    edges = np.minimum([0.0, *np.cumsum(weights[order])], 1.0)
    cumulative = scipy_stats.beta.cdf(edges, (worth + 1) * quantile, (worth + 1) * (1 - quantile))
    return float(values[order] @ np.diff(cumulative))


def test_intervals_of_a_stored_run_hold_the_spread_between_its_processes() -> None:
    run = stored()
    pooled = harness.stats.between_processes(
        [[m.samples["latency_s"] for m in ms if m.status == "ok"] for ms in run.by_case.values()]
    )
    assert pooled is not None
    quantile = float(scipy_stats.t.ppf(1 - (1 - 0.95) / 2, pooled.degrees))
    ok = frames.cases_frame(run).query("status == 'ok'")
    assert len(ok) > 10
    for row in ok.to_dict(orient="records"):
        factor = math.exp(quantile * pooled.log_sd / math.sqrt(row["replicates"]))
        for name in ("latency_s", "latency_p90_s", "latency_p95_s", "latency_p99_s"):
            if not math.isnan(row[name]):
                assert row[f"{name}_low"] <= row[name] / factor
                assert row[f"{name}_high"] >= row[name] * factor


def test_a_table_for_a_terminal_estimates_what_it_shows_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    run = stored()
    whole, shown = frames.cases_frame(run), frames.cases_frame(run, terminal.SHOWN)
    assert {c for c in shown if c in frames.metrics_of(run)} == {*terminal.SHOWN} & {*frames.metrics_of(run)}
    missing = ["missing", "missing_kinds"]
    pd.testing.assert_frame_equal(shown.drop(columns=missing), whole[[c for c in shown if c not in missing]])
    for width in (90, 200):
        assert printed(terminal.table(shown, width), width) == printed(terminal.table(whole, width), width)
    less = counted(monkeypatch, lambda run: frames.cases_frame(run, terminal.SHOWN), 10)
    assert less["resample"] == 10 * 2, "one p50 and one throughput a row"


def printed(table: Table, width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_missing_value_says_so_in_the_same_order_every_time() -> None:
    """The order of the reasons is that of the metrics, and not that of a set, which changes from process to process."""
    run = stored()
    order = list(frames.metrics_of(run))
    longest = 0
    for missing in frames.cases_frame(run)["missing"]:
        added = [name for name, reason in missing.items() if reason.startswith("the metric does not apply to this row")]
        assert added == sorted(added, key=order.index)
        longest = max(longest, len(added))
    assert longest > 1, "then no row shows an order"
