"""What a device's sensors report while the latency samples are taken: clocks, power, temperature, and what holds the
clocks down.

After the samples a GPU becomes idle within milliseconds, so a reading then does not describe the samples. No reading
lengthens a short sample: where a sample takes less than PERIOD_S, the measuring thread reads between two samples,
outside the timed spans and at most every PERIOD_S. The device has then been idle for less time than its sensors
resolve. Where a sample takes longer, a separate thread reads during it. Such a reading can delay the thread that
launches work only while it holds Python's global interpreter lock: 0.02 ms in 100 ms or more, measured over a stub of
NVML on a CPU. How long a reading takes with a real driver is stored in each row (`reading_s`) and is not yet known.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from harness.devices.readings import Readings
from harness.timing import perf_counter

PERIOD_S: Final = 0.1  # between two readings; the drivers' own counters of throttling move no faster
FIGURES: Final = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c")
HELD_DOWN: Final = "throttled_by"
TOOK: Final = "reading_s"

Reading = dict[str, Any]


class Watch:
    """Reads a device's sensors (`Device.sensors`) from `begin` to the end of its `with` block. It does nothing without
    them.

    `after_sample(seconds)` is called after every sample, those of the warm-up included. The duration of the last one
    before `begin` decides which thread reads.
    """

    def __init__(
        self,
        sensors: Callable[[], Reading] | None,
        clock: Callable[[], float] = perf_counter,
        period_s: float = PERIOD_S,
    ) -> None:
        self._sensors = sensors
        self._clock = clock
        self._period_s = period_s
        self._readings: Readings[Reading] = Readings(self._timed, period_s, "sensors", clock)
        self._sample_s = 0.0
        self._begun = self._threaded = False
        self._last = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threaded:
            self._readings.__exit__(kind, error, trace)
        self._begun = False

    def begin(self, *, alone: bool) -> None:
        """`alone`: no other process takes turns with this one, so a thread reads this one's samples only."""
        if self._sensors is None:
            return
        self._begun = True
        self._threaded = alone and self._sample_s >= self._period_s
        if self._threaded:
            self._readings.__enter__()

    def after_sample(self, seconds: float) -> None:
        """`seconds` is how long the whole sample took."""
        self._sample_s = seconds
        if self._begun and not self._threaded and self._clock() - self._last >= self._period_s:
            self._readings.take()
            self._last = self._clock()

    def summary(self) -> dict[str, Any]:
        """The number of readings; {"min", "median", "max"} of each figure (None where the device never reported it);
        the share of the readings in which each reason held the clocks down; and the median seconds of a reading.
        Without sensors it is empty. Call it after the block."""
        if self._sensors is None:
            return {}
        found = self._readings.values()
        return {
            "readings": len(found),
            "read": "during the samples" if self._threaded else "between the samples",
            **{name: _spread([r[name] for r in found if r.get(name) is not None]) for name in FIGURES},
            "held_down": _shares([r[HELD_DOWN] for r in found if r.get(HELD_DOWN) is not None]),
            TOOK: statistics.median(r[TOOK] for r in found) if found else None,
            **({} if (error := self._readings.error()) is None else {"error": error}),
        }

    def _timed(self) -> Reading:
        assert self._sensors is not None
        start = self._clock()
        found = self._sensors()
        return {**found, TOOK: self._clock() - start}


def beside(gpu: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The GPU's state with what was read during the samples in the place of what was read after them."""
    if not summary:
        return dict(gpu)
    return {**{name: value for name, value in gpu.items() if name not in FIGURES}, "during": dict(summary)}


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _shares(told: list[list[str]]) -> dict[str, float] | None:
    """Reason -> share of the readings that gave it; None where the device never reported reasons, not even an empty
    list."""
    if not told:
        return None
    reasons = dict.fromkeys(reason for reasons in told for reason in reasons)
    return {reason: sum(reason in reasons for reasons in told) / len(told) for reason in reasons}
