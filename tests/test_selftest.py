"""The line of the selftest: what counts as an alarm, as caught, and as missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.verdict import Comparison, Verdict
from baselines.wording import ReasonKind, because
from benches.selftest import NOTHING, Conditions, append, details, line, stored, trials
from harness.reasons import Reason, stated
from harness.storage import UnreadableRun
from harness.types import Case

CASES = (Case(model="planted_ok"), Case(model="planted_ok", batch_size=2))


def verdict(case: Case, outcome: Any, metric: str = "latency_s") -> Verdict:
    return Verdict(
        case_id=case.id,
        label=case.label,
        metric=metric,
        kind="noisy",
        unit="s",
        outcome=outcome,
        reason=stated(""),
        pairs=24,
    )


def comparison(*verdicts: Verdict, contended: tuple[Reason, ...] = ()) -> Comparison:
    return Comparison(
        run_id="r", suite="s", baseline="b", scope="all", rule="paired", verdicts=verdicts, contended=contended
    )


HERE = Conditions(
    created="2026-01-02T03:04:05+00:00",
    cpu="a CPU",
    cores=2,
    threads=1,
    suite="s",
    commit="c0ffee",
    budget_s=600.0,
    elapsed_s=360.0,
    apart=False,
    isa="AVX2",
)


def test_the_planted_row_changes_and_the_arms_say_where() -> None:
    asked: list[str] = []

    def measure(arm: str) -> tuple[Comparison, Conditions]:
        asked.append(arm)
        return comparison(verdict(CASES[0], "unchanged")), HERE

    found = list(trials((NOTHING, "busy=0.05"), 2, CASES, measure))
    assert asked == ["", f"inject:busy=0.05@{CASES[0].id}", "", f"inject:busy=0.05@{CASES[1].id}"]
    assert [t.missed for t in found] == [(), (CASES[0].id,), (), ()]


def test_several_rows_can_be_slow_at_once() -> None:
    asked: list[str] = []

    def measure(arm: str) -> tuple[Comparison, Conditions]:
        asked.append(arm)
        return comparison(verdict(CASES[0], "regressed"), verdict(CASES[1], "unchanged")), HERE

    found = list(trials(("busy=0.05",), 1, CASES, measure, rows=2))
    assert asked == [f"inject:busy=0.05@{CASES[0].id},inject:busy=0.05@{CASES[1].id}"]
    assert (found[0].caught, found[0].missed) == ((CASES[0].id,), (CASES[1].id,))
    assert line(found).startswith("+5 % 50 % [9 %, 91 %]; ")
    assert details(found) == [
        "+5 %: 1 of 2 rows caught, 1 called unchanged, 0 of 1 runs with an alarm elsewhere, "
        "0 of 1 runs with a fork server for each arm"
    ]


def test_the_line_counts_alarms_catches_misses_and_disarmed_runs() -> None:
    answers = iter(
        [
            comparison(verdict(CASES[0], "improved")),  # A/A: an alarm, in the other direction
            comparison(verdict(CASES[0], "regressed"), verdict(CASES[1], "regressed")),  # caught, and one elsewhere
            comparison(verdict(CASES[0], "unchanged")),
            comparison(verdict(CASES[1], "inconclusive"), contended=(stated("busy"),)),
        ]
    )
    found = list(trials((NOTHING, "busy=0.05"), 2, CASES, lambda _arm: (next(answers), HERE)))
    assert line(found) == "A/A 1/2 [9 %, 91 %]; +5 % 100 % [21 %, 100 %]; 2 cores of a CPU (AVX2); 0.4 h"
    assert details(found) == [
        "A/A: 2 runs, 1 with an alarm, 1 of 2 rows called unchanged, 0 of 2 runs with a fork server for each arm",
        "+5 %: 1 of 1 rows caught, 0 called unchanged, 1 of 1 runs with an alarm elsewhere, 1 disarmed, "
        "0 of 1 runs with a fork server for each arm",
    ]


def test_trials_of_several_evenings_add_up(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trials.jsonl"
    assert stored(path) == []
    for outcome in ("unchanged", "regressed"):
        for one in trials(("busy=0.05",), 1, CASES, lambda _arm, o=outcome: (comparison(verdict(CASES[0], o)), HERE)):
            append(path, one)
    (later,) = trials(("busy=0.05",), 1, CASES, lambda _arm: (comparison(), HERE), stored(path)[:1])
    assert later.planted == (CASES[1].id,)
    found = stored(path)
    assert [(t.caught, t.missed) for t in found] == [((), (CASES[0].id,)), ((CASES[0].id,), ())]
    assert found[1].conditions == HERE
    assert line(found).startswith("+5 % 50 % [9 %, 91 %]; ")
    assert details(found)[0].startswith("+5 %: 1 of 2 rows caught, 1 called unchanged, 0 of 2 runs with an alarm")
    path.write_text(path.read_text() + '{"plan": "A/A"}\n')
    with pytest.raises(UnreadableRun, match="line 3"):
        stored(path)


def test_a_slow_start_counts_where_the_start_is_measured() -> None:
    both = comparison(verdict(CASES[0], "unchanged"), verdict(CASES[0], "regressed", "startup_s"))
    (found,) = trials(("startup=0.3",), 1, CASES, lambda _arm: (both, HERE))
    assert found.caught
    assert not found.missed


def test_a_tail_called_unchanged_under_a_busy_wait_is_a_miss_too() -> None:
    both = comparison(verdict(CASES[0], "regressed"), verdict(CASES[0], "unchanged", "latency_p95_s"))
    (found,) = trials(("busy=0.05",), 1, CASES, lambda _arm: (both, HERE))
    assert (found.caught, found.missed) == ((CASES[0].id,), (CASES[0].id,))


def test_plans_stand_in_the_line_by_their_size_under_their_published_names() -> None:
    plans = ("startup=0.3", "busy=0.10", "tail=0.5", "copy=1", "busy=0.03", NOTHING)
    found = list(trials(plans, 1, CASES, lambda _arm: (comparison(verdict(CASES[0], "unchanged")), HERE)))
    names = [entry.partition(":")[0] for entry in details(found)]
    assert names == ["A/A", "+3 %", "+10 %", "1 extra copy of the weights", "every tenth call +50 %", "start-up +30 %"]


def test_a_large_slow_start_is_missed_where_none_so_large_is_said_to_be_there() -> None:
    said = replace(
        verdict(CASES[0], "inconclusive", "startup_s"), reason=because(ReasonKind.NO_LARGER, guarantee=0.1, pairs=8)
    )
    for plan, missed in (("startup=0.3", True), ("startup=0.05", False)):
        (found,) = trials((plan,), 1, CASES, lambda _arm: (comparison(said), HERE))
        assert bool(found.missed) is missed
