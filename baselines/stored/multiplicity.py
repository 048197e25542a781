"""Alarms by chance, held against all rows of a comparison. Pure: judged rows in, verdicts out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from baselines.stored.noisy import FALSE_DISCOVERY, discoveries
from baselines.stored.rules import Finding
from baselines.verdict import Outcome, Verdict

# A verdict, and the finding behind it where a rule was asked.
Judged = tuple[Verdict, Finding | None]

# McNemar of a deterministic model has few chance flips, and a wrong answer is worse than a slow one.
LEVELS: Final = {"noisy": FALSE_DISCOVERY, "quality_item": 0.05}


def settle(judged: list[Judged]) -> list[Verdict]:
    """The verdicts, where an alarm by chance counts only if Benjamini-Hochberg over all rows of its kind lets it.

    Advisory and gating verdicts are families apart, and so are worse and better: an improvement must not make room
    for an alarm.
    """
    verdicts = [verdict for verdict, _ in judged]
    for kind, level in LEVELS.items():
        for gating in (True, False):
            family = [(i, f) for i, (v, f) in enumerate(judged) if f and (v.kind, v.gating) == (kind, gating)]
            _confirm(verdicts, {i: f.p_worse for i, f in family if f.p_worse is not None}, "regressed", level)
            _confirm(verdicts, {i: f.p_better for i, f in family if f.p_better is not None}, "improved", level)
    return verdicts


def _confirm(verdicts: list[Verdict], p_values: dict[int, float], outcome: Outcome, level: float) -> None:
    """Turns each `outcome` that the family does not confirm into `inconclusive`, in place."""
    for i, passed in zip(p_values, discoveries(list(p_values.values()), level), strict=True):
        if verdicts[i].outcome == outcome and not passed:
            chance = f"suspect ({outcome}), but among {len(p_values)} comparisons chance does that: measure again"
            verdicts[i] = replace(verdicts[i], outcome="inconclusive", reason=f"{verdicts[i].reason}; {chance}")
