"""The rows that a comparison with stored sessions measures again, and the number of additional processes.

A suspect is a row whose time the session rule calls regressed or improved, before or after the correction. It gets
EXTRA additional processes, and the rule decides again on all processes that are not contended. The number is fixed
beforehand: a budget may reduce it, but a value may not. So the second decision raises an alarm at most as often as the
rule on as many processes (`tests/test_suspects.py` counts it). Additional processes do not remove the variation between
sessions, which the spread between the stored sessions covers.
"""

from __future__ import annotations

from typing import Final

from baselines.stored.rows import rows_of
from baselines.verdict import Comparison, Verdict
from baselines.wording import ReasonKind
from harness.types import Case, Run

EXTRA: Final = 8


def suspects(run: Run, comparison: Comparison) -> dict[Case, int]:
    """Additional processes by case; empty without suspects, without decisions on speed, or if they are measured."""
    if comparison.scope != "all" or comparison.refused or comparison.contended:
        return {}
    rows = rows_of(run)
    found = {}
    for verdict in comparison.verdicts:
        if verdict.kind == "noisy" and _suspected(verdict):
            row = rows[verdict.case_id]
            left = run.protocol.replicates + EXTRA - len(row.processes)
            if left > 0:
                found[row.case] = left
    return found


def _suspected(verdict: Verdict) -> bool:
    return verdict.outcome in {"regressed", "improved"} or verdict.reason.kind == ReasonKind.SUSPECT
