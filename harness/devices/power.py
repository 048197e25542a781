"""The mean power of a device over a stretch of work, from readings that a thread of its own takes while the work runs.

Read between two iterations, a device has just become idle: the thread reads it while it works. A reading takes
microseconds and lets go of Python's lock, and no time is measured meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Final

from harness.timing import perf_counter

SAMPLE_S: Final = 0.02  # between two readings
FEWEST: Final = 3
COVERED: Final = 0.8  # of the stretch, between readings that follow each other


class PowerReadings:
    """Reads `watts` from `with` to the end of its block; the thread has ended when the block is left, however."""

    def __init__(self, watts: Callable[[], float | None], clock: Callable[[], float] = perf_counter) -> None:
        self._watts = watts
        self._clock = clock
        self._over = threading.Event()
        self.readings: list[tuple[float, float | None]] = []  # None: asked, and not told

    def __enter__(self) -> PowerReadings:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="power")
        self._began = self._clock()
        self._thread = self._pool.submit(self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = self._clock()
        self._over.set()
        self._pool.shutdown(wait=True)

    def mean_w(self) -> float | str:
        """Watts by trapezoids over the readings, or the reason why there are too few. To be asked after the block. A
        stretch in which the device told nothing is left out, and not bridged."""
        if error := self._thread.exception():
            return f"the power could not be read: {type(error).__name__}: {error}"
        if not self.readings:
            return "the device tells no power of its own"
        told = sum(watts is not None for _, watts in self.readings)
        pieces = [
            (end - start, (before + after) / 2)
            for (start, before), (end, after) in pairwise(self.readings)
            if before is not None and after is not None
        ]
        covered, seconds = sum(length for length, _ in pieces), self._ended - self._began
        if told < FEWEST or covered < COVERED * seconds:
            return f"only {told} power readings, over {covered:.2f} of {seconds:.2f} s"
        return sum(length * watts for length, watts in pieces) / covered

    def _read(self) -> None:
        """Until the block is left. A device without a reading is not asked again and again."""
        while True:
            watts = self._watts()
            if watts is None and not self.readings:
                return
            self.readings.append((self._clock(), watts))
            if self._over.wait(SAMPLE_S):
                return
