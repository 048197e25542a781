"""The rules, one function per kind of metric. A rule decides one metric of one row from stored sessions and this run.

A rule gets comparable values (same work, unit and conditions; finite, and positive if the kind requires it) and returns
a RuleResult. docs/comparing.md has the rules as a table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from scipy.special import betaincinv

from baselines.stored.noisy import FULL_SESSIONS, GUARANTEE, Shift, shift_of
from baselines.stored.rows import Groups, process_value
from baselines.verdict import Outcome
from baselines.wording import ReasonKind, because
from harness.reasons import Reason
from harness.types import Kind, Metric

ENERGY_TOLERANCE: Final = 0.10
NEAR_EXACT_SHARE: Final = 0.005
NEAR_EXACT_BYTES: Final = 2 * 1024**2
# KID of some hundred images has a standard deviation of a few thousandths, and may be near zero or negative.
SET_SHARE: Final = 0.10
SET_FLOOR: Final = 0.005
DECIBEL: Final = 0.5
# Rounding to 8 bits alone gives 58.9 dB, so above 60 dB no image is better than another.
INDISTINGUISHABLE_DB: Final = 60.0
HIGHER_FLOOR: Final = 0.01
LOWER_SHARE: Final = 0.25
MCNEMAR_LEVEL: Final = 0.01
ITEM_GUARANTEE: Final = 0.05  # net share of the items: `unchanged` excludes a larger change


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Raw samples, one list per process, of the stored sessions (oldest first) and of this run."""

    metric: Metric
    sessions: tuple[Groups, ...]
    here: Groups

    @property
    def newest(self) -> Groups:
        return self.sessions[-1]


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """A verdict without its row. Statistical rules set the p-values, for the correction over all rows."""

    outcome: Outcome
    reason: Reason
    baseline: float | None = None
    candidate: float | None = None
    low: float | None = None
    high: float | None = None
    minimum_detectable: float | None = None
    gating: bool = True
    p_worse: float | None = None
    p_better: float | None = None


def decide(evidence: Evidence) -> RuleResult:
    """The result of the rule for the metric's kind; bit-identical samples that are comparable are unchanged."""
    result = RULES[evidence.metric.kind](evidence)
    if evidence.here != evidence.newest or result.outcome == "not_comparable":
        return result
    return RuleResult(
        outcome="unchanged",
        reason=because(ReasonKind.BIT_IDENTICAL),
        baseline=result.candidate,
        candidate=result.candidate,
        minimum_detectable=result.minimum_detectable,
        gating=result.gating,
    )


def noisy(evidence: Evidence) -> RuleResult:
    """The session rule of `baselines.stored.noisy`, before the correction over all rows."""
    metric, shift = evidence.metric, shift_of(evidence.metric, evidence.sessions, evidence.here)
    turn = -1.0 if metric.better == "higher" else 1.0
    low, high = sorted(math.exp(turn * bound) for bound in shift.interval())
    detectable, beyond = (abs(math.expm1(turn * size)) for size in (shift.detectable, shift.threshold))
    outcome, undecided = _shift_outcome(shift)
    return RuleResult(
        outcome=outcome,
        reason=because(
            ReasonKind.SESSION_SHIFT,
            change=math.expm1(turn * shift.harm),
            threshold=beyond,
            beyond=abs(shift.harm) > shift.threshold,
            detectable=detectable,
            sessions=shift.sessions,
            needed=None if shift.gating else FULL_SESSIONS,
            undecided=undecided,
        ),
        baseline=math.exp(statistics.fmean(math.log(_middle(metric, groups)) for groups in evidence.sessions)),
        candidate=_middle(metric, evidence.here),
        low=low,
        high=high,
        minimum_detectable=detectable,
        gating=shift.gating,
        p_worse=shift.p_value(+1),
        p_better=shift.p_value(-1),
    )


def _shift_outcome(shift: Shift) -> tuple[Outcome, Reason | None]:
    """The outcome of one row before the correction, and why it is undecided."""
    if abs(shift.harm) > shift.threshold:
        worse = shift.harm > 0
        if shift.agreed(1.0 if worse else -1.0):
            return ("regressed" if worse else "improved"), None
        return "inconclusive", because(ReasonKind.PROCESSES_DISAGREE)
    if shift.excluded:
        return "unchanged", None
    return "inconclusive", because(ReasonKind.CHANGE_NOT_EXCLUDED, size=GUARANTEE)


def exact(evidence: Evidence) -> RuleResult:
    """Equality. If neither direction is better, a change means that the work differs."""
    here, there = (sorted({v for g in groups for v in g}) for groups in (evidence.here, evidence.newest))
    if len(here) > 1 or len(there) > 1:
        varies = because(ReasonKind.EXACT_VALUE_VARIES, values=here if len(here) > 1 else there)
        return RuleResult(outcome="not_comparable", reason=varies)
    if here == there:
        return RuleResult(outcome="unchanged", reason=because(ReasonKind.EQUAL), baseline=there[0], candidate=here[0])
    outcome, kind = direction(evidence.metric, here[0] - there[0]), ReasonKind.EXACT_VALUE_CHANGED
    if outcome == "inconclusive":
        outcome, kind = "not_comparable", ReasonKind.EXACT_VALUE_OF_OTHER_WORK
    reason = because(kind, there=there[0], here=here[0], unit=evidence.metric.unit)
    return RuleResult(outcome=outcome, reason=reason, baseline=there[0], candidate=here[0])


def near_exact(evidence: Evidence) -> RuleResult:
    """The largest value of the processes against that of the newest session. The tolerance is the largest of 0.5 %,
    2 MiB and the median spread between the processes of a session. Differences between sessions were accepted, and are
    not noise."""
    metric = evidence.metric
    sessions = [[process_value(metric, g) for g in groups] for groups in evidence.sessions]
    there = max(sessions[-1])
    here = max(process_value(metric, g) for g in evidence.here)
    spread = statistics.median(max(values) - min(values) for values in sessions)
    floor = NEAR_EXACT_BYTES if metric.unit == "B" else 0.0
    return tolerance(metric, there, here, max(NEAR_EXACT_SHARE * there, floor, spread))


def energy(evidence: Evidence) -> RuleResult:
    """The median over processes against the median over sessions, with a tolerance of 10 %."""
    there, here = _medians(evidence)
    return tolerance(evidence.metric, there, here, ENERGY_TOLERANCE * abs(there))


def quality_item(evidence: Evidence) -> RuleResult:
    """The exact McNemar test over the same items in the same order, before the correction over all rows."""
    here, there = evidence.here[0], evidence.newest[0]
    if len(here) != len(there):
        counts = because(ReasonKind.ITEM_COUNTS_DIFFER, here=len(here), there=len(there))
        return RuleResult(outcome="not_comparable", reason=counts)
    if {*here, *there} - {0.0, 1.0}:
        return RuleResult(outcome="not_comparable", reason=because(ReasonKind.ITEM_NOT_BINARY))
    bad, good = (1.0, 0.0) if evidence.metric.better == "lower" else (0.0, 1.0)
    lost = sum(a == bad and b == good for a, b in zip(here, there, strict=True))
    won = sum(a == good and b == bad for a, b in zip(here, there, strict=True))
    p = mcnemar(lost, won)
    baseline, possible = math.fsum(there) / len(there), largest_change(lost, won, len(here))
    outcome: Outcome = "unchanged" if possible <= ITEM_GUARANTEE else "inconclusive"
    if p <= MCNEMAR_LEVEL:
        outcome = "regressed" if lost > won else "improved"
    return RuleResult(
        outcome=outcome,
        reason=because(
            ReasonKind.ITEMS_FLIPPED,
            lost=lost,
            won=won,
            items=len(here),
            p_value=p,
            possible=possible if outcome == "inconclusive" else None,
        ),
        baseline=baseline,
        candidate=math.fsum(here) / len(here),
        minimum_detectable=ITEMS_NEEDED / len(here) / baseline if baseline and len(here) >= ITEMS_NEEDED else None,
        p_worse=p if lost > won else 1.0,
        p_better=p if won > lost else 1.0,
    )


def quality_set(evidence: Evidence) -> RuleResult:
    """FID or KID under equal conditions, with the tolerance `set_tolerance`."""
    there, here = (process_value(evidence.metric, groups[0]) for groups in (evidence.newest, evidence.here))
    return tolerance(evidence.metric, there, here, set_tolerance(there))


def set_tolerance(there: float) -> float:
    """The tolerance of FID and KID: 10 %, but at least 0.005, because the value may be near zero."""
    return max(SET_SHARE * abs(there), SET_FLOOR)


def quality_continuous(evidence: Evidence) -> RuleResult:
    """The tolerance is 0.5 dB for a PSNR (values above 60 dB are equal), 0.01 for a score and 25 % for an error."""
    metric = evidence.metric
    there, here = (process_value(metric, groups[0]) for groups in (evidence.newest, evidence.here))
    if metric.unit == "dB":
        if min(there, here) >= INDISTINGUISHABLE_DB:
            reason = because(ReasonKind.INDISTINGUISHABLE, decibel=INDISTINGUISHABLE_DB)
            return RuleResult(outcome="unchanged", reason=reason, baseline=there, candidate=here)
        change = min(here, INDISTINGUISHABLE_DB) - min(there, INDISTINGUISHABLE_DB)
        return tolerance(metric, there, here, DECIBEL, change=change)
    allowed = LOWER_SHARE * abs(there) if metric.better == "lower" else HIGHER_FLOOR
    return tolerance(metric, there, here, max(allowed, 1e-6))


def tolerance(
    metric: Metric, there: float, here: float, allowed: float, *, change: float | None = None, gating: bool = True
) -> RuleResult:
    """`here` against `there` with an allowed absolute change; a change of exactly `allowed` is still allowed."""
    change = here - there if change is None else change
    within = abs(change) <= allowed
    return RuleResult(
        outcome="unchanged" if within else direction(metric, change),
        reason=because(
            ReasonKind.TOLERANCE,
            there=there,
            change=change,
            allowed=allowed,
            unit=metric.unit,
            within=within,
            directed=within or metric.better is not None,
        ),
        baseline=there,
        candidate=here,
        minimum_detectable=allowed / abs(there) if there else None,
        gating=gating,
    )


def direction(metric: Metric, change: float) -> Outcome:
    """The outcome of a change; inconclusive if neither direction is better."""
    if metric.better is None:
        return "inconclusive"
    return "regressed" if (change > 0) == (metric.better == "lower") else "improved"


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p-value of the discordant pairs: both directions are equally likely if nothing changed.

    >>> mcnemar(8, 0), mcnemar(3, 3)
    (0.0078125, 1.0)
    """
    count = lost + won
    smaller = sum(math.comb(count, i) for i in range(min(lost, won) + 1))
    return float(min(1.0, 2 * smaller / 2**count))


def largest_change(lost: int, won: int, items: int) -> float:
    """The largest net share of items, lost or won, that these flips do not exclude at 95 % per side: the exact
    (Clopper-Pearson) bounds of the direction of a flip, times the share of flipped items. 0 without flips.

    >>> round(largest_change(7, 0, 100), 2), round(largest_change(20, 15, 400), 3), largest_change(0, 0, 5)
    (0.07, 0.038, 0.0)
    """
    flips = lost + won
    if not flips:
        return 0.0
    grave = max(lost, won)
    bound = 1.0 if grave == flips else float(betaincinv(grave + 1, flips - grave, 0.95))
    return max(0.0, 2 * bound - 1) * flips / items


def _middle(metric: Metric, groups: Groups) -> float:
    return statistics.median(process_value(metric, values) for values in groups)


def _medians(evidence: Evidence) -> tuple[float, float]:
    stored = [_middle(evidence.metric, groups) for groups in evidence.sessions]
    return statistics.median(stored), _middle(evidence.metric, evidence.here)


# The fewest flips in one direction that reach MCNEMAR_LEVEL: 2 * 0.5 ** 8 = 0.8 %.
ITEMS_NEEDED: Final = next(n for n in range(1, 64) if mcnemar(n, 0) <= MCNEMAR_LEVEL)

RULES: Final[Mapping[Kind, Callable[[Evidence], RuleResult]]] = {
    "noisy": noisy,
    "exact": exact,
    "near_exact": near_exact,
    "energy": energy,
    "quality_item": quality_item,
    "quality_continuous": quality_continuous,
    "quality_set": quality_set,
}
