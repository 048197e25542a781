"""The reasons why nothing is decided about the speed of a run: contention, and controls that moved.

The A/A control of a run with rounds is the second copy of each group's reference, which takes turns with it
(`harness.ratios`). That of a run without rounds is one case that is measured as two rows of the same code. The control
workload is fixed work in every process. If its speed differs from that in the stored
sessions, the machine changed and not the code.
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
from harness.attempts import contended, timed
from harness.ratios import Ratio, ratios
from harness.reasons import Reason
from harness.types import Control, Measurement, Run

COPY_FLOOR: Final = 0.01
CONTROL_FLOOR: Final = 0.025
CONTROL_LEVEL: Final = 0.005
CONTROL_WORKLOAD_LEVEL: Final = 0.0025
LATENCY: Final = "latency_s"


def tripped(run: Run, sessions: Sequence[Run] = ()) -> list[Reason]:
    """Why nothing is decided about the speed of `run`; `sessions` are the stored ones, oldest first."""
    found = [rows_contended(run), control_moved(run), *control_workloads_moved(run, sessions)]
    return [reason for reason in found if reason]


def rows_contended(run: Run) -> Reason | None:
    """The reason if too many rows are still contended after they were measured again; otherwise None. A row with rounds
    is contended if most of the processes whose time counts are (`harness.attempts.timed`)."""
    ok: dict[str, list[Measurement]] = {}
    for measurement in run.measurements:
        if measurement.status == "ok":
            ok.setdefault(measurement.case.id, []).append(measurement)
    met = [reason for measurements in ok.values() if (reason := _row_contended(measurements))]
    if len(met) <= CONTENDED_SHARE * len(ok):
        return None
    return because(ReasonKind.CONTENDED_ROWS, contended=len(met), rows=len(ok), example=most_frequent(met))


def _row_contended(measurements: Sequence[Measurement]) -> Reason | None:
    """The contention of the last process that met it, if that makes the row contended; otherwise None."""
    counted = timed(measurements)
    in_rounds = any(m.round is not None for m in counted)
    met = [reason for m in (counted if in_rounds else measurements) if (reason := contended(m))]
    return met[-1] if met and (not in_rounds or 2 * len(met) > len(counted)) else None


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
    """The reason if an A/A control differs by more than the noise; otherwise None."""
    found = _clearest_copy(run) if _has_copies(run) else control_shift(run)
    if found is None or abs(found[0]) <= found[1]:
        return None
    return because(ReasonKind.CONTROL_MOVED, control=control(run))


def control(run: Run) -> Reason | None:
    """The result of the A/A control; None if the run has none."""
    if _has_copies(run):
        return _copies(run)
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


def _has_copies(run: Run) -> bool:
    return any(c.side == "copy" for c in run.controls)


def _clearest_copy(run: Run) -> tuple[float, float, Ratio] | None:
    """(log ratio of the seconds of a copy and its reference, log ratio that the noise explains, ratio) of the group
    with the clearest difference; None without any interval. The level is that of all groups together."""
    found = [ratio for ratio in ratios(run).controls.values() if ratio.half_width]
    if not found:
        return None
    z = quantile(1 - CONTROL_LEVEL / (2 * len(found)), math.inf)
    values = [
        (-math.log(ratio.value), COPY_FLOOR + z * (ratio.half_width or 0.0) / quantile(0.975, math.inf), ratio)
        for ratio in found
    ]
    return max(values, key=lambda each: abs(each[0]) / each[1])


def _copies(run: Run) -> Reason:
    labels = {case.id: case.label for case in run.cases}
    found = _clearest_copy(run)
    if found is None:
        copy = next(c.measurement.case for c in run.controls if c.side == "copy")
        return because(ReasonKind.CONTROL_TOO_FEW, label=copy.label)
    shift, allowed, ratio = found
    return because(
        ReasonKind.GROUP_CONTROLS,
        groups=len({c.measurement.case.id for c in run.controls if c.side == "copy"}),
        label=labels[ratio.case_id],
        shift=shift,
        least=-allowed,
        most=allowed,
        rounds=ratio.rounds,
    )


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
