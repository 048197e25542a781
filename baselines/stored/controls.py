"""The reasons why nothing is decided about the speed of a run: contention, and controls that moved.

The A/A control is one case that is measured as two rows of the same code in every round of the run. The control
workload is fixed work in every process. If its speed differs from that in the stored sessions, the machine changed and
not the code.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from baselines.stored.measured import most_frequent
from baselines.stored.noisy import D0, FULL_SESSIONS, quantile, within_sd
from baselines.verdict import CONTENDED_SHARE
from baselines.wording import ReasonKind, because
from harness.attempts import contended
from harness.reasons import Reason
from harness.types import Control, Measurement, Run

CONTROL_FLOOR: Final = 0.025
CONTROL_LEVEL: Final = 0.005
CONTROL_WORKLOAD_LEVEL: Final = 0.0025
LATENCY: Final = "latency_s"


def tripped(run: Run, sessions: Sequence[Run] = ()) -> list[Reason]:
    """Why nothing is decided about the speed of `run`; `sessions` are the stored ones, oldest first."""
    found = [rows_contended(run), control_moved(run), *control_workloads_moved(run, sessions)]
    return [reason for reason in found if reason]


def rows_contended(run: Run) -> Reason | None:
    """The reason if too many rows are still contended after they were measured again; otherwise None."""
    ok = {m.case.id for m in run.measurements if m.status == "ok"}
    met = {m.case.id: reason for m in run.measurements if m.status == "ok" and (reason := contended(m))}
    if len(met) <= CONTENDED_SHARE * len(ok):
        return None
    example = most_frequent(list(met.values()))
    return because(ReasonKind.CONTENDED_ROWS, contended=len(met), rows=len(ok), example=example)


def control_shift(run: Run) -> tuple[float, float] | None:
    """(shift of the control's second row against its first, shift that the noise of the run explains), in log ratio;
    None if one of its rows was not measured, or if no row has two processes to estimate the noise."""
    both = [[_log_median(c.measurement) for c in run.controls if c.side == side] for side in ("a", "b")]
    a, b = ([v for v in values if v is not None] for values in both)
    rows: dict[str, list[float]] = {}
    for measurement in run.measurements:
        if (value := _log_median(measurement)) is not None:
            rows.setdefault(measurement.case.id, []).append(value)
    if not a or not b:
        return None
    own = [a, b, rows.get(_a_a(run)[0].measurement.case.id, [])]
    spreads = [spread for groups in ([a, b, *rows.values()], own) if (spread := _spread(groups)) is not None]
    if not spreads:
        return None
    allowed = CONTROL_FLOOR + max(spreads) * math.sqrt(1 / len(a) + 1 / len(b))
    return statistics.fmean(b) - statistics.fmean(a), allowed


def _spread(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation between processes of the same work, times the quantile of its degrees of freedom; None if
    no group has two processes."""
    known = [values for values in groups if values]
    degrees = sum(len(values) - 1 for values in known)
    return quantile(1 - CONTROL_LEVEL, degrees) * within_sd(known) if degrees else None


def control_moved(run: Run) -> Reason | None:
    """The reason if the two rows of the A/A control differ by more than the noise; otherwise None."""
    found = control_shift(run)
    if found is None or abs(found[0]) <= found[1]:
        return None
    return because(ReasonKind.CONTROL_MOVED, control=control(run))


def control(run: Run) -> Reason | None:
    """The result of the A/A control; None if the run has none."""
    own = _a_a(run)
    if not own:
        return None
    label = own[0].measurement.case.label
    found = control_shift(run)
    if found is None:
        return because(ReasonKind.CONTROL_TOO_FEW, label=label)
    shift, allowed = found
    processes = sum(c.side == "a" for c in own)
    return because(ReasonKind.CONTROL, label=label, shift=shift, least=-allowed, most=allowed, processes=processes)


def _a_a(run: Run) -> list[Control]:
    """The processes of the A/A control: those of its two rows, and of no other control."""
    return [c for c in run.controls if c.side in ("a", "b")]


def control_workload_figures(run: Run) -> dict[str, float]:
    """Median seconds of each control workload over the processes of a run that were not contended."""
    found: dict[str, list[float]] = {}
    for measurement in run.measurements:
        told = measurement.state.get("control_workload")
        quiet = contended(measurement) is None and measurement.state.get("control_workload_contended") is None
        if isinstance(told, Mapping) and quiet:
            for name, seconds in told.items():
                found.setdefault(name, []).append(statistics.median(seconds))
    return {name: statistics.median(values) for name, values in found.items()}


def control_workloads_moved(run: Run, sessions: Sequence[Run]) -> list[Reason]:
    """The control workloads whose speed differs from the stored sessions, by the session rule, as reasons."""
    here = control_workload_figures(run)
    stored = [control_workload_figures(session) for session in sessions]
    found = []
    for name, seconds in here.items():
        logs = [math.log(figures[name]) for figures in stored if name in figures]
        if len(logs) < FULL_SESSIONS:
            continue
        shift = math.log(seconds) - statistics.fmean(logs)
        spread = statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))
        if abs(shift) > D0 + quantile(1 - CONTROL_WORKLOAD_LEVEL, len(logs) - 1) * spread:
            found.append(because(ReasonKind.CONTROL_WORKLOAD_MOVED, name=name, shift=shift, sessions=len(logs)))
    return found


def _log_median(measurement: Measurement) -> float | None:
    """ln of the median latency of a process that is ok and not contended; otherwise None."""
    samples = measurement.samples.get(LATENCY)
    if measurement.status != "ok" or contended(measurement) or not samples:
        return None
    middle = statistics.median(samples)
    return math.log(middle) if middle > 0 else None
