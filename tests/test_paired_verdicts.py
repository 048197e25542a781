"""What the paired rule says of each metric: the word for it, whether it gates, and that later pairs are heard."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paired_fixture import judged as judge_of
from paired_fixture import new_paired_run, rows

from baselines.paired.decider import PairedDecider
from baselines.paired.decision import PairedDecision
from baselines.paired.metrics import PAIRED_METRICS
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.verdicts import _outcome, comparison
from baselines.verdict import (
    CONTENDED,
    FINE,
    INCONCLUSIVE,
    NOT_COMPARABLE,
    NOTHING_MEASURED,
    Comparison,
    Verdict,
    exit_code,
)
from baselines.wording import ReasonKind, because
from harness.measuring.turns import Interleaving
from harness.reasons import stated
from reports import gate
from reports.formats import terminal

P95 = "latency_p95_s"
QUIET = (0.001, -0.001, 0.002, -0.002, 0.0, 0.001, -0.001, 0.0)


def outcome_of(question: Question) -> tuple[str, str]:
    """The outcome and its sentence, where the rule asked for no further pair."""
    outcome, reason = _outcome(question, because(ReasonKind.ENDED_DECIDED))
    return outcome, str(reason)


def asked(metric: str = P95) -> list[Question]:
    """The latency of one row, and a secondary metric."""
    known = {entry.metric.name: entry for entry in PAIRED_METRICS}
    return [
        Question(key=Key(row="row", metric=name), sensitivity=known[name].sensitivity, primary=known[name].primary)
        for name in ("latency_s", metric)
    ]


def measured(decision: PairedDecision, latency: float, other: float, metric: str = P95) -> None:
    decision.record("row", {"latency_s": latency, metric: other})
    decision.advance(0.0)


def test_a_tail_that_was_called_unchanged_is_taken_back_where_later_pairs_do_not_bear_it_out() -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=0.06 if value > 0 else -0.06, other=value)
    assert (latency.state, tail.state) == ("open", "unchanged")
    for value in (0.5, 0.6, -0.4, 0.3):
        measured(decision, latency=0.0, other=value)
    assert len(tail.screened) == 12
    assert (tail.state, outcome_of(tail)) == (
        "unchanged",
        ("inconclusive", "the first pairs were within ±10.0 %; all 12 pairs together do not exclude a larger change"),
    )


def test_pairs_after_an_unchanged_tail_never_make_it_a_suspect() -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for number, value in enumerate(QUIET * 8):
        measured(decision, latency=0.1 if number % 2 else -0.1, other=value if number < 8 else 0.5)
    assert tail.state == "unchanged"
    assert tail.confirmed == []
    assert outcome_of(tail)[0] == "inconclusive"


def test_an_unchanged_tail_hears_the_fresh_pairs_of_its_rows_latency_too() -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=0.05 + value, other=value)
    assert (decision.phase, latency.state, tail.state) == ("confirm", "suspect", "unchanged")
    measured(decision, latency=0.05, other=0.4)
    assert (len(latency.confirmed), len(tail.screened), tail.confirmed) == (1, 9, [])


@pytest.mark.parametrize(("latency", "wanted"), [(0.06, {"slow"}), (0.0, {"other"})])
def test_a_tail_that_only_leans_takes_no_time_from_a_suspected_latency(latency: float, wanted: set[str]) -> None:
    known = {entry.metric.name: entry for entry in PAIRED_METRICS}
    questions = [
        Question(key=Key(row=row, metric=name), sensitivity=known[name].sensitivity, primary=known[name].primary)
        for row in ("slow", "other")
        for name in ("latency_s", P95)
    ]
    decision = PairedDecision(questions)
    for value in QUIET:
        decision.record("slow", {"latency_s": latency + value, P95: latency + value})
        decision.record("other", {"latency_s": value, P95: 0.12 + 120 * value})
    decision.advance(0.9)
    assert decision.phase == "confirm"
    assert decision.wanted() == wanted


@pytest.mark.parametrize("fresh", [0.0, -0.3, 0.3])
def test_the_run_waits_for_a_tail_only_while_its_fresh_pairs_lean_to_its_side(fresh: float) -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=value, other=0.3 + value)
    assert (latency.state, tail.state) == ("unchanged", "suspect")
    count = 0
    while decision.wanted():
        measured(decision, latency=0.0, other=fresh + (0.5 if count % 2 else -0.5))
        count += 1
    assert decision.phase == "done"
    if fresh > 0:
        assert (tail.state, count > 16) == ("regressed", True)
    else:
        assert (tail.deferred, count) == (True, 16)
        told = "suspected after 8 pairs; 16 fresh pairs neither confirm nor exclude a change"
        assert outcome_of(tail) == ("inconclusive", told)


def test_a_tail_that_nobody_waits_for_is_still_heard_with_the_pairs_of_its_rows_latency() -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=0.05 + value, other=0.3 + value)
    for number in range(32):
        way = 1 if number % 2 else -1
        measured(decision, latency=0.2 * way, other=0.5 * way if number < 16 else 0.6)
        assert tail.deferred == (16 <= number + 1 < 32)
    assert len(tail.confirmed) == 32
    assert tail.p_value is not None
    assert tail.p_value < 1


def test_a_control_that_leant_and_leans_no_more_holds_up_nothing_and_can_still_alarm() -> None:
    latency, _ = asked()
    key = Key(row="A/A", metric="latency_s")
    control = Question(key=key, sensitivity=Sensitivity(), primary=False, control=True)
    decision = PairedDecision([latency, control])
    for value in QUIET:
        decision.record("A/A", {"latency_s": 0.05 + value})
        decision.record("row", {"latency_s": value})
        decision.advance(0.0)
    assert control.state == "suspect"
    while decision.wanted():
        number = len(control.confirmed)
        decision.record("A/A", {"latency_s": 0.1 if number % 2 else -0.1})
        decision.advance(0.0)
    assert (control.deferred, len(control.confirmed), decision.phase) == (True, 16, "done")
    control.confirmed += [0.05] * 48
    control.confirm()
    assert not control.deferred
    assert control.p_value is not None
    assert control.p_value < 0.01


def test_a_latency_that_does_not_lean_any_more_has_its_further_looks() -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=0.05 + value, other=value)
    for number in range(16):
        measured(decision, latency=0.2 if number % 2 else -0.2, other=0.0)
    assert (latency.state, decision.wanted()) == ("suspect", {"row"})


def test_the_latency_itself_gets_no_pair_after_it_was_decided() -> None:
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=value, other=0.2 + value)
    for _ in range(4):
        measured(decision, latency=0.5, other=0.2)
    assert (latency.state, latency.screened) == ("unchanged", list(QUIET))
    assert len(tail.confirmed) == 4


def test_pairs_are_counted_by_row_whatever_they_were_measured_for() -> None:
    """Five of 28 were dropped, all while a tail was confirmed: no more than if they had been dropped before."""
    latency, tail = asked()
    decision = PairedDecision([latency, tail])
    for value in QUIET:
        measured(decision, latency=value, other=0.2 + value)
    assert (latency.state, tail.state) == ("unchanged", "suspect")
    for number in range(20):
        decision.record("row", {P95: 0.04}, kept=number % 4 > 0)
    count = decision.count()
    assert (count.kept, count.dropped) == (23, 5)
    assert not count.contended
    assert (latency.dropped, tail.dropped) == (0, 5)


def shifted(values: tuple[float, ...], sensitivity: Sensitivity, shift: float) -> Question:
    question = Question(key=Key(row="row", metric=P95), sensitivity=sensitivity, primary=False)
    question.screened = [shift + value for value in values]
    question.screen()
    return question


def test_unchanged_means_the_same_for_every_metric() -> None:
    loose = Sensitivity(guarantee=0.10, floor=0.04)
    same, five = shifted(QUIET, loose, 0.0), shifted(QUIET, loose, 0.05)
    assert outcome_of(same) == ("unchanged", "within ±2.5 % at 99 % after 8 pairs")
    five.state = "unchanged"
    outcome, reason = outcome_of(five)
    assert outcome == "inconclusive"
    assert reason == "no change above 10 %; a smaller change cannot be excluded (after 8 pairs)"


def test_a_dropped_suspicion_is_unchanged_in_the_same_sense() -> None:
    question = shifted(QUIET, Sensitivity(guarantee=0.10, floor=0.04), 0.2)
    assert question.state == "suspect"
    question.state, question.confirmed = "dropped", [0.04 + value for value in QUIET * 2]
    outcome, reason = outcome_of(question)
    assert outcome == "inconclusive"
    assert reason.startswith("no change above 10 %")


def judge_with(state: str, values: tuple[float, ...]) -> PairedDecider:
    """A judge of one row whose latency is unchanged and whose p95 is in `state` with these screening pairs."""
    planned = tuple(
        replace(row, interleaving=Interleaving(warmups=1, turns=4, samples=6, discarded=0)) for row in rows(1)
    )
    judge = judge_of(planned, 12)
    tail = judge.decision.questions[Key(row=planned[0].id, metric=P95)]
    tail.state, tail.screened, tail.confirmed = state, list(values), []  # type: ignore[assignment]
    return judge


def verdict_of(found: Comparison, metric: str) -> Verdict:
    return next(v for v in found.verdicts if v.metric == metric)


def test_no_change_above_ten_percent_is_advisory_and_leaves_the_row_green() -> None:
    found = comparison(judge_with("unchanged", tuple(0.05 + v for v in QUIET)), [], "decided")
    told = verdict_of(found, P95)
    assert (told.outcome, told.gating) == ("inconclusive", False)
    assert exit_code(found, strict=True) == FINE
    assert gate.sentence(found).startswith("Green")


@pytest.mark.parametrize(("strict", "code"), [(False, FINE), (True, INCONCLUSIVE)])
def test_a_suspected_tail_that_the_budget_left_open_is_no_pass_of_strict(strict: bool, code: int) -> None:
    found = comparison(judge_with("suspect", tuple(0.2 + v for v in QUIET)), [], "budget")
    told = verdict_of(found, P95)
    assert (told.outcome, told.gating) == ("inconclusive", True)
    assert exit_code(found, strict=strict) == code


def test_a_tail_of_too_few_samples_says_so() -> None:
    found = comparison(judge_of(rows(1), 12), [], "decided")  # four samples a block
    told = verdict_of(found, P95)
    assert (told.outcome, told.gating, told.pairs) == ("inconclusive", False, 0)
    assert str(told.reason) == "too few samples in a process for a p95 (4 of 20)"
    assert str(verdict_of(found, "startup_s").reason) == "no process measured a start-up"


def test_values_of_the_preflight_alone_are_nothing_measured() -> None:
    told = Verdict(
        case_id="a", label="a", metric="params", kind="exact", unit="1", outcome="unchanged", reason=stated("equal"),
        baseline=1.0, candidate=1.0,
    )  # fmt: skip
    found = comparison(judge_of(rows(1), 0), [replace(told, case_id=rows(1)[0].id)], "budget")
    assert exit_code(found) == NOTHING_MEASURED
    assert gate.sentence(found) == "No answer: nothing was measured."
    assert exit_code(replace(found, rule="stored")) == FINE
    other = replace(told, metric="row", kind="health", outcome="not_comparable")
    assert exit_code(replace(found, verdicts=(other,))) == NOT_COMPARABLE


def test_memory_that_runs_out_in_company_is_nobodys_regression() -> None:
    judge = judge_of(rows(1), 0)
    together = stated("both arms of a pair are in memory at once")
    out_of_memory = because(ReasonKind.ROW_STATUS, status="oom", reason=together)
    judge.broken[rows(1)[0].id] = ("head", out_of_memory)
    told = verdict_of(comparison(judge, [], "decided"), "row")
    assert told.outcome == "not_comparable"
    assert "both arms of a pair are in memory at once" in str(told.reason)


def test_the_same_arm_twice_is_called_so_and_the_mean_shift_decides_nothing() -> None:
    judge = judge_of(rows(3), 12)
    found = comparison(judge, [], "decided")
    assert terminal.headline(found).startswith("head against base: ")
    same = replace(found, arms=("as things are", "as things are"))
    assert terminal.headline(same).startswith("A/A, both arms are the same: ")
    assert any(note.kind == ReasonKind.MEAN_SHIFT and "(advisory)" in str(note) for note in found.notes)


def test_a_busy_machine_stays_the_answer_where_no_pair_was_kept() -> None:
    found = comparison(judge_of(rows(2), 12, busy=True), [], "decided")
    assert exit_code(found) == CONTENDED


def test_a_run_without_rows_measured_nothing() -> None:
    assert exit_code(comparison(PairedDecider(new_paired_run()), [], "decided")) == NOTHING_MEASURED
