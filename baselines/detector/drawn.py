"""A resampled run: pairs of processes in order of time, drawn from a recording or from a model of noise.

run = source.draw(generator, pairs=64)  # a ResampledRun
run.slowed({"digits_vit-...": 0.03}).processes("digits_vit-...", 1, 1)  # base and head: arrays of seconds
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from baselines.paired.metrics import TAIL, mean_shift, turn_medians
from harness.stats import percentile_of

LATENCY: Final = "latency_s"
TAIL_LATENCY: Final = "latency_p95_s"

Array = NDArray[np.float64]
Processes = Sequence[Array]


@dataclass(frozen=True, kw_only=True)
class PairSamples:
    """The pairs of one row in order. `shifts` by metric is ln(head / base) of each pair, NaN if the pair is left
    out."""

    numbers: Sequence[int]
    base: Processes
    head: Processes
    shifts: Mapping[str, Array]

    @classmethod
    def of(
        cls,
        *,
        numbers: Sequence[int],
        base: Processes,
        head: Processes,
        turns: Sequence[tuple[int, int]],
        uncontended: NDArray[np.bool_],
        tail: bool,
    ) -> PairSamples:
        """The pairs with shifts that are computed turn by turn. Only with `tail` they have shifts of the 95th
        percentile. `uncontended` says for each pair whether it is kept."""
        latency = [
            mean_shift(turn_medians(a.tolist(), ours), turn_medians(b.tolist(), theirs))
            for a, b, (ours, theirs) in zip(base, head, turns, strict=True)
        ]
        shifts = {LATENCY: np.where(uncontended, np.asarray(latency, dtype=float), np.nan)}
        if tail:
            ratios = [float(percentile_of(b, TAIL) / percentile_of(a, TAIL)) for a, b in zip(base, head, strict=True)]
            shifts[TAIL_LATENCY] = np.where(uncontended, np.log(ratios), np.nan)
        return cls(numbers=numbers, base=base, head=head, shifts=shifts)

    @cached_property
    def position(self) -> dict[int, int]:
        """The position of each pair, by its number."""
        return {number: position for position, number in enumerate(self.numbers)}


@dataclass(frozen=True, kw_only=True)
class ResampledRun:
    """A resampled run. `groups` has the group of each row, and `shifts` are by (row, metric), NaN if a pair is left
    out. `slow` has the share by which the head of a row is slower."""

    groups: Mapping[str, str]
    shifts: Mapping[tuple[str, str], Array]
    base: Mapping[str, Processes]
    head: Mapping[str, Processes]
    slow: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        return list(self.groups)

    def slowed(self, rows: Mapping[str, float]) -> ResampledRun:
        """The same run, in which the head's times of each of `rows` are multiplied by 1 + its share."""
        shifts = {key: values + math.log1p(rows.get(key[0], 0.0)) for key, values in self.shifts.items()}
        return ResampledRun(groups=self.groups, shifts=shifts, base=self.base, head=self.head, slow=rows)

    def processes(self, row: str, base: int, head: int) -> tuple[list[Array], list[Array]]:
        """The processes of a tool that measures first all of the base and then all of the head: up to `base` processes
        of consecutive pairs, then up to `head` processes of the following pairs."""
        pairs = min(len(self.base[row]), len(self.head[row]))
        base = min(base, pairs - 1)
        head = min(head, pairs - base)
        factor = 1.0 + self.slow.get(row, 0.0)
        return list(self.base[row][:base]), [factor * s for s in self.head[row][base : base + head]]


class Source(Protocol):
    """A source of runs: a recording, or a model of noise."""

    def draw(self, generator: np.random.Generator, pairs: int = 128) -> ResampledRun: ...


def segments(generator: np.random.Generator, numbers: Sequence[int], count: int, length: int) -> list[int]:
    """`count` of `numbers`, in segments of `length` consecutive numbers with random starts.

    The last number is followed by the first one, so that each number is drawn equally often.
    """
    starts = generator.integers(0, len(numbers), -(-count // length))
    return [numbers[(start + step) % len(numbers)] for start in starts for step in range(length)][:count]


def run_of_pairs(
    pairs: Mapping[str, PairSamples], groups: Mapping[str, str], chosen: Mapping[str, Sequence[int]], *, flipped: bool
) -> ResampledRun:
    """The run that consists of the `chosen` pair numbers of each group. `flipped` exchanges the arms."""
    shifts: dict[tuple[str, str], Array] = {}
    base: dict[str, Processes] = {}
    head: dict[str, Processes] = {}
    for row, found in pairs.items():
        positions = [found.position[n] for n in chosen[groups[row]]]
        for metric, values in found.shifts.items():
            shifts[(row, metric)] = -values[positions] if flipped else values[positions]
        arms = [found.base[p] for p in positions], [found.head[p] for p in positions]
        base[row], head[row] = arms[::-1] if flipped else arms
    return ResampledRun(groups=groups, shifts=shifts, base=base, head=head)
