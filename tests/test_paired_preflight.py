"""What the preflight says of rows that one arm lacks, and of figures that it has too few of to decide."""

from __future__ import annotations

from typing import Any

import pytest
from paired_fixture import new_paired_run

from baselines.paired.decider import PairedDecider
from baselines.paired.preflight import PROCESSES, undecided_memory, usable, verdicts
from baselines.paired.verdicts import comparison
from baselines.verdict import NOT_COMPARABLE, NOTHING_MEASURED, Verdict, exit_code
from baselines.wording import ReasonKind
from harness.paired.paired_run import PairedRun, row_of
from harness.reasons import Reason
from harness.types import Case, Measurement, Metric

CASE = Case(model="m")
MEMORY = Metric(
    name="peak_host_bytes", unit="B", label="", better="lower", kind="near_exact", description="", summary="max"
)
ENERGY = Metric(
    name="energy_per_image_j", unit="J", label="", better="lower", kind="energy", description="", summary="mean"
)
TOP1 = Metric(name="top1", unit="share", label="", better="higher", kind="quality_item", description="", summary="mean")
OK: dict[str, Any] = {"status": "ok", "facts": {"work_hash": "same", "output_hash": "a"}}
FAILED: dict[str, Any] = {"status": "failed", "reason": "ValueError: it broke"}
SKIPPED: dict[str, Any] = {"status": "skipped", "reason": "openvino is not installed"}
UNKNOWN: dict[str, Any] = {
    "status": "failed",
    "reason": Reason("unknown_name", {"error": "UnknownName: unknown model 'm'"}),
}

Found = list[tuple[str, str, Measurement]]


def preflight(base: dict[str, Any] | None, head: dict[str, Any] | None) -> tuple[PairedRun, Found]:
    """A run of one row, and what its preflight stored; None where that arm was not reached."""
    row = row_of(CASE, CASE)
    sides = {"base": base, "head": head}
    run = new_paired_run(rows=(row,), metrics={MEMORY.name: MEMORY, ENERGY.name: ENERGY})
    return run, [
        (row.id, side, Measurement(case=CASE, replicate=0, **given))
        for side, given in sides.items()
        if given is not None
    ]


def only(base: dict[str, Any] | None, head: dict[str, Any] | None) -> Verdict:
    """The one verdict on the row, which is then not timed."""
    run, found = preflight(base, head)
    assert usable(run, found) == set()
    (told,) = verdicts(run, found)
    assert told.metric == "row"
    return told


@pytest.mark.parametrize(("base", "head"), [(None, None), (OK, None), (None, OK), (FAILED, None)])
def test_a_row_that_was_not_reached_in_both_arms_is_undecided_and_gates(
    base: dict[str, Any] | None, head: dict[str, Any] | None
) -> None:
    told = only(base, head)
    assert (told.outcome, told.gating) == ("inconclusive", True)
    assert told.reason.kind == ReasonKind.PREFLIGHT_CUT_OFF


@pytest.mark.parametrize(("base", "head"), [(FAILED, FAILED), (FAILED, SKIPPED)])
def test_a_row_that_is_broken_in_both_arms_is_no_pass(base: dict[str, Any], head: dict[str, Any]) -> None:
    told = only(base, head)
    assert (told.outcome, told.gating) == ("not_comparable", True)
    assert str(base["reason"]) in str(told.reason)
    assert str(head["reason"]) in str(told.reason)
    run, found = preflight(base, head)
    assert exit_code(comparison(PairedDecider(run), verdicts(run, found), "decided")) == NOT_COMPARABLE


def test_a_row_that_is_skipped_in_both_arms_is_no_finding_and_no_measurement() -> None:
    told = only(SKIPPED, SKIPPED)
    assert (told.outcome, told.gating) == ("unchanged", False)
    run, found = preflight(SKIPPED, SKIPPED)
    assert exit_code(comparison(PairedDecider(run), verdicts(run, found), "decided")) == NOTHING_MEASURED


@pytest.mark.parametrize(("base", "outcome"), [(FAILED, "improved"), (UNKNOWN, "new"), (SKIPPED, "new")])
def test_what_only_the_head_can_do_is_no_alarm(base: dict[str, Any], outcome: str) -> None:
    told = only(base, OK)
    assert (told.outcome, told.gating) == (outcome, False)
    assert str(base["reason"]) in str(told.reason)


@pytest.mark.parametrize(("base", "head", "outcome"), [(OK, FAILED, "regressed"), (OK, SKIPPED, "missing")])
def test_what_only_the_base_could_do_is(base: dict[str, Any], head: dict[str, Any], outcome: str) -> None:
    told = only(base, head)
    assert (told.outcome, told.gating) == (outcome, True)


def test_a_base_that_breaks_in_one_of_its_processes_is_not_improved_upon() -> None:
    run, found = preflight(OK, OK)
    found.append((run.rows[0].id, "base", Measurement(case=CASE, replicate=1, status="failed", reason="it broke")))
    (told,) = verdicts(run, found)
    assert (told.outcome, told.gating) == ("not_comparable", True)


def with_values(metric: str, there: float, here: float) -> tuple[PairedRun, Found]:
    base, head = ({**OK, "samples": {metric: [value]}} for value in (there, here))
    return preflight(base, head)


@pytest.mark.parametrize(("here", "outcome"), [(1.0, "unchanged"), (2.0, "regressed"), (0.5, "improved")])
def test_energy_of_one_window_an_arm_is_advisory(here: float, outcome: str) -> None:
    (told,) = verdicts(*with_values(ENERGY.name, 1.0, here))
    assert (told.outcome, told.gating) == (outcome, False)
    assert str(told.reason).endswith("advisory: each arm has one measurement window")


def test_memory_that_moved_is_not_decided_by_fewer_processes_than_the_rule_takes() -> None:
    run, found = with_values(MEMORY.name, 1e9, 2e9)
    (told,) = verdicts(run, found)
    assert (told.outcome, told.gating) == ("inconclusive", True)
    assert str(told.reason).startswith(
        "the budget allowed 1 of 3 processes per arm; the provisional outcome is regressed: "
    )
    assert undecided_memory(run, found) == {run.rows[0].id}
    again = [(row, side, m) for row, side, m in found for _ in range(PROCESSES)]
    assert [v.outcome for v in verdicts(run, again)] == ["regressed"]
    run, found = with_values(MEMORY.name, 1e9, 1e9)
    assert [v.outcome for v in verdicts(run, found)] == ["unchanged"]


def test_items_that_flip_in_one_of_many_rows_are_held_against_all_of_them() -> None:
    """Eight flips in one row of thirty are what chance does; in one row alone they are an alarm."""
    items = {"status": "ok", "facts": {"work_hash": "same", "output_hash": "a", "quality_conditions": {"items": 400}}}
    right, flipped = [1.0] * 399 + [0.0], [0.0] * 8 + [1.0] * 391 + [0.0]
    other = [0.0] + [1.0] * 399  # one lost, one won
    for count, outcome in ((1, "regressed"), (30, "inconclusive")):
        rows = tuple(row_of(case := Case(model=f"m{i}"), case) for i in range(count))
        run = new_paired_run(rows=rows, metrics={TOP1.name: TOP1})
        found = [
            (row.id, side, Measurement(case=row.base, replicate=0, samples={"top1": values}, **items))
            for number, row in enumerate(rows)
            for side, values in (("base", right), ("head", other if number else flipped))
        ]
        told = verdicts(run, found)
        assert [v.case_id for v in told] == [row.id for row in rows]
        assert (told[0].outcome, {v.outcome for v in told[1:]} <= {"unchanged"}) == (outcome, True)
