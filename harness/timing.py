"""The only code that reads a clock. It is the host's wall clock, with the device synchronised before and after.

On a GPU, iterations with flushed caches (`Timer.cold_seconds`) are timed by the GPU's own clock instead.

All code that measures time receives a `Timer`. A test gives that timer a `FakeClock` and gets exact numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


def perf_counter() -> float:
    """Seconds of the monotonic clock; only differences are meaningful."""
    return time.perf_counter()


class DeviceClock(Protocol):
    """The device's own clock: marks in its queue, read once it is idle (`harness.devices.Stopwatch`)."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def seconds(self) -> float: ...


class Timer:
    """Times calls on one device: `timer.seconds(fn)`; `timer.last` keeps what the call returned. `last_device_s` is the
    seconds of a call by the device's own clock, where it has one. `last_whole_s` is the seconds of a cold call with its
    flush."""

    def __init__(
        self,
        synchronize: Callable[[], None],
        clock: Callable[[], float] = perf_counter,
        device_clock: DeviceClock | None = None,
    ) -> None:
        self.synchronize = synchronize
        self.clock = clock
        self.last: object = None
        self.last_device_s: float | None = None
        self.last_whole_s = 0.0
        self._device_clock = device_clock

    def seconds(self, call: Callable[[], object], repeat: int = 1) -> float:
        """Seconds of one call: `repeat` calls between two synchronisations, divided by `repeat`."""
        watch = self._device_clock
        self.synchronize()
        start = self.clock()
        if watch is not None:
            watch.start()
        for _ in range(repeat):
            self.last = call()
        if watch is not None:
            watch.stop()
        self.synchronize()
        spent = self.clock() - start
        self.last_device_s = None if watch is None else watch.seconds() / repeat
        return spent / repeat

    def cold_seconds(self, call: Callable[[], object], flush: Callable[[], None]) -> float:
        """Seconds of one call after `flush`, without the time of the flush.

        On a device with a clock of its own, this is the time between two marks around the call. `flush` is queued
        before the first mark, and the host does not wait for it. The device therefore reaches the call with its kernels
        queued, as it does in a series of calls. The overhead of launches shows only where launching takes longer than
        the flush (about 0.1 ms). On other devices the host's clock is used, after a synchronisation.
        triton.testing.do_bench uses the same method.
        """
        watch = self._device_clock
        self.synchronize()
        start = begun = self.clock()
        flush()
        if watch is None:
            self.synchronize()
            start = self.clock()
        else:
            watch.start()
        self.last = call()
        if watch is not None:
            watch.stop()
        self.synchronize()
        ended = self.clock()
        self.last_whole_s = ended - begun
        return ended - start if watch is None else watch.seconds()

    def timed(self, call: Callable[[], T]) -> tuple[T, float]:
        """What `call` returns, and the seconds it took."""
        self.synchronize()
        start = self.clock()
        result = call()
        self.synchronize()
        return result, self.clock() - start

    def now(self) -> float:
        """The time after all work queued on the device so far is done."""
        self.synchronize()
        return self.clock()


class FakeClock:
    """A clock that plays given durations: each pair of readings is the next one apart. For tests and replays.

    >>> timer = Timer(lambda: None, FakeClock([0.010, 0.011]))
    >>> round(timer.seconds(lambda: None), 6), round(timer.seconds(lambda: None), 6)
    (0.01, 0.011)
    """

    def __init__(self, durations: list[float]) -> None:
        self._durations = iter(durations)
        self._time = 0.0
        self._started = False

    def __call__(self) -> float:
        if self._started:
            self._time += next(self._durations)
        self._started = not self._started
        return self._time
