"""The processes that a sweep plans, and an estimate of the seconds that the remaining ones take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.types import Case, Measurement

LATER_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class PlannedProcess:
    case: Case
    replicate: int


class RemainingTime:
    """Remaining seconds, from the processes measured so far. A case not measured yet counts as the mean of the others.

    A later process of a case is shorter than its first, which also measures the quality. Until one was measured, it
    counts as `LATER_SHARE` of the first.
    """

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._first: dict[str, float] = {}
        self._later: dict[str, float] = {}
        for measurement in measurements:
            self.add(measurement)

    def add(self, measurement: Measurement) -> None:
        if measurement.duration_s is not None:
            known = self._later if measurement.replicate else self._first
            known[measurement.case.id] = measurement.duration_s

    def seconds(self, left: Sequence[PlannedProcess], settled: set[str]) -> float | None:
        """None before the first measurement."""
        if not self._first:
            return None
        mean = sum(self._first.values()) / len(self._first)
        both = [case for case in self._later if case in self._first]
        share = sum(self._later[c] for c in both) / sum(self._first[c] for c in both) if both else LATER_SHARE
        total = 0.0
        for process in left:
            first = self._first.get(process.case.id, mean)
            later = self._later.get(process.case.id, first * share)
            total += 0.0 if process.case.id in settled else later if process.replicate else first
        return total
