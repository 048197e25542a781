"""The mean power of a device over a stretch of work, from readings that a separate thread takes while the work runs.

Between two iterations the device is idle, so its power is read during the work. Nothing is timed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from harness.devices.readings import Readings
from harness.reasons import Reason
from harness.timing import perf_counter

SAMPLE_S: Final = 0.02  # between two readings
FEWEST: Final = 3
COVERED: Final = 0.8  # share of the work that consecutive readings must cover


class PowerReadings(Readings[float]):
    """Reads `watts` from the beginning to the end of its `with` block."""

    def __init__(self, watts: Callable[[], float | None], clock: Callable[[], float] = perf_counter) -> None:
        super().__init__(watts, SAMPLE_S, "power", clock)

    def mean_w(self) -> float | Reason:
        """The mean watts by the trapezoidal rule, or the reason why there are too few readings. Call it after the
        block. A gap in which the device reported nothing is left out and not interpolated."""
        if error := self.error():
            return Reason("power_not_read", {"error": error})
        if not self.readings:
            return Reason("power_not_reported")
        told = len(self.values())
        pieces = [
            (end - start, (before + after) / 2)
            for (start, before), (end, after) in pairwise(self.readings)
            if before is not None and after is not None
        ]
        covered, seconds = sum(length for length, _ in pieces), self._ended - self._began
        if told < FEWEST or covered < COVERED * seconds:
            return Reason("power_readings_few", {"count": told, "covered_s": covered, "seconds": seconds})
        return sum(length * watts for length, watts in pieces) / covered
