"""The steps of a verdict on a time: the medians of the sessions, the processes of the run, and the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from baselines.stored.noisy import ALPHA, D0, FULL_SESSIONS, quantile, shift_of
from baselines.stored.row_verdicts import TIMED, Compared, RunRows, history
from baselines.stored.rows import Groups, bad_values, process_value, rows_of, under_ids_of
from baselines.verdict import Verdict
from harness.types import Metric, Run
from harness.units import format_value, percent

DECIDED = frozenset({"regressed", "improved", "unchanged", "inconclusive"})


def lines(run: Run, sessions: Sequence[Run], verdict: Verdict) -> list[str]:
    """The steps of one verdict; empty if it is not on a time, or if no rule decided it."""
    metric = run.metrics.get(verdict.metric)
    if verdict.kind not in TIMED or verdict.outcome not in DECIDED or metric is None or not sessions:
        return []
    rows = rows_of(run)
    row = rows[verdict.case_id].quiet(run.protocol.replicates)
    here = row.groups(metric.name)
    compared = Compared(
        candidate=RunRows(run=run, rows={row.case.id: row}),
        sessions=tuple(RunRows(run=s, rows=under_ids_of(rows, rows_of(s))) for s in sessions),
        scope="all",
    )
    stored = history(compared, row, metric)
    told = f" ({row.contention})" if row.contention else ""
    found = [f"session {number} of {len(stored)}: {_values(metric, groups)}" for number, groups in enumerate(stored, 1)]
    found.append(f"this run: {_values(metric, here)}{told}")
    if metric.kind != "noisy" or not stored or bad_values(metric, here):
        return found
    shift = shift_of(metric, stored, here)
    t = quantile(1 - ALPHA, shift.degrees)
    spread = "between sessions" if shift.gating else f"assumed, below {FULL_SESSIONS} sessions"
    found.append(
        f"shift {percent(math.expm1(shift.harm), '+.2')} (positive is worse); "
        f"threshold {percent(D0, '.0')} + {t:.2f} x {percent(shift.error, '.2')} ({spread}) = "
        f"{percent(math.expm1(shift.threshold), '.2')}; "
        f"processes from {percent(math.expm1(shift.mildest), '+.2')} to {percent(math.expm1(shift.gravest), '+.2')}"
    )
    found.append(
        f"p before the correction over all rows: worse {shift.p_value(1.0):.2g}, better {shift.p_value(-1.0):.2g}"
    )
    return found


def _values(metric: Metric, groups: Groups) -> str:
    values = [process_value(metric, g) for g in groups]
    return ", ".join(format_value(v, metric.unit) for v in values) or "no value"
