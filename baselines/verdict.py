"""The result of a comparison: a verdict for each row and metric, and the exit code.

Exit codes: 0 fine, 10 regressed, 11 inconclusive (only with strict), 12 not comparable or no baseline, 13 nothing
measured, 14 contended (nothing is decided about speed), 15 quality regressed. 2 is what make itself
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
CONTENDED_SHARE = 0.20  # of the pairs or rows of a run: if more are contended, nothing is decided about its speed
MEANINGS = {
    FINE: "fine",
    REGRESSED: "regressed",
    INCONCLUSIVE: "inconclusive (strict)",
    NOT_COMPARABLE: "not comparable, or no baseline",
    NOTHING_MEASURED: "nothing measured",
    CONTENDED: "contended: nothing is decided about speed",
    QUALITY_REGRESSED: "quality regressed",
    BENCHMARK_ERROR: "benchmark error",
    USAGE: "usage",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row and one metric against the baseline.

    `ratio` is candidate / baseline with its 95 % interval [low, high]; it is None for an exact metric and for a missing
    value. `gating` False means advisory: the verdict has no effect on the exit code. `minimum_detectable` is the
    smallest relative change that this comparison detects. The paired rule sets `pairs`, the number of pairs that
    decided, and `p_value`, that of the test that raised the alarm. The reason names the test: the fresh pairs
    (corrected over all looks), or all pairs (corrected over all looks, both directions and all rows). `dropped` is the
    number of contended pairs, which are left out.
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
    """A run against a stored baseline.

    `scope` is "all", or "machine-independent" if the baseline comes from another machine. `differences` are the fields
    that make speed incomparable. `refused` are the reasons why nothing is compared; `verdicts` is then empty. `absent`
    means that there is no baseline yet, and `error` that the benchmark itself failed. `rule` "paired" is `imgbench ab`,
    which measures base and head in one run; `arms` describes both, and `baseline` names the base. `contended` are the
    reasons why nothing is decided about speed (contention, or a control that moved): timed verdicts are then
    inconclusive, and the exit code is 14. `against` are the stored sessions that were used, oldest first, none older
    than `max_age_days`; `considered` are all stored sessions. `allow_new` means that rows and metrics which are not in
    the sessions were added on purpose."""

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
    """Label -> contention of the rows whose gating speed is undecided because of it. These rows do not pass."""
    gating = (v for v in comparison.verdicts if v.gating and v.outcome == "inconclusive")
    return {v.label: v.reason.data["contention"] for v in gating if v.reason.kind == ReasonKind.CONTENDED_ROW}


def same_arms(comparison: Comparison) -> bool:
    """Whether base and head are the same code: then the run shows the noise of the gate, and no change."""
    return comparison.arms is not None and comparison.arms[0] == comparison.arms[1]


def _anything_measured(comparison: Comparison) -> bool:
    """Whether the comparison has a value, or rows that cannot be compared. A paired run needs a pair, because its
    preflight measures no times."""
    if comparison.rule == "paired":
        return any(v.pairs or (v.gating and v.outcome == "not_comparable") for v in comparison.verdicts)
    return any(v.candidate is not None or v.outcome in {"not_comparable", "new"} for v in comparison.verdicts)


def no_pass(verdict: Verdict, comparison: Comparison, strict: bool = False) -> bool:
    """Whether this verdict alone fails the gate although nothing regressed: it is missing, not comparable, or new.

    A row that is not in the stored sessions may have been removed from them, so a user must accept it. A new metric of
    a known row is advisory, and counts only if `strict`.
    """
    if verdict.outcome == "new":
        return not comparison.allow_new and (verdict.gating or (strict and comparison.rule == "stored"))
    return verdict.gating and verdict.outcome in {"missing", "not_comparable"}


def exit_code(comparison: Comparison, strict: bool = False) -> int:
    """The exit code of the comparison, the most severe finding first. Only gating verdicts count.

    15 precedes 10: a fast but wrong result is not reported as a slow-down only. 10 precedes 12: a confirmed regression
    remains one if other rows cannot be compared. 14 precedes 13 and 12: a second run may resolve it. 12 fails closed: a
    row that is missing, not comparable or not in the baseline does not pass. `strict` adds 12 for metrics that are not
    in the baseline, and 11 for undecided rows.
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
