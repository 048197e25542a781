"""Whether the speed of a run may be judged at all: how much of it was contended, and whether its controls moved.

The A/A control is one case measured as two rows of the same code, in every round of the run. The sentinel is work of
our own in every process: where it runs at another speed than in the stored sessions, the machine moved, not the code.
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
from harness.types import Measurement, Run

CONTROL_FLOOR: Final = 0.025
CONTROL_LEVEL: Final = 0.005
SENTINEL_LEVEL: Final = 0.0025
LATENCY: Final = "latency_s"


def tripped(run: Run, sessions: Sequence[Run] = ()) -> list[Reason]:
    """Why the speed of `run` may not be judged; `sessions` are the stored ones, oldest first."""
    found = [rows_contended(run), control_moved(run), *sentinels_moved(run, sessions)]
    return [reason for reason in found if reason]


def rows_contended(run: Run) -> Reason | None:
    """The reason where too many rows shared the machine with somebody else, after they were measured again."""
    ok = {m.case.id for m in run.measurements if m.status == "ok"}
    met = {m.case.id: reason for m in run.measurements if m.status == "ok" and (reason := contended(m))}
    if len(met) <= CONTENDED_SHARE * len(ok):
        return None
    example = most_frequent(list(met.values()))
    return because(ReasonKind.CONTENDED_ROWS, contended=len(met), rows=len(ok), example=example)


def control_shift(run: Run) -> tuple[float, float] | None:
    """(shift of the control's second row against its first, shift that the run's own noise allows), in log ratio; None
    where one of its rows was not measured, or no row has two processes to tell the noise by."""
    both = [[_log_median(c.measurement) for c in run.controls if c.side == side] for side in ("a", "b")]
    a, b = ([v for v in values if v is not None] for values in both)
    rows: dict[str, list[float]] = {}
    for measurement in run.measurements:
        if (value := _log_median(measurement)) is not None:
            rows.setdefault(measurement.case.id, []).append(value)
    if not a or not b:
        return None
    own = [a, b, rows.get(run.controls[0].measurement.case.id, [])]
    spreads = [spread for groups in ([a, b, *rows.values()], own) if (spread := _spread(groups)) is not None]
    if not spreads:
        return None
    allowed = CONTROL_FLOOR + max(spreads) * math.sqrt(1 / len(a) + 1 / len(b))
    return statistics.fmean(b) - statistics.fmean(a), allowed


def _spread(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation between processes that do the same, times the quantile that its degrees of freedom ask
    for; None where no group has two. Asked of all rows, and of the control's own, which may be noisier than they."""
    known = [values for values in groups if values]
    degrees = sum(len(values) - 1 for values in known)
    return quantile(1 - CONTROL_LEVEL, degrees) * within_sd(known) if degrees else None


def control_moved(run: Run) -> Reason | None:
    """The reason where the same code, measured as two rows, came out as two speeds."""
    found = control_shift(run)
    if found is None or abs(found[0]) <= found[1]:
        return None
    return because(ReasonKind.CONTROL_MOVED, control=control(run))


def control(run: Run) -> Reason | None:
    """What the control showed; None where the run has none."""
    if not run.controls:
        return None
    label = run.controls[0].measurement.case.label
    found = control_shift(run)
    if found is None:
        return because(ReasonKind.CONTROL_TOO_FEW, label=label)
    shift, allowed = found
    processes = sum(c.side == "a" for c in run.controls)
    return because(ReasonKind.CONTROL, label=label, shift=shift, least=-allowed, most=allowed, processes=processes)


def sentinel_figures(run: Run) -> dict[str, float]:
    """Median seconds of each sentinel over the processes of a run that were measured on a quiet machine."""
    found: dict[str, list[float]] = {}
    for measurement in run.measurements:
        told = measurement.state.get("sentinel")
        quiet = contended(measurement) is None and measurement.state.get("sentinel_contended") is None
        if isinstance(told, Mapping) and quiet:
            for name, seconds in told.items():
                found.setdefault(name, []).append(statistics.median(seconds))
    return {name: statistics.median(values) for name, values in found.items()}


def sentinels_moved(run: Run, sessions: Sequence[Run]) -> list[Reason]:
    """The reasons where a sentinel runs at another speed than in the stored sessions, by the session rule."""
    here = sentinel_figures(run)
    stored = [sentinel_figures(session) for session in sessions]
    found = []
    for name, seconds in here.items():
        logs = [math.log(figures[name]) for figures in stored if name in figures]
        if len(logs) < FULL_SESSIONS:
            continue
        shift = math.log(seconds) - statistics.fmean(logs)
        spread = statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))
        if abs(shift) > D0 + quantile(1 - SENTINEL_LEVEL, len(logs) - 1) * spread:
            found.append(because(ReasonKind.SENTINEL_MOVED, name=name, shift=shift, sessions=len(logs)))
    return found


def _log_median(measurement: Measurement) -> float | None:
    """ln of the median latency of an ok process on a quiet machine."""
    samples = measurement.samples.get(LATENCY)
    if measurement.status != "ok" or contended(measurement) or not samples:
        return None
    middle = statistics.median(samples)
    return math.log(middle) if middle > 0 else None
