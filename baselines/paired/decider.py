"""Feeds the blocks of a paired run to the decision, as they come in or as they were stored: the same either way.

judge = PairedJudge(run)
judge.add(base_block, head_block)     # either order
judge.wanted(), judge.phase           # what is measured next
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Final

from baselines.paired.decision import PairedDecision
from baselines.paired.metrics import PAIRED_METRICS, mean_shift
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.robust import trimmed
from harness.attempts import contended
from harness.paired.paired_run import CONTROL_GROUP, COPY, PairedProcess, PairedRun
from harness.types import Measurement

SENTINEL: Final = "sentinel"
CONTROL_SENSITIVITY: Final = Sensitivity(guarantee=0.025, floor=0.01)


class PairedJudge:
    """The decision on one paired run. `broken`: by row, the arm that failed and why (the row is asked no more)."""

    def __init__(self, run: PairedRun) -> None:
        self.run = run
        self.decision = PairedDecision(_questions(run))
        self.broken: dict[str, tuple[str, str]] = {}
        self.figures: dict[Key, list[tuple[float, float]]] = {}
        self.slots: list[float] = []
        self.drops: dict[str, list[str]] = {}
        self._known = [row.id for row in run.rows]

    @property
    def phase(self) -> str:
        return self.decision.phase

    def wanted(self) -> set[str]:
        return self.decision.wanted() - self.broken.keys()

    def add(self, first: PairedProcess, second: PairedProcess) -> None:
        """One pair of blocks, in the order in which they ran."""
        base, head = (first, second) if first.arm == "base" else (second, first)
        rows = [row for row in self._known if row in base.measurements or row in head.measurements]
        if base.group != CONTROL_GROUP:
            self._sentinels(base, head)
        for row in rows:
            asked = COPY if base.group == CONTROL_GROUP else row
            self._row(asked, base.measurements.get(row), head.measurements.get(row), base_first=base.slot == 0)
        self.decision.advance(min(1.0, max(first.elapsed_s, second.elapsed_s) / self.run.budget_s))

    def _row(self, row: str, base: Measurement | None, head: Measurement | None, *, base_first: bool) -> None:
        """One pair of one row. A side is None where its process ended in another row or waiting for its turn."""
        for arm, measurement in (("base", base), ("head", head)):
            if measurement is None:
                continue
            if measurement.status != "ok":
                self._break(row, arm, f"{measurement.status}: {measurement.reason}")
            elif no_time := _no_time(measurement):
                self._break(row, arm, no_time)
        if row in self.broken:
            if row == COPY:  # both sides of the control are the base arm of its row
                self._break(str(self.run.control), "base", self.broken[row][1])
            return
        if base is None or head is None:
            return
        reason = contended(base) or contended(head)
        if reason is not None:
            self.drops.setdefault(row, []).append(reason)
        shifts = {}
        for asked in PAIRED_METRICS:
            there, here, shift = asked.figure(base), asked.figure(head), asked.shift(base, head)
            if there is None or here is None or shift is None:
                continue
            shifts[asked.metric.name] = shift
            if reason is None:
                self.figures.setdefault(Key(row=row, metric=asked.metric.name), []).append((there, here))
        if reason is None and "latency_s" in shifts:
            self.slots.append(shifts["latency_s"] if base_first else -shifts["latency_s"])
        self.decision.record(row, shifts, reason)

    def _break(self, row: str, arm: str, reason: str) -> None:
        self.broken.setdefault(row, (arm, reason))
        self.decision.abandon(row)

    def _sentinels(self, base: PairedProcess, head: PairedProcess) -> None:
        """The sentinel of both blocks: work that no arm can change, judged as any row."""
        reason = base.sentinel_contended or head.sentinel_contended
        for name in sorted(base.sentinel.keys() & head.sentinel.keys()):
            shift = mean_shift(base.sentinel[name], head.sentinel[name])
            self.decision.record(f"{SENTINEL} {name}", {name: shift}, reason)

    def mean_shift(self) -> tuple[float, float, float] | None:
        """(mean shift of latency over all rows, low, high) at 95 %, + is worse: what moves every row a little.

        Rows of one process share its luck, so the standard errors are added as if they were one.
        """
        found = [q.best() if len(q.best()) >= 8 else q.screened for q in self.decision.questions.values() if q.leads]
        estimates = [trimmed(values) for values in found if len(values) >= 8]
        if not estimates:
            return None
        mean = statistics.fmean(e.mean for e in estimates)
        error = statistics.fmean(e.error for e in estimates)
        return mean, mean - 1.96 * error, mean + 1.96 * error


def _no_time(measurement: Measurement) -> str | None:
    """Why the latency of a block cannot be a time, None where it can."""
    bad = [v for v in measurement.samples.get("latency_s", []) if not (math.isfinite(v) and v > 0)]
    return f"invalid: latency_s holds {bad[0]:g}, which is no duration" if bad else None


class Recorder(PairedJudge):
    """Wants every row until the budget is spent: for recordings of noise, in which no row may leave because of its
    values."""

    @property
    def phase(self) -> str:
        return "record"

    def wanted(self) -> set[str]:
        return {row.id for row in self.run.rows if row.interleaving} - self.broken.keys()


def replayed(run: PairedRun, blocks: Iterable[PairedProcess]) -> PairedJudge:
    """The judge after all stored blocks, exactly as it stood when they were measured."""
    judge = PairedJudge(run)
    waiting: dict[tuple[str, int], PairedProcess] = {}
    for block in blocks:
        key = (block.group, block.pair)
        first = waiting.pop(key, None)
        if first is None:
            waiting[key] = block
        else:
            judge.add(first, block)
    judge.decision.close()
    return judge


def _questions(run: PairedRun) -> list[Question]:
    found = []
    for row in [row.id for row in run.rows if row.interleaving] + ([COPY] if run.control else []):
        for asked in PAIRED_METRICS:
            control = row == COPY
            found.append(
                Question(
                    key=Key(row=row, metric=asked.metric.name),
                    sensitivity=asked.sensitivity,
                    leads=asked.leads and not control,
                    control=control,
                )
            )
    sentinels: Mapping[str, Sensitivity] = dict.fromkeys(run.sentinels, CONTROL_SENSITIVITY)
    return found + [
        Question(key=Key(row=f"{SENTINEL} {n}", metric=n), sensitivity=s, leads=False, control=True)
        for n, s in sentinels.items()
    ]
