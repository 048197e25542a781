"""Plans the turns of each row of a pair, and estimates the seconds that a pair takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness.measuring.turns import Interleaving
from harness.paired.paired_run import PairedProcess, PairedRow
from harness.types import Measurement

TURN_S: Final = 0.03
MAX_TURN_SAMPLES: Final = 12
MIN_TURNS, MAX_TURNS = 6, 10
LONG_S: Final = 0.15  # a longer iteration has fewer turns: its processes differ by more than the noise of the turns
MIN_LONG_TURNS: Final = 4
SAMPLE_S: Final = 0.3
WARM_UP_S: Final = 0.05
MIN_WARM_UPS: Final = 1  # the first call has already warmed up
STARTS: Final = ("load_s", "build_cached_s", "capture_s", "first_call_s")  # of a process whose build is in the cache


class PairDuration:
    """Estimates the seconds of a pair: those of its rows, and those that its processes take outside the rows."""

    def __init__(self) -> None:
        self._rows: dict[str, float] = {}
        self._overhead: dict[str, float] = {}

    def expect(self, row: str, seconds: float) -> None:
        """Sets the expected seconds of a row that no pair has measured yet."""
        self._rows.setdefault(row, seconds)

    def add(self, group: str, seconds: float, processes: Sequence[PairedProcess]) -> None:
        rows: dict[str, float] = {}
        for process in processes:
            for row, measurement in process.measurements.items():
                rows[row] = max(rows.get(row, 0.0), measurement.duration_s or 0.0)
        self._rows |= rows
        self._overhead[group] = max(0.0, seconds - sum(rows.values()))

    def seconds(self, group: str, rows: Sequence[str]) -> float:
        """The seconds of the last pair. A row or a group that was never measured counts as the longest other one."""
        longest, overhead = max(self._rows.values(), default=1.0), max(self._overhead.values(), default=1.0)
        return self._overhead.get(group, overhead) + sum(self._rows.get(row, longest) for row in rows)


def interleaved(row: PairedRow, latency_s: float, loops: int = 1) -> PairedRow:
    """The row with its turns and counts, which are equal in both arms. They are computed from one latency of the base
    arm and from the number of iterations in its sample."""
    return replace(row, interleaving=interleaving(latency_s, loops))


def interleaving(latency_s: float, loops: int = 1) -> Interleaving:
    """The turns and counts of a row with this latency and this number of iterations in a sample.

    A turn is short enough for the machine's speed to stay about the same (`harness.measuring.turns`), but it has at
    least one sample.
    """
    sample_s = latency_s * loops
    samples = min(max(round(TURN_S / sample_s), 1), MAX_TURN_SAMPLES)
    fewest = MIN_LONG_TURNS if latency_s > LONG_S else MIN_TURNS
    turns = min(max(math.ceil(SAMPLE_S / (samples * sample_s)), fewest), MAX_TURNS)
    warmups = max(MIN_WARM_UPS, math.ceil(WARM_UP_S / latency_s))
    return Interleaving(
        warmups=warmups, turns=turns + turns % 2, samples=samples, discarded=1 if latency_s < TURN_S / 2 else 0
    )


def seconds_in_pair(measurement: Measurement, counts: Interleaving) -> float:
    """Seconds of one row in one process (start-up, warm-up and all turns), estimated from its preflight."""
    latency = statistics.median(measurement.samples["latency_s"])
    starts = math.fsum(v for name in STARTS for v in measurement.samples.get(name, []))
    samples = counts.samples * int(measurement.facts.get("loops", 1))
    return starts + latency * (counts.warmups + counts.turns * (counts.discarded + samples))
