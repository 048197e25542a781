"""The correction of alarms for the number of rows in a comparison. Pure: decided metrics in, verdicts out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from baselines.stored.noisy import FALSE_DISCOVERY, discoveries
from baselines.stored.rules import RuleResult
from baselines.verdict import Outcome, Verdict
from baselines.wording import ReasonKind, because

# A verdict, and the result of its rule if one was applied.
Decided = tuple[Verdict, RuleResult | None]

# With a deterministic model, McNemar's test has few chance flips, and a wrong result is worse than a slow one.
LEVELS: Final = {"noisy": FALSE_DISCOVERY, "quality_item": 0.05}


def corrected(decided: list[Decided]) -> list[Verdict]:
    """The verdicts after the Benjamini-Hochberg correction of alarms over all rows of a kind.

    Advisory and gating verdicts are separate families, and so are regressions and improvements, so that improvements
    do not make regressions more likely.
    """
    verdicts = [verdict for verdict, _ in decided]
    for kind, level in LEVELS.items():
        for gating in (True, False):
            family = [(i, r) for i, (v, r) in enumerate(decided) if r and (v.kind, v.gating) == (kind, gating)]
            _confirm(verdicts, {i: r.p_worse for i, r in family if r.p_worse is not None}, "regressed", level)
            _confirm(verdicts, {i: r.p_better for i, r in family if r.p_better is not None}, "improved", level)
    return verdicts


def _confirm(verdicts: list[Verdict], p_values: dict[int, float], outcome: Outcome, level: float) -> None:
    """Turns each `outcome` that the family does not confirm into `inconclusive`, in place."""
    for i, passed in zip(p_values, discoveries(list(p_values.values()), level), strict=True):
        if verdicts[i].outcome == outcome and not passed:
            reason = because(ReasonKind.SUSPECT, reason=verdicts[i].reason, outcome=outcome, comparisons=len(p_values))
            verdicts[i] = replace(verdicts[i], outcome="inconclusive", reason=reason)
