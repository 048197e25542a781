"""The rows that a comparison with stored sessions measures again, and the number of additional processes or rounds.

A suspect is a row whose time the session rule calls regressed or improved, before or after the correction, or whose
latency relative to its group may have changed (`baselines.stored.relative_verdicts`). In a run without rounds it gets
EXTRA additional processes, and in a run with rounds EXTRA_ROUNDS additional rounds with its group's reference. Then the
rules decide again on all processes and rounds. The number is fixed beforehand: a budget may reduce it, but a value may
not. So the second decision raises an alarm at most as often as the rule on as many processes (`tests/test_suspects.py`
and `tests/test_relative_rates.py` count it). The fresh rounds alone would not be a better test: the error of the stored
sessions, by which the suspects were selected, is the same in both, so the correction over all rows is needed anyway.
Additional processes do not remove the variation between sessions, which the spread between the stored sessions covers.
"""

from __future__ import annotations

from typing import Final

from baselines.stored import relative_verdicts
from baselines.stored.rows import Row, rows_of
from baselines.verdict import Comparison, Verdict
from baselines.wording import ReasonKind
from harness.sweeping.planning import in_rounds
from harness.types import Case, Run

EXTRA: Final = 8
EXTRA_ROUNDS: Final = 16


def suspects(run: Run, comparison: Comparison) -> dict[Case, int]:
    """Additional processes, or rounds of a run with rounds, by case; empty without suspects, without decisions on
    speed, or if they are measured."""
    if comparison.scope != "all" or comparison.refused:
        return {}
    rows = rows_of(run)
    found = {}
    for verdict in comparison.verdicts:
        if _suspected(verdict, comparison) and (left := _left(run, rows[verdict.case_id])) > 0:
            found[rows[verdict.case_id].case] = left
    return found


def _left(run: Run, row: Row) -> int:
    """A row of a run with rounds gets further ones once."""
    if in_rounds(run):
        return 0 if run.finished is None or relative_verdicts.has_further_rounds(run, row) else EXTRA_ROUNDS
    return run.protocol.replicates + EXTRA - len(row.processes)


def _suspected(verdict: Verdict, comparison: Comparison) -> bool:
    if verdict.metric == relative_verdicts.RELATIVE_LATENCY.name:
        return relative_verdicts.suspected(verdict)
    if verdict.kind != "noisy" or comparison.contended:
        return False
    return verdict.outcome in {"regressed", "improved"} or verdict.reason.kind == ReasonKind.SUSPECT
