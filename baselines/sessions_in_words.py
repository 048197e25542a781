"""How a verdict on a time came about, step by step: the sessions' medians, this run's processes, and the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from baselines.judgement import TIMED
from baselines.noisy import ALPHA, D0, FULL_SESSIONS, quantile, shift_of
from baselines.rows import Groups, process_value, rows_of
from baselines.verdict import Verdict
from harness.types import Metric, Run
from harness.units import format_value


def lines(run: Run, sessions: Sequence[Run], verdict: Verdict) -> list[str]:
    """The steps of one verdict; none where it is not on a time, or a side has no value."""
    if verdict.kind not in TIMED:
        return []
    metric = run.metrics[verdict.metric]
    row = rows_of(run)[verdict.case_id].quiet(run.protocol.replicates)
    here = row.groups(metric.name)
    stored = {s.id: _groups(s, verdict.case_id, metric.name) for s in sessions}
    found = [f"session {name}: {_values(metric, groups)}" for name, groups in stored.items() if groups]
    found.append(f"this run: {_values(metric, here)}{f' ({row.contended})' if row.contended else ''}")
    usable = [groups for groups in stored.values() if groups]
    if metric.kind != "noisy" or not usable or not here:
        return found
    shift = shift_of(metric, usable, here)
    t = quantile(1 - ALPHA, shift.degrees)
    spread = "between sessions" if shift.gating else f"assumed, below {FULL_SESSIONS} sessions"
    found.append(
        f"shift {math.expm1(shift.harm):+.2%} (+ worse); threshold {D0:.0%} + {t:.2f} x {shift.error:.2%} ({spread}) "
        f"= {math.expm1(shift.threshold):.2%}; processes from {math.expm1(shift.mildest):+.2%} to "
        f"{math.expm1(shift.gravest):+.2%}"
    )
    return [
        *found,
        f"p before the correction over all rows: {shift.p_value(1.0):.2g} worse, {shift.p_value(-1.0):.2g} better",
    ]


def _groups(run: Run, case_id: str, metric: str) -> Groups:
    row = rows_of(run).get(case_id)
    return row.quiet(run.protocol.replicates).groups(metric) if row is not None and row.ok else []


def _values(metric: Metric, groups: Groups) -> str:
    values = [process_value(metric, g) for g in groups]
    return ", ".join(format_value(v, metric.unit) for v in values) or "no value"
