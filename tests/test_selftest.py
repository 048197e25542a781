"""The line of the selftest: what counts as an alarm, as caught, and as missed."""

from __future__ import annotations

from typing import Any

from baselines.verdict import Comparison, Verdict
from benches.selftest import NOTHING, line, trials
from harness.types import Case

CASES = (Case(model="planted_ok"), Case(model="planted_ok", batch_size=2))


def verdict(case: Case, outcome: Any, metric: str = "latency_s") -> Verdict:
    return Verdict(
        case_id=case.id, label=case.label, metric=metric, kind="noisy", unit="s", outcome=outcome, reason="", pairs=24
    )


def comparison(*verdicts: Verdict, contaminated: tuple[str, ...] = ()) -> Comparison:
    return Comparison(
        run_id="r", suite="s", baseline="b", scope="all", rule="paired", verdicts=verdicts, contaminated=contaminated
    )


def test_the_planted_row_changes_and_the_arms_say_where() -> None:
    asked: list[str] = []

    def measure(arm: str) -> Comparison:
        asked.append(arm)
        return comparison(verdict(CASES[0], "unchanged"))

    found = trials((NOTHING, "busy=0.05"), 2, CASES, measure)
    assert asked == ["", f"inject:busy=0.05@{CASES[0].id}", "", f"inject:busy=0.05@{CASES[1].id}"]
    assert [t.missed for t in found] == [False, True, False, False]


def test_the_line_counts_alarms_catches_misses_and_disarmed_runs() -> None:
    answers = iter(
        [
            comparison(verdict(CASES[0], "improved")),  # A/A: an alarm, in the other direction
            comparison(verdict(CASES[0], "regressed"), verdict(CASES[1], "regressed")),  # caught, and one elsewhere
            comparison(verdict(CASES[0], "unchanged")),
            comparison(verdict(CASES[1], "inconclusive"), contaminated=("busy",)),
        ]
    )
    found = trials((NOTHING, "busy=0.05"), 2, CASES, lambda _arm: next(answers))
    assert line(found) == (
        "A/A 1/2 runs [9%, 91%]; busy=0.05 1/1 caught [21%, 100%], 0 called unchanged, 1 with an alarm elsewhere, "
        "1 disarmed"
    )


def test_a_slow_start_counts_where_the_start_is_measured() -> None:
    found = trials(
        ("startup=0.3",),
        1,
        CASES,
        lambda _arm: comparison(verdict(CASES[0], "unchanged"), verdict(CASES[0], "regressed", "startup_s")),
    )
    assert found[0].caught
    assert not found[0].missed
