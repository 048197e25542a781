"""A decided paired run as a Comparison: a verdict for each row and metric, the controls, and what disarms the gate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from baselines.paired.decider import SENTINEL, PairedJudge
from baselines.paired.metrics import PAIRED_METRICS, PairedMetric
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.robust import hodges_lehmann
from baselines.stored.health import row_verdict
from baselines.stored.rows import Row
from baselines.verdict import Comparison, Outcome, Verdict
from harness.paired.paired_run import COPY, PairedRow
from harness.reasons import stated

AS_THINGS_ARE = "as things are"  # an arm of which nothing was asked
CHANGED = frozenset({"regressed", "improved"})
FEWEST = 4  # pairs that an estimate needs
UNCHANGED = Sensitivity().guarantee  # what "unchanged" means, whichever metric says it
GAVE_UP = "stopped early, since most pairs met a busy machine"
# Why a question is open still, by what ended the measuring.
OPEN = {"budget": "budget spent", "decided": "too noisy for the pairs that the rest needed"}
NO_LARGER = "no change above"  # begins the reason of what is neither called unchanged nor left open


def comparison(judge: PairedJudge, preflight: Sequence[Verdict], ended: str) -> Comparison:
    """The whole: verdicts of the preflight (outputs, memory, counts, health), then of the pairs. `ended` says why the
    measuring ended, by the keys of OPEN or in its own words."""
    run = judge.run
    ended = GAVE_UP if judge.decision.gave_up else ended
    contaminated = tuple(contamination(judge))
    settled = {v.case_id for v in preflight if v.metric == "row"}
    verdicts = []
    for row in run.rows:
        verdicts += [v for v in preflight if v.case_id == row.id]
        if row.id in settled:
            continue
        broken = judge.broken.get(row.id)
        if broken is not None:
            verdicts.append(_broken(row, *broken))
        for asked in PAIRED_METRICS:
            question = judge.decision.questions.get(Key(row=row.id, metric=asked.metric.name))
            if question is not None and (broken is None or question.state in CHANGED):  # what was confirmed stays so
                verdicts.append(_verdict(judge, row, asked, question, ended, contaminated))
    return Comparison(
        run_id=run.id,
        suite=run.suite,
        baseline=f"base ({run.arms[0]['text'] or AS_THINGS_ARE})",
        scope="all",
        verdicts=tuple(verdicts),
        rule="paired",
        arms=(run.arms[0]["text"] or AS_THINGS_ARE, run.arms[1]["text"] or AS_THINGS_ARE),
        contaminated=contaminated,
        notes=(*run.proof, *notes(judge, ended)),
    )


def contamination(judge: PairedJudge) -> list[str]:
    """Why speed may not be judged: too many pairs on a busy machine, or a control that moved."""
    found = []
    count = judge.decision.count()
    if count.contaminated:
        reasons = [reason for row in judge.drops.values() for reason in row]
        usual = statistics.mode(r.split(":", 1)[-1].strip() for r in reasons) if reasons else ""
        all_pairs = count.kept + count.dropped
        found.append(
            f"contended: {count.dropped} of {all_pairs} pairs ({count.dropped / all_pairs:.0%}) met a busy machine"
            f"{f' (such as: {usual})' if usual else ''}"
        )
    for question in judge.decision.questions.values():
        if question.control and question.state in CHANGED:
            shift, low, high = question.estimate()
            what = "the same code against itself" if question.key.row == COPY else "work that no arm can change"
            found.append(
                f"control {question.key.row} ({question.key.metric}) moved by {shift:+.1%} [{low:+.1%}, {high:+.1%}]: "
                f"{what} differs between the arms"
            )
    return found


def notes(judge: PairedJudge, ended: str) -> list[str]:
    """What a reader must know of the run as a whole."""
    count = judge.decision.count()
    found = [
        f"{count.kept} pairs of fresh processes over all rows, {count.dropped} dropped (busy machine); ended: {ended}"
    ]
    if len(judge.slots) >= 4:
        centre, low, high = hodges_lehmann(judge.slots[:500])
        found.append(
            f"slot effect: the second of a pair is {centre:+.2%} [{low:+.2%}, {high:+.2%}] slower than the first"
        )
    if (mean := judge.mean_shift()) is not None:
        found.append(
            f"mean shift of latency over all rows: {mean[0]:+.2%} [{mean[1]:+.2%}, {mean[2]:+.2%}] "
            "(advisory: it decides nothing)"
        )
    for question in judge.decision.questions.values():
        if question.control and (question.key.row.startswith(SENTINEL) or question.key.metric == "latency_s"):
            found.append(f"control {question.key.row}: {_state_words(question)}")
    return found


def _state_words(question: Question) -> str:
    values = question.best()
    if len(values) < FEWEST:
        return f"{len(values)} pairs, too few to tell"
    shift, low, high = question.estimate()
    word = "moved" if question.state in CHANGED else "did not move"
    return f"{word}: {shift:+.2%} [{low:+.2%}, {high:+.2%}] over {len(values)} pairs"


def _verdict(
    judge: PairedJudge,
    row: PairedRow,
    asked: PairedMetric,
    question: Question,
    ended: str,
    contaminated: tuple[str, ...],
) -> Verdict:
    outcome, reason = _outcome(question, ended)
    if not asked.leads and not question.screened:
        reason = _no_value(judge, row, asked) or reason
    gating = asked.leads or outcome != "inconclusive" or _suspected(question)
    if contaminated:
        outcome, reason = "inconclusive", f"contaminated run, not judged; it would read: {outcome}, {reason}"
    estimate = question.estimate() if len(question.best()) >= FEWEST else None
    figures = judge.figures.get(question.key, [])
    detectable = question.detectable()
    return Verdict(
        case_id=row.id,
        label=row.label,
        metric=asked.metric.name,
        kind=asked.metric.kind,
        unit=asked.metric.unit,
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


def _outcome(question: Question, ended: str) -> tuple[Outcome, str]:
    sensitivity, count = question.sensitivity, len(question.screened)
    fresh = len(question.confirmed)
    if question.state in CHANGED:
        beyond = f"beyond {sensitivity.floor:.0%} (p = {question.deciding_p_value:.1g})"
        told = f"confirmed on {fresh} fresh ones {beyond}"
        if question.by_all_pairs:
            told = f"{fresh} fresh ones bear it out, and all {count + fresh} together lie {beyond}"
        return "regressed" if question.state == "regressed" else "improved", f"suspected after {count} pairs, {told}"
    if question.state == "unchanged" and not question.still_unchanged():
        return "inconclusive", f"first pairs lay within ±{sensitivity.guarantee:.1%}; all {count} leave more possible"
    if question.state == "unchanged":
        return _no_change(question, f"within ±{UNCHANGED:.1%} at 99 % after {count} pairs", f"after {count} pairs")
    if question.laid_aside:
        if question.within_guarantee():
            suspected = f"suspected after {count} pairs"
            told = f"{suspected}; {fresh} fresh ones lie within ±{UNCHANGED:.1%}"
            return _no_change(question, told, f"{suspected}, {fresh} fresh ones")
        return "inconclusive", f"suspected after {count} pairs; {fresh} fresh ones neither confirm it nor rule it out"
    why = OPEN.get(ended, ended)
    if question.state == "suspect":
        return "inconclusive", f"{why}: suspected after {count} pairs, {fresh} fresh ones are too few to confirm it"
    if count == 0:
        return "inconclusive", f"{why}: no pair was measured"
    return "inconclusive", f"{why}: {count} pairs neither show a change nor rule one out"


def _no_change(question: Question, unchanged: str, pairs: str) -> tuple[Outcome, str]:
    """A shift inside the metric's own guarantee is unchanged only where it is also inside UNCHANGED, so that the word
    means the same for each metric."""
    if question.lies_within(UNCHANGED):
        return "unchanged", unchanged
    guarantee = question.sensitivity.guarantee
    return "inconclusive", f"{NO_LARGER} {guarantee:.0%}; smaller ones cannot be excluded ({pairs})"


def _suspected(question: Question) -> bool:
    """Whether a suspicion was raised that the fresh pairs neither confirmed nor ruled out."""
    if question.laid_aside:
        return not question.within_guarantee()
    return question.state == "suspect"


def _no_value(judge: PairedJudge, row: PairedRow, asked: PairedMetric) -> str | None:
    """Why no pair of a row gave a metric its value; None where no pair was measured at all."""
    samples = row.interleaving.turns * row.interleaving.samples if row.interleaving else 0
    if samples < asked.samples:
        return f"too few samples in a block for a {asked.short} ({samples} of {asked.samples})"
    measured = any(key.row == row.id for key in judge.figures)
    return f"no block gave a {asked.short}" if measured else None


def _broken(row: PairedRow, arm: str, reason: str) -> Verdict:
    """A row that failed while its pairs were measured: the head's failure is a regression with no statistics.

    Not so where the memory ran out: which of the two arms it hits when both are in memory at once is chance, and each
    of them had enough when it was alone.
    """
    where = Row(case=row.base, status="failed", reason=stated(reason))
    outcome: Outcome = "regressed" if arm == "head" and not reason.startswith("oom:") else "not_comparable"
    verdict = row_verdict(where, outcome, f"health: {arm} failed in a block: {reason}")
    return replace(verdict, case_id=row.id, label=row.label)
