"""What a comparison says: one verdict for each row and metric, and the exit code of the whole.

Exit codes: 0 fine, 10 regressed, 11 inconclusive (only with strict), 12 not comparable or no baseline, 13 nothing
measured, 14 contended (the machine was not quiet enough to judge speed), 15 quality regressed. 2 is what make itself
returns, so it is never used.

A verdict on a whole row (broken, vanished, new, other work) has the metric "row", the kind "health", and no values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from baselines.wording import ReasonKind
from harness.reasons import Reason

Outcome = Literal["regressed", "improved", "unchanged", "inconclusive", "not_comparable", "missing", "new"]
Scope = Literal["all", "machine-independent"]
Rule = Literal["stored", "paired"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)

FINE, REGRESSED, INCONCLUSIVE, NOT_COMPARABLE, NOTHING_MEASURED, CONTENDED, QUALITY_REGRESSED = (
    0,
    10,
    11,
    12,
    13,
    14,
    15,
)
BENCHMARK_ERROR, USAGE = 20, 64
CONTENDED_SHARE = 0.20  # of the pairs or rows of a run that were contended: with more, its speed is not judged
MEANINGS = {
    FINE: "fine",
    REGRESSED: "regressed",
    INCONCLUSIVE: "inconclusive (strict)",
    NOT_COMPARABLE: "not comparable, or no baseline",
    NOTHING_MEASURED: "nothing measured",
    CONTENDED: "contended: the machine was not quiet enough to judge speed",
    QUALITY_REGRESSED: "quality regressed",
    BENCHMARK_ERROR: "benchmark error",
    USAGE: "usage",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row and one metric against the baseline.

    `ratio` is candidate / baseline with its 95 % interval [low, high], None where there is none (an exact metric, a
    missing value). `gating` False means advisory: shown, but it does not decide the exit code. `minimum_detectable`
    is the smallest relative change that this comparison could have seen. `pairs` and `p_value` are the paired rule's:
    how many pairs of fresh processes decided, and the p-value of the test that raised the alarm, which the reason
    names: of the fresh pairs (over all looks) or of all pairs (over all looks, both directions and all rows). `dropped`
    counts the pairs left out because the machine was not quiet.
    """

    case_id: str
    label: str
    metric: str
    kind: str
    unit: str
    outcome: Outcome
    reason: Reason
    baseline: float | None = None
    candidate: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    minimum_detectable: float | None = None
    gating: bool = True
    pairs: int | None = None
    dropped: int = 0
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A run against a stored baseline. `scope` says what could be compared: "all", or "machine-independent" where
    the baseline comes from another machine; `differences` lists the fields that make speed incomparable; `refused`
    is the reason why nothing at all was compared (then `verdicts` is empty); `absent` tells that there simply is no
    baseline yet, and `error` that the benchmark itself broke. `rule` "paired" is `imgbench ab`: base and head measured
    in one run, `arms` says what each of them is and `baseline` names the base. `contended` gives the reasons why
    speed may not be judged (contention, or a control that moved): its timed verdicts are then inconclusive already,
    and the gate says 14. `against` names the stored sessions that were used, oldest first, none of which was older than
    `max_age_days`; `considered` names all that were there. `allow_new` tells that rows and metrics which the sessions
    do not know were added on purpose."""

    run_id: str
    suite: str
    baseline: str
    scope: Scope
    verdicts: tuple[Verdict, ...] = ()
    differences: tuple[Reason, ...] = ()
    refused: tuple[Reason, ...] = ()
    sessions: int = 0
    notes: tuple[Reason, ...] = ()
    absent: bool = False
    rule: Rule = "stored"
    arms: tuple[str, str] | None = None
    contended: tuple[Reason, ...] = ()
    against: tuple[str, ...] = ()
    max_age_days: float | None = None
    considered: tuple[str, ...] = ()
    allow_new: bool = False
    error: bool = False


def contended_rows(comparison: Comparison) -> dict[str, Reason]:
    """Label -> contention of the rows whose gating speed is undecided because of it: no pass of theirs."""
    gating = (v for v in comparison.verdicts if v.gating and v.outcome == "inconclusive")
    return {v.label: v.reason.data["contention"] for v in gating if v.reason.kind == ReasonKind.CONTENDED_ROW}


def same_arms(comparison: Comparison) -> bool:
    """Whether base and head are one and the same: then the run says how quiet the gate is, and nothing of a change."""
    return comparison.arms is not None and comparison.arms[0] == comparison.arms[1]


def _anything_measured(comparison: Comparison) -> bool:
    """Whether there is anything to tell: a value, or rows that cannot be compared. The values of a paired run's
    preflight are no times, so there it takes a pair."""
    if comparison.rule == "paired":
        return any(v.pairs or (v.gating and v.outcome == "not_comparable") for v in comparison.verdicts)
    return any(v.candidate is not None or v.outcome in {"not_comparable", "new"} for v in comparison.verdicts)


def no_pass(verdict: Verdict, comparison: Comparison, strict: bool = False) -> bool:
    """Whether this verdict alone makes the gate red though nothing got worse: absent, not comparable, or new.

    A row that the stored sessions do not know may be one that was taken out of them, so it has to be accepted. A
    metric that is new in a known row (advisory) counts only where `strict` asks for every answer.
    """
    if verdict.outcome == "new":
        return not comparison.allow_new and (verdict.gating or (strict and comparison.rule == "stored"))
    return verdict.gating and verdict.outcome in {"missing", "not_comparable"}


def exit_code(comparison: Comparison, strict: bool = False) -> int:
    """The code of the whole, the gravest finding first. Only gating verdicts count.

    15 before 10: a fast wrong answer must never read as a mere slow-down. 10 before 12: a confirmed regression stays
    one, whatever else could not be compared. 14 before 13 and 12: a second run may help it. 12 (fail closed): a row
    that is absent, cannot be compared, or is unknown to the baseline is no pass. `strict` adds 12 for metrics that the
    baseline does not know, and 11 for what could not be decided.
    """
    if comparison.refused:
        return BENCHMARK_ERROR if comparison.error else NOT_COMPARABLE
    gating = [v for v in comparison.verdicts if v.gating]
    if any(v.outcome == "regressed" and v.kind.startswith("quality") for v in gating):
        return QUALITY_REGRESSED
    outcomes = {v.outcome for v in gating}
    if "regressed" in outcomes:
        return REGRESSED
    if comparison.contended or contended_rows(comparison):
        return CONTENDED
    if not _anything_measured(comparison):
        return NOTHING_MEASURED
    if any(no_pass(v, comparison, strict) for v in comparison.verdicts):
        return NOT_COMPARABLE
    return INCONCLUSIVE if strict and "inconclusive" in outcomes else FINE
