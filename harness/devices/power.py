"""The mean power of a device over a stretch of work, from readings that a separate thread takes while the work runs.

Between two iterations a device has just become idle, so it is read while it works. Nothing is timed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from harness.devices.readings import Readings
from harness.timing import perf_counter

SAMPLE_S: Final = 0.02  # between two readings
FEWEST: Final = 3
COVERED: Final = 0.8  # of the stretch, between readings that follow each other


class PowerReadings(Readings[float]):
    """Reads `watts` from the beginning to the end of its `with` block."""

    def __init__(self, watts: Callable[[], float | None], clock: Callable[[], float] = perf_counter) -> None:
        super().__init__(watts, SAMPLE_S, "power", clock)

    def mean_w(self) -> float | str:
        """Watts by trapezoids over the readings, or the reason why there are too few. To be asked after the block. A
        stretch in which the device told nothing is left out, and not bridged."""
        if error := self.error():
            return f"the power could not be read: {error}"
        if not self.readings:
            return "the device tells no power of its own"
        told = len(self.values())
        pieces = [
            (end - start, (before + after) / 2)
            for (start, before), (end, after) in pairwise(self.readings)
            if before is not None and after is not None
        ]
        covered, seconds = sum(length for length, _ in pieces), self._ended - self._began
        if told < FEWEST or covered < COVERED * seconds:
            return f"only {told} power readings, over {covered:.2f} of {seconds:.2f} s"
        return sum(length * watts for length, watts in pieces) / covered
