"""Rows whose fresh processes run at one of two stable speeds, 14 to 32 % apart, as the rounds of a run show them.

Where a process has its memory, and which kernels it chooses, may decide once for its whole life how fast it is. A row
with such levels has a median that depends on how many of its processes were slow.

The processes of a round have the machine's speed in common, which is removed first: from the log median of each process
the median of the other players of its round is subtracted (rows, reference, copy of the reference), each relative to
its own centre. The processes of a row are then split into two clusters where the distances to the medians of the
clusters are smallest. These are two levels if their medians are at least APART apart, each has at least FEWEST_EACH
processes and SMALLEST_SHARE of all, and all but STRAY of the processes of each lie within TIGHT of the gap around their
median. A few outlying processes are not as close to each other.

If the reference has the levels, all rows of a round seem to shift together. So the rows of a group compete: that row
counts whose levels explain the speeds of the whole group best, if it meets the rule; its levels are then removed, and
the others are tested again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.comparison_groups import groups
from harness.ratios import Player, Round, rounds_of
from harness.stats import wilson
from harness.types import Run

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

FEWEST: Final = 6
FEWEST_EACH: Final = 3
SMALLEST_SHARE: Final = 0.2
APART: Final = 0.10
TIGHT: Final = 0.2
STRAY: Final = 0.2
SWEEPS: Final = 8  # of the median polish (Tukey 1977, Exploratory Data Analysis, chapter 11)
SMALLEST: Final = 0.003  # residual that is told from 0


@dataclass(frozen=True, kw_only=True)
class SpeedLevels:
    """The two speeds of a row. `fast_s` and `slow_s` are the medians of the processes at either level, in seconds per
    iteration, at the median speed of the machine during the rounds. `share` is that of the slow ones among `processes`,
    with its 95 % Wilson interval."""

    case_id: str
    processes: int
    slow: int
    fast_s: float
    slow_s: float

    @property
    def share(self) -> float:
        return self.slow / self.processes

    @property
    def share_interval(self) -> tuple[float, float]:
        return wilson(self.slow, self.processes)


def speed_levels(run: Run) -> dict[str, SpeedLevels]:
    """The rows of a run that have two levels, by case id. Contended processes do not count."""
    rounds = rounds_of(run)
    played = {case_id for round_ in rounds.values() for case_id in round_.rows}
    found: dict[str, SpeedLevels] = {}
    for group in groups(run.cases, played):
        found |= _Group.of(rounds, [case.id for case in group.cases], group.id).levels()
    return found


@dataclass(frozen=True, kw_only=True)
class _Shift:
    """What the slower cluster adds to the log of each process of a row, (player, round), and whether the two clusters
    are levels."""

    shift: Array
    levels: bool


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Log medians of the players of a group, (player, round), nan where one did not take part. `cases` names the row of
    each player; the reference and its copy are two players of one row."""

    cases: tuple[str, ...]
    logs: Array

    @classmethod
    def of(cls, rounds: Mapping[int, Round], case_ids: list[str], reference: str) -> _Group:
        of_rows = [(case_id, [r.rows.get(case_id) for r in rounds.values()]) for case_id in case_ids]
        players = [*of_rows, (reference, [r.copies.get(reference) for r in rounds.values()])]
        players = [(case_id, several) for case_id, several in players if any(several)]
        logs = np.array([[_log_s(player) for player in several] for _, several in players])
        took_part = ~np.isnan(logs).all(axis=0)
        return cls(cases=tuple(case_id for case_id, _ in players), logs=logs[:, took_part])

    def levels(self) -> dict[str, SpeedLevels]:
        """The rows with two levels."""
        shifts: dict[str, Array] = {}
        tested = sorted({case_id for case_id in self.cases if self._attributable(case_id)})
        while True:
            logs = self._without(shifts)
            found = {case_id: self._shift(case_id, logs) for case_id in tested if case_id not in shifts}
            supposed = {case_id: shifted for case_id, shifted in found.items() if shifted is not None}
            if not any(shifted.levels for shifted in supposed.values()):
                break
            best = max(supposed, key=lambda case_id: self._score(shifts | {case_id: supposed[case_id].shift}))
            if not supposed[best].levels:
                break
            shifts[best] = supposed[best].shift
        described = {}
        for case_id in shifts:  # each again, without the levels of all others
            others = {name: shift for name, shift in shifts.items() if name != case_id}
            again = self._shift(case_id, self._without(others))
            if again is not None and again.levels:
                described[case_id] = self._described(case_id, again.shift, others)
        return described

    def _attributable(self, case_id: str) -> bool:
        """Whether it can be told from another row's: with two players in all, either may have the levels."""
        return len(self.cases) > 2 and len(set(self.cases)) > 1 and case_id in self.cases

    def _without(self, shifts: Mapping[str, Array]) -> Array:
        """The log medians without the given shifts, (player of the row, round)."""
        logs = self.logs.copy()
        for case_id, shift in shifts.items():
            logs[self._players(case_id)] -= shift
        return logs

    def _players(self, case_id: str) -> list[int]:
        return [i for i, name in enumerate(self.cases) if name == case_id]

    def _shift(self, case_id: str, logs: Array) -> _Shift | None:
        """The split of the processes of the row; None with fewer than FEWEST, or if it is that of another row."""
        relative = _relative(logs, self._players(case_id))
        there = ~np.isnan(relative)
        values = relative[there]
        if len(values) < FEWEST:
            return None
        slow = split(values)
        if not _independent(there, slow):
            return None
        shift = np.zeros_like(relative)
        shift[there] = np.where(slow, np.median(values[slow]) - np.median(values[~slow]), 0.0)
        return _Shift(shift=shift, levels=two_levels(values, slow))

    def _score(self, shifts: Mapping[str, Array]) -> float:
        """The log likelihood of the group with these shifts: residuals of a Laplace distribution whose scale is their
        mean, and for each row the probability of its sequence of levels, whatever the share."""
        logs = self._without(shifts)
        centres, speeds = polished(logs)
        residuals = np.abs(logs - centres[:, None] - speeds)
        score = -np.count_nonzero(~np.isnan(residuals)) * math.log(max(float(np.nanmean(residuals)), SMALLEST))
        for case_id, shift in shifts.items():
            count = np.count_nonzero(~np.isnan(self.logs[self._players(case_id)]))
            slow = np.count_nonzero(shift)
            score += math.lgamma(slow + 1) + math.lgamma(count - slow + 1) - math.lgamma(count + 2)
        return score

    def _described(self, case_id: str, shift: Array, others: Mapping[str, Array]) -> SpeedLevels:
        _, speeds = polished(self._without({**others, case_id: shift}))
        logs = self.logs[self._players(case_id)] - speeds
        there = ~np.isnan(logs)
        slow = there & (shift > 0)
        return SpeedLevels(
            case_id=case_id,
            processes=int(there.sum()),
            slow=int(slow.sum()),
            fast_s=math.exp(float(np.median(logs[there & ~slow]))),
            slow_s=math.exp(float(np.median(logs[slow]))),
        )


def _log_s(player: Player | None) -> float:
    return player.log_s if player is not None and player.quiet else math.nan


def polished(logs: Array) -> tuple[Array, Array]:
    """(centre of each player, speed of each round) of log medians (player, round), by median polish. The median of the
    speeds is 0; nan where a player or a round has no value."""
    speeds = np.zeros(logs.shape[1])
    for _ in range(SWEEPS):
        centres = _median(logs - speeds, axis=1)
        speeds = _median(logs - centres[:, None], axis=0)
        speeds -= _median(speeds, axis=0)
    return _median(logs - speeds, axis=1), speeds


def _median(values: Array, axis: int) -> Array:
    """The median of the values that are there; nan where there is none."""
    ordered = np.sort(values, axis=axis)  # nan comes last
    counts = np.count_nonzero(~np.isnan(values), axis=axis, keepdims=True)
    places = np.concatenate(
        [np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, values.shape[axis] - 1)], axis=axis
    )
    return np.asarray(np.take_along_axis(ordered, places, axis=axis).mean(axis=axis))


def _relative(logs: Array, own: list[int]) -> Array:
    """(player of the row, round): the log medians of the row relative to the other players of each round."""
    others = np.delete(logs, own, axis=0)
    centres, _ = polished(logs)
    speeds = _median(others - np.delete(centres, own)[:, None], axis=0)
    return np.asarray(logs[own] - speeds)


def _independent(there: Flags, slow: Flags) -> bool:
    """Whether the reference and its copy, (player, round), are slow independently of each other. If they always are
    together, the levels are those of the row that they are compared with. With the share p of slow processes, 2p(1 - p)
    of the rounds have one of each."""
    levels = np.zeros(there.shape)
    levels[there] = slow
    both = levels[:, there.all(axis=0)]
    if len(both) < 2 or not both.size:
        return True
    share = float(both.mean())
    return float(np.mean(both[0] != both[1])) >= share * (1 - share)


def split(values: Array) -> Flags:
    """Which of at least FEWEST values are in the upper one of two clusters, each of at least FEWEST_EACH values and
    SMALLEST_SHARE of all: the split with the smallest sum of distances to the medians of the clusters."""
    order = np.argsort(values)
    ordered = values[order]
    least = max(FEWEST_EACH, math.ceil(SMALLEST_SHARE * len(values)))
    places = range(least, len(values) - least + 1)
    first = min(places, key=lambda k: _distances(ordered[:k]) + _distances(ordered[k:]))
    slow = np.zeros(len(values), dtype=bool)
    slow[order[first:]] = True
    return slow


def two_levels(values: Array, slow: Flags) -> bool:
    """Whether the two clusters of values (log seconds of processes) are levels: far apart, and tight."""
    fast, upper = values[~slow], values[slow]
    gap = float(np.median(upper) - np.median(fast))
    if gap < math.log1p(APART):
        return False
    near = [np.abs(cluster - np.median(cluster)) <= TIGHT * gap for cluster in (fast, upper)]
    return all(n.sum() >= max(FEWEST_EACH, (1 - STRAY) * len(n)) for n in near)


def _distances(values: Array) -> float:
    return float(np.abs(values - np.median(values)).sum())
