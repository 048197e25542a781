"""What cannot be compared is never a pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from baseline_fixture import (
    METRICS,
    A,
    B,
    broken,
    latency,
    measured,
    only,
    run_of,
    sessions_of,
    stored,
    texts,
)

from baselines.stored.compare import compare
from baselines.stored.health import work_difference
from baselines.stored.rows import Row, rows_of
from baselines.verdict import exit_code
from baselines.wording import STATUSES
from harness.types import Case, Measurement


def test_bit_identical_ends_the_matter() -> None:
    same = {**latency(1, 3, 9), "top1": [1.0, 0.0], "fid": [3.0], "parameters": [5.0]}
    comparison = compare(run_of(measured(same)), stored(run_of(measured(same))))
    assert {v.outcome for v in comparison.verdicts} == {"unchanged"}
    assert exit_code(comparison, strict=True) == 0


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("side", ["then", "now"])
def test_zero_and_non_finite_are_never_a_pass(value: float, side: str) -> None:
    good, bad = latency(1, 1, 1), latency(1, value, 1)
    then, now = (bad, good) if side == "then" else (good, bad)
    comparison = compare(run_of(measured(now)), stored(run_of(measured(then))))
    assert only(comparison).outcome == "not_comparable"
    assert f"latency_s has the invalid value {value:g}" in str(only(comparison).reason)
    assert exit_code(comparison) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "ms"}, "unit is ms here and s in the baseline"),
        ({"better": "higher"}, "better is higher here and lower in the baseline"),
        ({"kind": "advisory"}, "kind is advisory here and noisy in the baseline"),
    ],
)
def test_another_meaning_of_a_metric(change: dict[str, Any], words: str) -> None:
    metrics = {**METRICS, "latency_s": replace(METRICS["latency_s"], **change)}
    comparison = compare(run_of(measured(latency(1, 1, 1)), metrics=metrics), sessions_of(1.0))
    assert (only(comparison).outcome, str(only(comparison).reason), only(comparison).gating) == (
        "not_comparable",
        words,
        True,
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"work_hash": "w2", "identity": {"steps": 10}}, "the work differs: steps is 10 here and 20 in the baseline"),
        ({"work_hash": "w2"}, "the work differs: work identity is w2 here and w1 in the baseline"),
        ({"work_hash": None}, "no hash of the work is recorded here"),
    ],
)
def test_other_work(facts: dict[str, Any], words: str) -> None:
    comparison = compare(run_of(measured(latency(1, 1, 1), **facts)), sessions_of(1.0))
    assert (only(comparison).metric, only(comparison).outcome) == ("row", "not_comparable")
    assert str(only(comparison).reason) == words
    assert exit_code(comparison) == 12


def test_a_network_in_another_precision_is_other_work_where_the_rows_ask_for_the_same() -> None:
    """SDXL in fp16, whose VAE overflows there: stored before with the VAE in fp16, it has the same work_hash."""
    fp16, vae = Case(model="a", precision="fp16"), {"component_precisions": {"vae": "fp32"}}
    before, now = measured(latency(1, 1, 1), fp16), measured(latency(2, 2, 2), fp16, **vae)
    comparison = compare(run_of(now), stored(run_of(before)))
    assert (only(comparison).metric, only(comparison).outcome) == ("row", "not_comparable")
    assert str(only(comparison).reason) == "the work differs: vae is fp32 here and fp16 in the baseline"
    back = compare(run_of(before), stored(run_of(now)))
    assert str(only(back).reason) == "the work differs: vae is fp16 here and fp32 in the baseline"
    assert only(compare(run_of(now), stored(run_of(now)))).outcome == "unchanged"
    both = stored(run_of(before), run_of(now))
    assert only(compare(run_of(now), both)).baseline == 2.0, "the session of other work gives no time"
    rows = [Row(case=case, status="ok", reason=None, processes=tuple(ms)) for case, ms in ((A, before), (fp16, now))]
    assert work_difference(*rows) is None, "rows of two precisions, as in ab, are compared"
    split = replace(now[0], facts={**now[0].facts, "component_precisions": {"vae": "fp16"}})
    assert "component_precisions differs" in str(work_difference(replace(rows[1], processes=(now[0], split)), rows[1]))


def test_sessions_that_name_their_weights_by_file_are_compared_by_that_name() -> None:
    """They were stored before weights were hashed by their values."""
    before = {"work_hash": "w1", "identity": {"steps": 20, "weights_hash": "folder-1"}}
    now = {"work_hash": "w2", "identity": {"steps": 20, "weights_hash": "values-1"}, "weights_source": "folder-1"}
    same = compare(run_of(measured(latency(1, 1, 1), **now)), stored(run_of(measured(latency(1, 1, 1), **before))))
    assert only(same).outcome == "unchanged"
    back = compare(run_of(measured(latency(1, 1, 1), **before)), stored(run_of(measured(latency(1, 1, 1), **now))))
    assert only(back).outcome == "unchanged"
    for other in ({"weights_source": "folder-2"}, {"identity": {"steps": 10, "weights_hash": "values-1"}}):
        run = run_of(measured(latency(1, 1, 1), **{**now, **other}))
        assert only(compare(run, stored(run_of(measured(latency(1, 1, 1), **before))))).outcome == "not_comparable"
    values = {**now, "work_hash": "w3", "identity": {"steps": 20, "weights_hash": "values-2"}}
    both_new = compare(run_of(measured(latency(1, 1, 1), **values)), stored(run_of(measured(latency(1, 1, 1), **now))))
    assert only(both_new).outcome == "not_comparable", "where both have values, the values decide"


def test_a_metric_that_is_gone_is_missing_with_its_reason() -> None:
    then = run_of(measured({**latency(1, 1, 1), "energy_per_image_j": [1.0]}))
    now = run_of(measured(latency(1, 1, 1), missing={"energy_per_image_j": "no RAPL"}))
    gone = compare(now, stored(then)).verdicts[1]
    assert (gone.metric, gone.outcome, str(gone.reason), gone.gating) == (
        "energy_per_image_j",
        "missing",
        "no RAPL",
        True,
    )
    back = compare(then, stored(now)).verdicts[1]
    assert (back.outcome, str(back.reason), back.gating) == (
        "new",
        "the baseline has no value of this metric (no RAPL)",
        False,
    )


def test_a_removed_row_is_missing_unless_it_was_not_asked_for() -> None:
    both = run_of([*measured(latency(1, 1, 1)), *measured(latency(1, 1, 1), case=B)])
    now = run_of(measured(latency(1, 1, 1)))
    comparison = compare(now, stored(both))
    assert [(v.metric, v.outcome) for v in comparison.verdicts] == [("latency_s", "unchanged"), ("row", "missing")]
    assert exit_code(comparison) == 12
    filtered = compare(now, stored(both), planned=[A.id])
    assert exit_code(filtered) == 0
    assert texts(filtered.notes) == ["rows of the baseline that were not requested in this run: 1"]


def test_a_renamed_row_is_missing_and_new() -> None:
    comparison = compare(run_of(measured(latency(1, 1, 1), case=B)), sessions_of(1.0))
    assert [(v.case_id, v.outcome) for v in comparison.verdicts] == [(A.id, "missing"), (B.id, "new")]
    assert exit_code(comparison) == 12


def test_a_new_row_is_no_pass_until_it_is_accepted_or_allowed() -> None:
    now = run_of([*measured(latency(1, 1, 1)), *measured(latency(1, 1, 1), case=B)])
    comparison = compare(now, sessions_of(1.0))
    (new,) = [v for v in comparison.verdicts if v.outcome == "new"]
    assert "imgbench baseline save" in str(new.reason)
    assert (exit_code(comparison), exit_code(comparison, strict=True)) == (12, 12)
    allowed = replace(comparison, allow_new=True)
    assert (exit_code(allowed), exit_code(allowed, strict=True)) == (0, 0)
    assert exit_code(compare(now, [*sessions_of(1.0), *stored(now, now)][-1:])) == 0


def test_the_reference_of_another_machine_is_no_list_of_the_rows_that_may_be() -> None:
    same = {"parameters": [1.0]}
    now = run_of([*measured(same), *measured(same, case=B)])
    comparison = compare(now, stored(run_of(measured(same))), scope="machine-independent")
    assert [(v.outcome, v.gating) for v in comparison.verdicts] == [("unchanged", True), ("new", False)]
    assert exit_code(comparison) == 0


def test_a_new_metric_of_a_known_row_counts_only_when_strict() -> None:
    both = {**latency(1, 1, 1), "weights_bytes": [5.0]}
    comparison = compare(run_of(measured(both)), sessions_of(1.0))
    assert [(v.outcome, v.gating) for v in comparison.verdicts][1] == ("new", False)
    assert (exit_code(comparison), exit_code(comparison, strict=True)) == (0, 12)


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "invalid"])
def test_a_new_failure_is_a_regression(status: str) -> None:
    comparison = compare(run_of(broken(status)), sessions_of(1.0))
    verdict = only(comparison)
    assert (verdict.outcome, verdict.gating) == ("regressed", True)
    assert str(verdict.reason) == f"in this run the row {STATUSES[status]}: boom; in the baseline it is ok"
    assert exit_code(comparison) == 10


def test_one_failed_process_breaks_its_row() -> None:
    two = measured(latency(1, 1, 1))[:2]
    failed = Measurement(case=A, replicate=2, status="failed", reason="boom")
    run = run_of([*two, failed])
    assert rows_of(run)[A.id].status == "failed"
    assert only(compare(run, sessions_of(1.0))).outcome == "regressed"


@pytest.mark.parametrize(
    ("then", "now", "outcome", "gating"),
    [
        (measured(latency(1, 1, 1)), broken("skipped", "gone"), "missing", True),
        (broken("skipped", "x"), broken("skipped", "x"), "unchanged", False),
        (broken("skipped", "x"), broken("skipped", "y"), "missing", False),
        (broken("skipped", "x"), broken("failed"), "regressed", True),
        (broken("oom"), broken("failed"), "unchanged", False),
        (broken("failed"), measured(latency(1, 1, 1)), "improved", False),
    ],
)
def test_health(then: list[Measurement], now: list[Measurement], outcome: str, gating: bool) -> None:
    verdict = only(compare(run_of(now), stored(run_of(then))))
    assert (verdict.metric, verdict.outcome, verdict.gating) == ("row", outcome, gating)


def test_nothing_measured() -> None:
    comparison = compare(run_of([], cases=(A,)), sessions_of(1.0))
    assert only(comparison).outcome == "missing"
    assert exit_code(comparison) == 13
