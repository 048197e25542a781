"""The speed of each row relative to its group's reference, from the rounds in which both took turns.

In a round, fresh processes of some rows of a group and of the group's reference take turns on the machine, so that
changes of its speed cancel in their ratio. A round gives one log ratio for each row in it. The interval is over rounds,
since the process is the unit of replication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.types import Measurement, Run


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The speed of a row relative to another one: 2.0 if it needs half the time. `low` and `high` are the bounds of the
    95 % interval, None if no spread is known. `rounds` is the number of rounds behind it; `simultaneous` is False if
    the processes of these rounds ran one after the other (ABBA), because they do not fit into memory together."""

    case_id: str
    reference_id: str
    value: float
    low: float | None
    high: float | None
    rounds: int
    simultaneous: bool = True

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval on the log scale; about the relative half-width."""
        raise NotImplementedError

    @property
    def separable(self) -> bool | None:
        """Whether the interval excludes 1; None without an interval."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """All ratios of a run. `of` gives the ratio of each row to its group's reference, by case id (the reference itself
    is absent); `controls` gives the ratio of the second copy of each reference to the reference, by the reference's id
    (its true value is 1)."""

    of: Mapping[str, Ratio]
    controls: Mapping[str, Ratio]

    def between(self, case_id: str, other_id: str) -> Ratio | None:
        """The speed of a row relative to any other row of its group: from the rounds that contain both, if there are at
        least two; otherwise from their ratios to the reference. None if they are of different groups or have no
        rounds."""
        raise NotImplementedError


def ratios(run: Run) -> Ratios:
    """The ratios of a run; empty without rounds."""
    raise NotImplementedError


def log_ratio(row: Measurement, reference: Measurement) -> float | None:
    """ln(seconds of the row / seconds of the reference) of two processes of one round. None if one of them is not ok
    or has no latency."""
    raise NotImplementedError


def rounds_needed(run: Run, case_id: str, half_width: float) -> int:
    """How many further rounds the ratio of a row probably needs until its interval is within ±`half_width`; 0 if it is
    there. With fewer than two rounds it follows from the spread that is known from other rows, or a default."""
    raise NotImplementedError
