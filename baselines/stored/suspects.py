"""Which rows a comparison with stored sessions wants to be measured again, and how often.

A suspect is a row whose time the session rule calls regressed or improved, alone or in company. It gets EXTRA further
processes, and the rule decides again on all of them together, but for those that were contended. The number is
fixed beforehand (a budget may cut it, a value never), so the second decision alarms at most as often as the rule itself
would on that many processes (`tests/test_suspects.py` counts it). What further processes cannot take back is the luck
of the whole session; that is what the spread between the stored sessions stands for.
"""

from __future__ import annotations

from typing import Final

from baselines.stored.rows import rows_of
from baselines.verdict import Comparison, Verdict
from baselines.wording import ReasonKind
from harness.types import Case, Run

EXTRA: Final = 8


def suspects(run: Run, comparison: Comparison) -> dict[Case, int]:
    """Further processes by case; empty where nothing is suspected, or speed is not judged, or they were had already."""
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
