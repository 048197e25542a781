"""Readings of a sensor that a separate thread takes while work runs. The thread has ended when its block is left.

A reading releases Python's global interpreter lock while it is inside the driver's library. Its Python part, some tens
of microseconds, can delay a thread that launches work. Readings beside timed work are therefore rare.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from harness.timing import perf_counter

T = TypeVar("T")


class Readings(Generic[T]):
    """Calls `read` at once and then every `period_s` seconds until the end of its `with` block. `readings` holds
    (seconds on `clock`, value); the value is None where the device did not report one. A device whose first value is
    None is not read again."""

    def __init__(
        self, read: Callable[[], T | None], period_s: float, name: str, clock: Callable[[], float] = perf_counter
    ) -> None:
        self.readings: list[tuple[float, T | None]] = []
        self._read = read
        self._period_s = period_s
        self._name = name
        self._clock = clock
        self._over = threading.Event()
        self._thread: Future[None] | None = None

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        self._began = self._clock()
        self._thread = self._pool.submit(self._go_on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = self._clock()
        self._over.set()
        self._pool.shutdown(wait=True)

    def take(self) -> T | None:
        """Takes one reading, in the thread of the caller."""
        value = self._read()
        if value is not None or self.readings:
            self.readings.append((self._clock(), value))
        return value

    def error(self) -> str | None:
        """What a reading in the thread raised, which ended the readings; None if none raised. Call it after the
        block."""
        error = None if self._thread is None else self._thread.exception()
        return None if error is None else f"{type(error).__name__}: {error}"

    def values(self) -> list[T]:
        """The values that the device reported."""
        return [value for _, value in self.readings if value is not None]

    def _go_on(self) -> None:
        while True:
            value = self.take()
            if (value is None and not self.readings) or self._over.wait(self._period_s):
                return
