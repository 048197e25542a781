"""The paired rule: its statistics, its decision on synthetic noise, and the verdicts that come of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from paired_fixture import new_paired_run
from scipy import stats

from baselines.paired import verdicts
from baselines.paired.decision import PairedDecision
from baselines.paired.preflight import other_outputs, usable
from baselines.paired.preflight import outputs as outputs_note
from baselines.paired.preflight import verdicts as preflight_verdicts
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.robust import hodges_lehmann, signed_rank_p, trimmed
from harness.paired.paired_run import PairedRun, row_of
from harness.types import Case, Measurement, Metric


@pytest.mark.parametrize("count", [8, 16, 64, 120])
def test_signed_rank_is_scipys_exact_test(count: int) -> None:
    values = np.random.default_rng(count).normal(0.2, 1, count).tolist()
    expected = stats.wilcoxon(values, alternative="greater", method="exact").pvalue
    assert signed_rank_p(values) == pytest.approx(expected, rel=1e-9)


def test_signed_rank_counts_ties_and_leaves_out_zeros() -> None:
    assert signed_rank_p([0.05] * 16) == 2**-16
    assert signed_rank_p([0.0, 0.0]) == 1.0
    assert signed_rank_p([1.0, -1.0]) == 0.75  # rank sums 0, 1.5, 1.5, 3: three of four reach 1.5


def test_trimmed_mean_leaves_a_fifth_out_on_each_side() -> None:
    found = trimmed([1.0, 2.0, 3.0, 4.0, 100.0])
    assert found.mean == 3.0
    assert found.degrees == 2
    assert trimmed([0.1] * 8).error == pytest.approx(0.0, abs=1e-15)
    with pytest.raises(ValueError, match="at least 4"):
        trimmed([1.0, 2.0, 3.0])


def test_the_interval_of_the_shift_covers_it() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        _, low, high = hodges_lehmann((0.3 + rng.standard_t(3, 20)).tolist())
        covered += low <= 0.3 <= high
    assert 930 <= covered <= 975  # 95 % and three standard errors


def question(row: str, **changes: object) -> Question:
    return Question(key=Key(row=row, metric="latency_s"), sensitivity=Sensitivity(), **changes)  # type: ignore[arg-type]


def run(rng: np.random.Generator, *, shift: float, sd: float, rows: int = 12, pairs: int = 100) -> list[str]:
    """States of all rows after a run in which the first row shifts; 5 % of the pairs are disturbed by 5 to 60 %."""
    decision = PairedDecision([question(str(i)) for i in range(rows)])
    spent = 0
    while (wanted := decision.wanted()) and spent < pairs * rows:
        for row in sorted(wanted):
            disturbed = rng.choice([-1, 1]) * rng.uniform(0.05, 0.6) if rng.random() < 0.05 else 0.0
            decision.record(row, {"latency_s": rng.normal(shift if row == "0" else 0.0, sd) + disturbed})
        spent += len(wanted)
        decision.advance(min(1.0, spent / (pairs * rows)))
    decision.close()
    return [q.state for q in decision.questions.values()]


@pytest.mark.parametrize("sd", [0.013, 0.022, 0.04])
def test_equal_arms_raise_no_alarm(sd: float) -> None:
    rng = np.random.default_rng(1)
    alarms = sum(bool({"regressed", "improved"} & set(run(rng, shift=0.0, sd=sd))) for _ in range(300))
    assert alarms == 0


@pytest.mark.parametrize(("sd", "least"), [(0.013, 100), (0.022, 99)])
def test_five_percent_is_caught_and_never_called_unchanged(sd: float, least: int) -> None:
    rng = np.random.default_rng(2)
    found = [run(rng, shift=np.log(1.05), sd=sd)[0] for _ in range(100)]
    assert found.count("regressed") >= least
    assert "unchanged" not in found


def test_three_percent_is_rarely_called_unchanged() -> None:
    rng = np.random.default_rng(3)
    found = [run(rng, shift=np.log(1.03), sd=0.022, rows=4)[0] for _ in range(300)]
    assert found.count("unchanged") <= 3
    assert found.count("regressed") >= 250
    assert "improved" not in found


def test_an_improvement_is_told_from_a_regression() -> None:
    rng = np.random.default_rng(4)
    assert {run(rng, shift=-0.05, sd=0.013)[0] for _ in range(10)} == {"improved"}


def test_equal_constants_are_judged_and_not_skipped() -> None:
    decision = PairedDecision([question("same"), question("slower")])
    while decision.wanted():
        for row in decision.wanted():
            decision.record(row, {"latency_s": 0.05 if row == "slower" else 0.0})
        decision.advance(0.0)
    assert [q.state for q in decision.questions.values()] == ["unchanged", "regressed"]


def test_screening_pairs_alone_raise_no_alarm() -> None:
    """However slow they look: quiet fresh pairs drop the suspicion."""
    decision = PairedDecision([question("row")])
    rng = np.random.default_rng(5)
    while decision.phase == "screen":
        decision.record("row", {"latency_s": float(rng.normal(0.05, 0.005))})
        decision.advance(0.0)
    assert decision.phase == "confirm"
    while decision.wanted():
        decision.record("row", {"latency_s": float(rng.normal(0.0, 0.005))})
        decision.advance(0.0)
    found = next(iter(decision.questions.values()))
    assert found.state == "dropped"
    assert len(found.screened) == 8
    assert len(found.confirmed) == 16
    assert found.within_guarantee()


def test_all_pairs_together_confirm_after_eight_fresh_ones() -> None:
    decision = PairedDecision([question(str(i)) for i in range(12)])
    rng = np.random.default_rng(5)
    while wanted := decision.wanted():
        for row in wanted:
            decision.record(row, {"latency_s": float(rng.normal(0.05 if row == "3" else 0.0, 0.005))})
        decision.advance(0.0)
    found = decision.questions[Key(row="3", metric="latency_s")]
    assert (found.state, len(found.screened), len(found.confirmed)) == ("regressed", 8, 8)
    assert found.by_all_pairs
    assert found.deciding_p_value == pytest.approx(2**-16 * 2 * 6 * 12)  # both sides, six looks, twelve rows


def suspect(screened: list[float], fresh: list[float], **changes: object) -> Question:
    found = question("row", state="suspect", screened=screened, confirmed=fresh, **changes)
    found.pool(rows=1)
    return found


def test_all_pairs_count_only_where_the_fresh_ones_bear_it_out() -> None:
    slow, equal = [0.05, 0.06, 0.04, 0.07] * 5, [0.001, -0.001, 0.002, -0.002]
    assert suspect(slow, slow[:4]).pooled_p_value is None  # four fresh ones are too few
    assert suspect(slow[:18], slow[:6]).pooled_p_value is None  # and six, though 1/64 would bear it out
    assert suspect(slow[:16], slow[:8]).pooled_p_value == pytest.approx(2**-24 * 12)
    assert suspect(slow[:16], equal * 4).pooled_p_value is None


def test_a_metric_that_rides_along_is_confirmed_by_fresh_pairs_alone() -> None:
    tail = Question(key=Key(row="row", metric="latency_p95_s"), sensitivity=Sensitivity(), primary=False)
    decision = PairedDecision([question("row"), tail])
    rng = np.random.default_rng(5)
    while decision.wanted():
        slow = rng.normal(0.05, 0.005, 2)
        decision.record("row", {"latency_s": float(slow[0]), "latency_p95_s": float(slow[1])})
        decision.advance(0.0)
    assert decision.questions[Key(row="row", metric="latency_s")].by_all_pairs
    assert not tail.by_all_pairs
    assert tail.pooled_p_value is None


def test_a_suspected_tail_does_not_hold_up_the_latencies() -> None:
    """A tail that is noisy enough to stay suspected for long: of a row that is slower, and of one that is not."""
    names = ("slower", "equal", "noisy")
    tails = [Question(key=Key(row=n, metric="latency_p95_s"), sensitivity=Sensitivity(), primary=False) for n in names]
    decision = PairedDecision([*(question(n) for n in names), *tails])
    rng = np.random.default_rng(3)
    rounds = 0
    while (wanted := decision.wanted()) and rounds < 60:
        for row in sorted(wanted):
            latency = rng.normal(0.05 if row == "slower" else 0.0, 0.03 if row == "noisy" else 0.005)
            decision.record(row, {"latency_s": float(latency), "latency_p95_s": float(rng.normal(0.03, 0.03))})
        rounds += 1
        decision.advance(rounds / 60)
    states = {q.key.row: q.state for q in decision.questions.values() if q.primary}
    assert states["slower"] == "regressed"
    assert (states["equal"], states["noisy"]) == ("unchanged", "unchanged")
    slower = decision.questions[Key(row="slower", metric="latency_p95_s")]
    assert len(slower.confirmed) <= 16


@pytest.mark.parametrize("after", [4, 9])
def test_a_row_that_fails_does_not_hold_up_the_others(after: int) -> None:
    """Where its fourth pair fails the others are screened on; where it is a suspect already, they are confirmed."""
    decision = PairedDecision([question("fails"), question("slower"), question("equal")])
    rng = np.random.default_rng(5)
    for pair in range(200):
        if pair == after:
            decision.abandon("fails")
        for row in decision.wanted():
            decision.record(row, {"latency_s": float(rng.normal(0.0 if row == "equal" else 0.05, 0.005))})
        decision.advance(pair / 200)
    assert [q.state for q in decision.questions.values()] == ["undecided", "regressed", "unchanged"]


def test_dropped_pairs_are_counted_and_say_nothing() -> None:
    decision = PairedDecision([question("row")])
    for _ in range(20):
        decision.record("row", {"latency_s": 0.5}, kept=False)
        decision.advance(0.0)
    for _ in range(8):
        decision.record("row", {"latency_s": 0.0})
        decision.advance(0.0)
    found = next(iter(decision.questions.values()))
    assert (found.state, found.dropped, len(found.screened)) == ("unchanged", 20, 8)
    assert decision.count().contended


def test_a_run_without_time_is_open_and_says_what_it_could_see() -> None:
    decision = PairedDecision([question("row")])
    rng = np.random.default_rng(6)
    for _ in range(7):
        decision.record("row", {"latency_s": float(rng.normal(0, 0.02))})
        decision.advance(1.0)
    decision.close()
    found = next(iter(decision.questions.values()))
    assert found.state == "open"
    assert found.detectable() is not None
    assert found.detectable() > 0.02


def test_a_question_is_asked_once() -> None:
    with pytest.raises(ValueError, match="same key"):
        PairedDecision([question("row"), question("row")])


CALLS = Metric(name="model_calls", unit="1", label="Calls", better=None, kind="exact", description="", summary="last")


def preflight(head_calls: float) -> tuple[PairedRun, list[tuple[str, str, Measurement]]]:
    """A run of one row whose head has another backend than its base, and the preflight of both."""
    base, head = Case(model="m"), Case(model="m", backend="torch_compile")
    row = row_of(base, head)
    run = new_paired_run(metrics={CALLS.name: CALLS}, rows=(row,))
    facts = {"work_hash": "same", "output_hash": "a"}
    measured = [("base", base, 3.0), ("head", head, head_calls)]
    return run, [
        (row.id, arm, Measurement(case=case, replicate=0, status="ok", samples={CALLS.name: [calls]}, facts=facts))
        for arm, case, calls in measured
    ]


@pytest.mark.parametrize(("head_calls", "outcome"), [(3.0, "unchanged"), (4.0, "not_comparable")])
def test_arms_of_two_cases_are_compared_with_each_other(head_calls: float, outcome: str) -> None:
    run, found = preflight(head_calls)
    verdicts = preflight_verdicts(run, found)
    assert [(v.metric, v.outcome) for v in verdicts] == [("model_calls", outcome)]
    assert verdicts[0].case_id == run.rows[0].id
    assert (verdicts[0].baseline, verdicts[0].candidate) == (3.0, head_calls)
    assert usable(run, found) == {run.rows[0].id}


TOP1 = Metric(name="top1", unit="share", label="", better="higher", kind="quality_item", description="", summary="mean")


def outputs(head_hash: str, *judged_as: list[float]) -> tuple[PairedRun, list[tuple[str, str, Measurement]]]:
    """The preflight of one row whose head's output hash is `head_hash`; with the judge's answers of base and head."""
    run, found = preflight(3.0)
    hashes = {"base": "a", "head": head_hash}
    found = [(row, arm, replace(m, facts={**m.facts, "output_hash": hashes[arm]})) for row, arm, m in found]
    for (row, arm, m), answers in zip(found[:2], judged_as, strict=False):
        facts = {"work_hash": "same", "quality_conditions": {"items": len(answers)}}
        found.append((row, arm, replace(m, samples={"top1": answers}, facts=facts)))
    return replace(run, metrics={**run.metrics, "top1": TOP1}), found


def test_equal_outputs_need_no_judge() -> None:
    run, found = outputs("a")
    assert other_outputs(run, found) == set()
    assert str(outputs_note(run, found)) == (
        "the outputs of the timed batch are bit-identical in both arms in 1 of 1 rows; the quality was measured "
        "in both arms in 0 rows"
    )
    assert [v.metric for v in preflight_verdicts(run, found)] == ["model_calls"]


def test_other_outputs_that_nobody_judged_are_no_pass_of_quality() -> None:
    run, found = outputs("b")
    assert other_outputs(run, found) == {run.rows[0].id}
    told = {v.metric: v for v in preflight_verdicts(run, found)}
    assert told["quality"].outcome == "inconclusive"
    assert "was not measured within its share of the budget" in str(told["quality"].reason)


@pytest.mark.parametrize(("wrong", "outcome"), [(0, "unchanged"), (20, "regressed")])
def test_other_outputs_are_judged_by_the_items(wrong: int, outcome: str) -> None:
    run, found = outputs("b", [1.0] * 40, [0.0] * wrong + [1.0] * (40 - wrong))
    told = {v.metric: v.outcome for v in preflight_verdicts(run, found)}
    assert told == {"model_calls": "unchanged", "top1": outcome}
    assert usable(run, found) == {run.rows[0].id}


def test_a_row_that_breaks_in_the_head_is_not_timed() -> None:
    run, found = preflight(3.0)
    broken = Measurement(case=run.rows[0].head, replicate=0, status="failed", reason="it broke")
    found = [found[0], (run.rows[0].id, "head", broken)]
    assert [(v.metric, v.outcome) for v in preflight_verdicts(run, found)] == [("row", "regressed")]
    assert usable(run, found) == set()


def test_what_is_shown_is_what_decided() -> None:
    """One wild pair of eight widens a rank interval beyond the guarantee; the trimmed mean decided, and is shown."""
    asked = Question(key=Key(row="r", metric="latency_p95_s"), sensitivity=Sensitivity(guarantee=0.10, floor=0.04))
    asked.screened = [0.005, -0.005, 0.01, -0.01, 0.002, -0.002, 0.0, -0.45]
    asked.screen()
    assert asked.state == "unchanged"
    shift, low, high = asked.estimate()
    assert -0.10 < low < shift < high < 0.10
    assert hodges_lehmann(asked.screened)[1] < -0.2
    assert verdicts._outcome(asked, "decided")[0] == "unchanged"
