"""Passes the processes of a paired run to the decision, during the run or from the stored run.

decider = PairedDecider(run)
decider.add(first_process, second_process)
decider.wanted(), decider.phase       # the rows to measure next
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Final

from baselines.paired.decision import PairedDecision
from baselines.paired.metrics import PAIRED_METRICS, mean_shift
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.robust import trimmed
from baselines.wording import ReasonKind, because
from harness.attempts import contended
from harness.paired.control_row import COPY
from harness.paired.paired_run import CONTROL_GROUP, PairedProcess, PairedRun
from harness.reasons import Reason
from harness.types import Measurement

CONTROL_SENSITIVITY: Final = Sensitivity(guarantee=0.025, floor=0.01)


def workload_row(name: str) -> str:
    """The row of a control workload, which is decided like a row of the suite."""
    return f"control workload {name}"


class PairedDecider:
    """The decision on one paired run. `broken` has, by row, the arm that failed and its status; such a row needs no
    further pair. `contentions` has, by row, the reasons why pairs were left out."""

    def __init__(self, run: PairedRun) -> None:
        self.run = run
        self.decision = PairedDecision(_questions(run))
        self.broken: dict[str, tuple[str, Reason]] = {}
        self.figures: dict[Key, list[tuple[float, float]]] = {}
        self.slots: list[float] = []
        self.contentions: dict[str, list[Reason]] = {}
        self._known = [row.id for row in run.rows]

    @property
    def phase(self) -> str:
        return self.decision.phase

    def wanted(self) -> set[str]:
        return self.decision.wanted() - self.broken.keys()

    def add(self, first: PairedProcess, second: PairedProcess) -> None:
        """Adds one pair of processes, in the order in which they ran."""
        base, head = (first, second) if first.arm == "base" else (second, first)
        rows = [row for row in self._known if row in base.measurements or row in head.measurements]
        if base.group != CONTROL_GROUP:
            self._control_workloads(base, head)
        for row in rows:
            decided_row = COPY if base.group == CONTROL_GROUP else row
            self._row(decided_row, base.measurements.get(row), head.measurements.get(row), base_first=base.slot == 0)
        self.decision.advance(min(1.0, max(first.elapsed_s, second.elapsed_s) / self.run.budget_s))

    def _row(self, row: str, base: Measurement | None, head: Measurement | None, *, base_first: bool) -> None:
        """Adds one pair of one row. An arm is None if its process ended in another row or before its turn."""
        for arm, measurement in (("base", base), ("head", head)):
            if measurement is None:
                continue
            if measurement.status != "ok":
                self._break(row, arm, _status(measurement))
            elif no_time := _no_time(measurement):
                self._break(row, arm, no_time)
        if row in self.broken:
            if row == COPY:  # both processes of the control run the base of its row
                self._break(str(self.run.control), "base", self.broken[row][1])
            return
        if base is None or head is None:
            return
        reason = contended(base) or contended(head)
        if reason is not None:
            self.contentions.setdefault(row, []).append(reason)
        shifts = {}
        for paired in PAIRED_METRICS:
            in_base, in_head, shift = paired.figure(base), paired.figure(head), paired.shift(base, head)
            if in_base is None or in_head is None or shift is None:
                continue
            shifts[paired.metric.name] = shift
            if reason is None:
                self.figures.setdefault(Key(row=row, metric=paired.metric.name), []).append((in_base, in_head))
        if reason is None and "latency_s" in shifts:
            self.slots.append(shifts["latency_s"] if base_first else -shifts["latency_s"])
        self.decision.record(row, shifts, kept=reason is None)

    def _break(self, row: str, arm: str, status: Reason) -> None:
        self.broken.setdefault(row, (arm, status))
        self.decision.abandon(row)

    def _control_workloads(self, base: PairedProcess, head: PairedProcess) -> None:
        """Adds the control workload of both processes, which is decided like a row."""
        uncontended = base.control_workload_contended is None and head.control_workload_contended is None
        for name in sorted(base.control_workload.keys() & head.control_workload.keys()):
            shift = mean_shift(base.control_workload[name], head.control_workload[name])
            self.decision.record(workload_row(name), {name: shift}, kept=uncontended)

    def left_out(self, row: str) -> dict[str, int]:
        """The number of pairs of a row that were left out, by the text of the reason."""
        return dict(Counter(str(reason) for reason in self.contentions.get(row, ())))

    def mean_shift(self) -> tuple[float, float, float] | None:
        """(mean shift of the latency over all rows, low, high) at 95 %; positive is worse. None if no row has 8 pairs.

        The rows of one process are correlated, so their standard errors are averaged as if they were fully correlated.
        """
        found = [q.best() if len(q.best()) >= 8 else q.screened for q in self.decision.questions.values() if q.primary]
        estimates = [trimmed(values) for values in found if len(values) >= 8]
        if not estimates:
            return None
        mean = statistics.fmean(e.mean for e in estimates)
        error = statistics.fmean(e.error for e in estimates)
        return mean, mean - 1.96 * error, mean + 1.96 * error


def _status(measurement: Measurement) -> Reason:
    return because(ReasonKind.ROW_STATUS, status=measurement.status, reason=measurement.reason)


def _no_time(measurement: Measurement) -> Reason | None:
    """The status "invalid" if a latency of the process is not finite and positive, otherwise None."""
    bad = [v for v in measurement.samples.get("latency_s", []) if not (math.isfinite(v) and v > 0)]
    if not bad:
        return None
    reason = because(ReasonKind.NO_DURATION, metric="latency_s", value=f"{bad[0]:g}")
    return because(ReasonKind.ROW_STATUS, status="invalid", reason=reason)


class Recorder(PairedDecider):
    """A decider for recordings of noise. It wants every row until the budget is spent, so that no row is left out
    because of its values."""

    @property
    def phase(self) -> str:
        return "record"

    def wanted(self) -> set[str]:
        return {row.id for row in self.run.rows if row.interleaving} - self.broken.keys()


def replayed(run: PairedRun, processes: Iterable[PairedProcess]) -> PairedDecider:
    """The decider after all stored processes, in the same state as when they were measured."""
    decider = PairedDecider(run)
    waiting: dict[tuple[str, int], PairedProcess] = {}
    for process in processes:
        key = (process.group, process.pair)
        first = waiting.pop(key, None)
        if first is None:
            waiting[key] = process
        else:
            decider.add(first, process)
    decider.decision.close()
    return decider


def _questions(run: PairedRun) -> list[Question]:
    found = []
    for row in [row.id for row in run.rows if row.interleaving] + ([COPY] if run.control else []):
        for paired in PAIRED_METRICS:
            control = row == COPY
            found.append(
                Question(
                    key=Key(row=row, metric=paired.metric.name),
                    sensitivity=paired.sensitivity,
                    primary=paired.primary and not control,
                    control=control,
                )
            )
    return found + [
        Question(
            key=Key(row=workload_row(name), metric=name),
            sensitivity=CONTROL_SENSITIVITY,
            primary=False,
            control=True,
        )
        for name in dict.fromkeys(run.control_workloads)
    ]
