"""A decided paired run as a Comparison: a verdict for each row and metric, the controls, and the contention."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from baselines.paired.decider import PairedDecider
from baselines.paired.metrics import PAIRED_METRICS, PairedMetric
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.robust import hodges_lehmann
from baselines.stored.health import row_verdict
from baselines.stored.measured import most_frequent
from baselines.stored.rows import Row
from baselines.verdict import Comparison, Outcome, Verdict
from baselines.wording import ReasonKind, because
from harness.paired.control_row import COPY
from harness.paired.paired_run import PairedRow
from harness.reasons import Reason, stated

AS_THINGS_ARE: Final = "as things are"  # an arm without options
CHANGED: Final = frozenset({"regressed", "improved"})
FEWEST: Final = 4  # pairs that an estimate needs
UNCHANGED: Final = Sensitivity().guarantee  # the guarantee of "unchanged" for every metric
# Why the measurement ended, as the header of a paired run stores it.
ENDED: Final = {
    "budget": ReasonKind.ENDED_BUDGET,
    "decided": ReasonKind.ENDED_DECIDED,
    "interrupted": ReasonKind.ENDED_INTERRUPTED,
    "nothing could be timed": ReasonKind.ENDED_NOTHING_TIMED,
}


def comparison(decider: PairedDecider, preflight: Sequence[Verdict], ended: str) -> Comparison:
    """The comparison: verdicts of the preflight (outputs, memory, counts, health), then of the pairs. `ended` is why
    the measurement ended: a key of ENDED, or another text."""
    run = decider.run
    why = _ended(decider, ended)
    contended = tuple(contentions(decider))
    settled = {v.case_id for v in preflight if v.metric == "row"}
    verdicts = []
    for row in run.rows:
        verdicts += [v for v in preflight if v.case_id == row.id]
        if row.id in settled:
            continue
        broken = decider.broken.get(row.id)
        if broken is not None:
            verdicts.append(_broken(row, *broken))
        for paired in PAIRED_METRICS:
            question = decider.decision.questions.get(Key(row=row.id, metric=paired.metric.name))
            if question is not None and (broken is None or question.state in CHANGED):  # a confirmed change remains
                verdicts.append(_verdict(decider, row, paired, question, why, contended=bool(contended)))
    return Comparison(
        run_id=run.id,
        suite=run.suite,
        baseline=f"base ({run.arms[0]['text'] or AS_THINGS_ARE})",
        scope="all",
        verdicts=tuple(verdicts),
        rule="paired",
        arms=(run.arms[0]["text"] or AS_THINGS_ARE, run.arms[1]["text"] or AS_THINGS_ARE),
        contended=contended,
        notes=(*map(stated, run.proof), *notes(decider, why)),
    )


def _ended(decider: PairedDecider, ended: str) -> Reason:
    if decider.decision.gave_up:
        return because(ReasonKind.ENDED_GAVE_UP)
    return because(ENDED[ended]) if ended in ENDED else stated(ended)


def contentions(decider: PairedDecider) -> list[Reason]:
    """Why nothing is decided about speed: too many pairs were contended, or a control moved."""
    found = []
    count = decider.decision.count()
    if count.contended:
        reasons = [reason for row in decider.contentions.values() for reason in row]
        found.append(
            because(
                ReasonKind.CONTENDED_PAIRS,
                dropped=count.dropped,
                pairs=count.kept + count.dropped,
                example=most_frequent(reasons) if reasons else None,
            )
        )
    for question in decider.decision.questions.values():
        if question.control and question.state in CHANGED:
            found.append(
                because(
                    ReasonKind.PAIRED_CONTROL_MOVED,
                    row=question.key.row,
                    metric=question.key.metric,
                    **_estimated(question.estimate()),
                    same_code=question.key.row == COPY,
                )
            )
    return found


def notes(decider: PairedDecider, ended: Reason) -> list[Reason]:
    """The notes on the run as a whole."""
    count = decider.decision.count()
    found = [because(ReasonKind.PAIR_COUNTS, kept=count.kept, dropped=count.dropped, ended=ended)]
    if len(decider.slots) >= FEWEST:
        found.append(because(ReasonKind.SLOT_EFFECT, **_estimated(hodges_lehmann(decider.slots[:500]))))
    if (mean := decider.mean_shift()) is not None:
        found.append(because(ReasonKind.MEAN_SHIFT, **_estimated(mean)))
    for question in decider.decision.questions.values():
        if question.control and (question.key.row != COPY or question.key.metric == "latency_s"):
            found.append(_control(question))
    return found


def _control(question: Question) -> Reason:
    row, pairs = question.key.row, len(question.best())
    if pairs < FEWEST:
        return because(ReasonKind.CONTROL_PAIRS_TOO_FEW, row=row, pairs=pairs)
    moved = question.state in CHANGED
    return because(ReasonKind.CONTROL_PAIRS, row=row, moved=moved, **_estimated(question.estimate()), pairs=pairs)


def _estimated(estimate: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("shift", "low", "high"), estimate, strict=True))


def _verdict(
    decider: PairedDecider, row: PairedRow, paired: PairedMetric, question: Question, ended: Reason, *, contended: bool
) -> Verdict:
    outcome, reason = _outcome(question, ended)
    if not paired.primary and not question.screened:
        reason = _no_value(decider, row, paired) or reason
    gating = paired.primary or outcome != "inconclusive" or _suspected(question)
    if contended:
        would_read = because(ReasonKind.WOULD_READ, outcome=outcome, reason=reason)
        outcome, reason = "inconclusive", because(ReasonKind.CONTENDED_RUN, would_read=would_read)
    estimate = question.estimate() if len(question.best()) >= FEWEST else None
    figures = decider.figures.get(question.key, [])
    detectable = question.detectable()
    return Verdict(
        case_id=row.id,
        label=row.label,
        metric=paired.metric.name,
        kind=paired.metric.kind,
        unit=paired.metric.unit,
        outcome=outcome,
        reason=reason,
        baseline=statistics.median(base for base, _ in figures) if figures else None,
        candidate=statistics.median(head for _, head in figures) if figures else None,
        ratio=math.exp(estimate[0]) if estimate else None,
        low=math.exp(estimate[1]) if estimate else None,
        high=math.exp(estimate[2]) if estimate else None,
        minimum_detectable=math.expm1(detectable) if detectable is not None else None,
        gating=gating,
        pairs=len(question.screened) + len(question.confirmed),
        dropped=question.dropped,
        p_value=question.deciding_p_value,
    )


def _outcome(question: Question, ended: Reason) -> tuple[Outcome, Reason]:
    guarantee, floor = question.sensitivity.guarantee, question.sensitivity.floor
    pairs, fresh = len(question.screened), len(question.confirmed)
    if question.state in CHANGED:
        kind = ReasonKind.CONFIRMED_BY_ALL_PAIRS if question.by_all_pairs else ReasonKind.CONFIRMED
        reason = because(kind, pairs=pairs, fresh=fresh, floor=floor, p_value=question.deciding_p_value)
        return "regressed" if question.state == "regressed" else "improved", reason
    if question.state == "unchanged" and not question.still_unchanged():
        return "inconclusive", because(ReasonKind.LATER_PAIRS_WIDER, guarantee=guarantee, pairs=pairs)
    if question.state == "unchanged":
        if question.lies_within(UNCHANGED):
            return "unchanged", because(ReasonKind.WITHIN_GUARANTEE, guarantee=UNCHANGED, pairs=pairs)
        return "inconclusive", because(ReasonKind.NO_LARGER, guarantee=guarantee, pairs=pairs)
    if question.withdrawn:
        if not question.within_guarantee():
            return "inconclusive", because(ReasonKind.SUSPICION_OPEN, pairs=pairs, fresh=fresh)
        if question.lies_within(UNCHANGED):
            return "unchanged", because(ReasonKind.SUSPICION_WITHDRAWN, pairs=pairs, fresh=fresh, guarantee=UNCHANGED)
        return "inconclusive", because(ReasonKind.NO_LARGER, guarantee=guarantee, pairs=pairs, fresh=fresh)
    if question.state == "suspect":
        return "inconclusive", because(ReasonKind.SUSPICION_UNSETTLED, ended=ended, pairs=pairs, fresh=fresh)
    if pairs == 0:
        return "inconclusive", because(ReasonKind.NO_PAIR, ended=ended)
    return "inconclusive", because(ReasonKind.PAIRS_UNDECIDED, ended=ended, pairs=pairs)


def _suspected(question: Question) -> bool:
    """Whether there is a suspicion that the fresh pairs neither confirmed nor excluded."""
    if question.withdrawn:
        return not question.within_guarantee()
    return question.state == "suspect"


def _no_value(decider: PairedDecider, row: PairedRow, paired: PairedMetric) -> Reason | None:
    """Why no pair of a row has a value of a metric; None if no pair was measured."""
    samples = row.interleaving.turns * row.interleaving.samples if row.interleaving else 0
    if samples < paired.samples:
        return because(ReasonKind.FEW_SAMPLES_IN_PROCESS, figure=paired.short, samples=samples, needed=paired.samples)
    measured = any(key.row == row.id for key in decider.figures)
    return because(ReasonKind.NO_FIGURE, figure=paired.short) if measured else None


def _broken(row: PairedRow, arm: str, status: Reason) -> Verdict:
    """The verdict on a row that failed while its pairs were measured. A failure of the head is a regression.

    If the memory ran out, the row is not comparable: each arm had enough memory alone, and when both are in memory,
    either of them may fail.
    """
    where = Row(case=row.base, status="failed", reason=None)
    regressed = arm == "head" and status.data["status"] != "oom"
    reason = because(ReasonKind.BROKEN_IN_PAIR, arm=arm, status=status)
    verdict = row_verdict(where, "regressed" if regressed else "not_comparable", reason)
    return replace(verdict, case_id=row.id, label=row.label)
