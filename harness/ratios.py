"""The speed of each row relative to its group's reference, from the rounds in which both took turns.

In a round, fresh processes of some rows of a group and of the group's reference take turns on the machine, so that
changes of its speed cancel in their ratio. A round gives one log ratio for each row in it: the trimmed mean over the
turns of the difference of log medians. Where a second copy of the reference took part, a row is compared with the mean
of both: the reference has the noise of a process as well. If the two differ by more than APART, one of them is
outlying, and the round counts for little (`harness.moderated`).

The interval is over rounds, since the process is the unit of replication. All rows and the controls of a run determine
together how much processes differ; so an interval exists from the first round on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from harness.attempts import contended
from harness.comparison_groups import groups
from harness.moderated import SUPPOSED, Estimate, Series, Spread, Value, moderated, normal_scores
from harness.types import Measurement, Run

LATENCY: Final = "latency_s"
TURN_TRIM: Final = 0.25  # of four turns two remain: a burst of other work lasts for one turn of each process
FEWEST_TURNS: Final = 4  # of a trimmed mean
APART: Final = 0.08  # of the log: two processes of the same code that differ by more are no normal noise
OUTLYING: Final = 0.03  # the probability that a process is outlying
OUTLYING_PAIR: Final = 0.06  # that one of two is
OUTLYING_APART: Final = 0.5  # that a process is, if it and another one of the same code are apart
FEWEST_ROUNDS: Final = 2  # that remain where contended ones are left out
MOST_ROUNDS: Final = 64  # that are planned for one row


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
        if self.low is None or self.high is None:
            return None
        return (math.log(self.high) - math.log(self.low)) / 2

    @property
    def separable(self) -> bool | None:
        """Whether the interval excludes 1; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return not self.low <= 1.0 <= self.high


@dataclass(frozen=True, kw_only=True)
class Player:
    """The processes of a row, or of the copy of a reference, in one round: one of them, or two where the processes of
    the round ran one after the other. `turns` are the log medians of its turns, None where it has not several
    turns of equal length."""

    measurements: tuple[Measurement, ...]
    log_s: float
    turns: tuple[float, ...] | None

    @cached_property
    def quiet(self) -> bool:
        """Whether no process was contended, by what the kernel and the driver counted."""
        return not any(map(contended, self.measurements))


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The log ratio of the seconds of two players in a round: `value` for the posterior, whether the round was quiet,
    and whether the processes took turns."""

    value: Value
    quiet: bool
    simultaneous: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """The players of a round: rows by case id, and copies by the id of their reference."""

    rows: Mapping[str, Player]
    copies: Mapping[str, Player]

    def contrast(self, case_id: str, reference: str) -> Contrast | None:
        """That of a row and its reference; None if one of them has no valid process in this round."""
        if case_id not in self.rows or reference not in self.rows:
            return None
        copy = self.control(reference)
        if copy is None or not copy.quiet:
            return contrast(self.rows[case_id], self.rows[reference], outlying=OUTLYING_PAIR)
        if abs(copy.value.value) > APART:
            return contrast(self.rows[case_id], self.rows[reference], outlying=OUTLYING_APART)
        return contrast(self.rows[case_id], self.rows[reference], self.copies[reference], outlying=OUTLYING)

    def control(self, reference: str) -> Contrast | None:
        """That of the copy of a reference and the reference; None if the round has no valid process of one of them."""
        if reference not in self._controls:
            both = reference in self.rows and reference in self.copies
            self._controls[reference] = contrast(self.copies[reference], self.rows[reference]) if both else None
        return self._controls[reference]

    @cached_property
    def _controls(self) -> dict[str, Contrast | None]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """All ratios of a run. `of` gives the ratio of each row to its group's reference, by case id (the reference itself
    is absent); `controls` gives the ratio of the second copy of each reference to the reference, by the reference's id
    (its true value is 1). `spread` is how much processes differ, as all rounds show it, None without any; `rounds` are
    those that `between` reads."""

    of: Mapping[str, Ratio]
    controls: Mapping[str, Ratio]
    spread: Spread | None = None
    rounds: Mapping[int, Round] = field(default_factory=dict, repr=False)

    def between(self, case_id: str, other_id: str) -> Ratio | None:
        """The speed of a row relative to any other row of its group: from the rounds that contain both, if there are at
        least two; otherwise from their ratios to the reference. None if they are of different groups or have no
        rounds."""
        row, other = self.of.get(case_id), self.of.get(other_id)
        if row is not None and row.reference_id == other_id:
            return row
        if other is not None and other.reference_id == case_id:
            return _inverse(other)
        if row is None or other is None or row.reference_id != other.reference_id or case_id == other_id:
            return None
        shared = _kept(
            contrast(round_.rows[case_id], round_.rows[other_id])
            for round_ in self.rounds.values()
            if case_id in round_.rows and other_id in round_.rows
        )
        if len(shared) < FEWEST_ROUNDS or self.spread is None:
            return _chained(row, other)
        (estimate,) = self.spread.estimates([_series(shared)])
        return _ratio(case_id, other_id, shared, estimate)

    def rounds_needed(self, case_id: str, reference_id: str, half_width: float) -> int:
        """How many further rounds the ratio probably needs until its interval is within ±`half_width` (of the log, at
        most MOST_ROUNDS); 0 if it is there. It supposes that the next values spread as much as those of the row up to
        now, or without any as those of the other rows."""
        spread = self.spread or SUPPOSED
        contrasts = _of_row(self.rounds, case_id, reference_id)
        series = _series(contrasts)
        estimate = spread.estimates([series])[0] if series else None
        if estimate is not None and self.spread is not None and estimate.half_width <= half_width:
            return 0
        deviation = estimate.deviation if estimate else spread.deviation
        centre = estimate.centre if estimate else 0.0
        error = series[0].error if series else 0.0
        processes = series[0].processes if series else 2.0

        def enough(further: int) -> bool:
            planned = normal_scores(further, processes, error, deviation, OUTLYING)
            expected = [
                Value(value=v.value + centre, processes=processes, error=error, outlying=v.outlying) for v in planned
            ]
            return spread.estimates([[*series, *expected]])[0].half_width <= half_width

        low, high = 0, 1
        while not enough(high):
            if high >= MOST_ROUNDS:
                return MOST_ROUNDS
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def ratios(run: Run) -> Ratios:
    """The ratios of a run; empty without rounds."""
    rounds = rounds_of(run)
    references = _references(run)
    rows = {
        case_id: (reference, _of_row(rounds, case_id, reference))
        for case_id, reference in references.items()
        if case_id != reference
    }
    rows = {case_id: (reference, contrasts) for case_id, (reference, contrasts) in rows.items() if contrasts}
    controls = {
        reference: contrasts
        for reference in dict.fromkeys(references.values())
        if (contrasts := _kept(round_.control(reference) for round_ in rounds.values()))
    }
    around_zero = [_series(contrasts) for contrasts in controls.values()]
    series = [*(_series(contrasts) for _, contrasts in rows.values()), *around_zero]
    estimates, spread = moderated(series, around_zero)
    known = bool(controls) or any(len(one) > 1 or one[0].error > 0 for one in series)
    return Ratios(
        of={
            case_id: _ratio(case_id, reference, contrasts, estimate, known=known)
            for (case_id, (reference, contrasts)), estimate in zip(rows.items(), estimates, strict=False)
        },
        controls={
            reference: _ratio(reference, reference, contrasts, estimate, known=known)
            for (reference, contrasts), estimate in zip(controls.items(), estimates[len(rows) :], strict=True)
        },
        spread=spread if known else None,
        rounds=rounds,
    )


def rounds_needed(run: Run, case_id: str, half_width: float) -> int:
    """How many further rounds the ratio of a row probably needs until its interval is within ±`half_width`; 0 if it is
    there. With fewer than two rounds it follows from the spread that is known from other rows, or a default. Who asks
    for several rows computes the ratios once (`Ratios.rounds_needed`). Raises KeyError for a row that is not valid."""
    return ratios(run).rounds_needed(case_id, _references(run)[case_id], half_width)


def log_ratio(row: Measurement, reference: Measurement) -> float | None:
    """ln(seconds of the row / seconds of the reference) of two processes of one round. None if one of them is not ok
    or has no latency."""
    players = _player([row]), _player([reference])
    if players[0] is None or players[1] is None:
        return None
    return _difference(players[0], players[1])[0]


def rounds_of(run: Run) -> dict[int, Round]:
    """The rounds of a run by number, of all ok processes in them, also of those that were measured again."""
    rows: dict[int, dict[str, list[Measurement]]] = {}
    copies: dict[int, dict[str, list[Measurement]]] = {}
    for measurement in (*run.measurements, *run.superseded):
        if measurement.round is not None:
            rows.setdefault(measurement.round, {}).setdefault(measurement.case.id, []).append(measurement)
    for control in run.controls:
        if control.side == "copy" and (number := control.measurement.round) is not None:
            copies.setdefault(number, {}).setdefault(control.measurement.case.id, []).append(control.measurement)
    return {
        number: Round(rows=_players(rows.get(number, {})), copies=_players(copies.get(number, {})))
        for number in sorted({*rows, *copies})
    }


def _players(measurements: Mapping[str, list[Measurement]]) -> dict[str, Player]:
    return {name: player for name, several in measurements.items() if (player := _player(several)) is not None}


def _player(measurements: Sequence[Measurement]) -> Player | None:
    """None if a process is not ok or has no latency, or if one of the two processes of an ABBA round is missing."""
    samples = [m.samples.get(LATENCY, []) for m in measurements]
    if any(m.status != "ok" or not s or min(s) <= 0 for m, s in zip(measurements, samples, strict=True)):
        return None
    if alternates(measurements[0]) and len(measurements) != 2:
        return None
    count = measurements[0].facts.get("turns", 1)
    turns = None
    if len(measurements) == 1 and count > 1 and len(samples[0]) % count == 0:
        each = len(samples[0]) // count
        turns = tuple(_log_median(samples[0][i : i + each]) for i in range(0, len(samples[0]), each))
    log_s = sum(map(_log_median, samples)) / len(samples)
    return Player(measurements=tuple(measurements), log_s=log_s, turns=turns)


def _log_median(samples: Sequence[float]) -> float:
    """ln of the median, in a tenth of the time that numpy needs for a few samples."""
    ordered = sorted(samples)
    return math.log((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def alternates(measurement: Measurement) -> bool:
    """Whether the processes of the round ran one after the other, since they do not fit into memory together."""
    return measurement.facts.get("alternates") == "processes"


def contrast(
    row: Player, reference: Player, copy: Player | None = None, *, outlying: float = OUTLYING_PAIR
) -> Contrast:
    """The contrast of two players of a round, or with `copy` that of a row and the mean of the reference and its
    copy."""
    value, error = _difference(row, reference, copy)
    references = len(reference.measurements) + (len(copy.measurements) if copy else 0)
    processes = 1 / len(row.measurements) + 1 / references
    return Contrast(
        value=Value(value=value, processes=processes, error=error, outlying=outlying),
        quiet=row.quiet and reference.quiet,
        simultaneous=not alternates(row.measurements[0]),
    )


def _difference(row: Player, reference: Player, copy: Player | None = None) -> tuple[float, float]:
    """(log ratio, variance of it from within the processes, or 0 if that is unknown)."""
    if row.turns is not None and reference.turns is not None and len(row.turns) == len(reference.turns):
        if copy is None:
            return _centre([r - b for r, b in zip(row.turns, reference.turns, strict=True)])
        if copy.turns is not None and len(copy.turns) == len(row.turns):
            both = zip(row.turns, reference.turns, copy.turns, strict=True)
            return _centre([r - (b + c) / 2 for r, b, c in both])
    log_s = reference.log_s if copy is None else (reference.log_s + copy.log_s) / 2
    return row.log_s - log_s, 0.0


def _centre(differences: list[float]) -> tuple[float, float]:
    """The trimmed mean with its variance (Yuen 1974, Biometrika 61:165), or the median of fewer than FEWEST_TURNS."""
    count = len(differences)
    if count < FEWEST_TURNS:
        return statistics.median(differences), 0.0
    ordered = sorted(differences)
    cut = int(TURN_TRIM * count)
    kept = ordered[cut : count - cut]
    winsorised = [kept[0]] * cut + kept + [kept[-1]] * cut
    middle = sum(winsorised) / count
    squares = sum((v - middle) ** 2 for v in winsorised)
    return sum(kept) / len(kept), squares / (len(kept) * (len(kept) - 1))


def _of_row(rounds: Mapping[int, Round], case_id: str, reference: str) -> list[Contrast]:
    return _kept(round_.contrast(case_id, reference) for round_ in rounds.values())


def _kept(contrasts: Iterable[Contrast | None]) -> list[Contrast]:
    """Those of quiet rounds if there are at least FEWEST_ROUNDS, otherwise all."""
    every = [c for c in contrasts if c is not None]
    quiet = [c for c in every if c.quiet]
    return quiet if len(quiet) >= FEWEST_ROUNDS else every


def _series(contrasts: Sequence[Contrast]) -> Series:
    """The values of a row. They have a common error, the median of the known ones, because that of one round comes from
    a few turns."""
    errors = [c.value.error for c in contrasts if c.value.error > 0]
    error = statistics.median(errors) if errors else 0.0
    return [replace(c.value, error=error) for c in contrasts]


def _references(run: Run) -> dict[str, str]:
    """Case id -> the id of its group's reference, of all cases that have been measured."""
    valid = {m.case.id for m in (*run.measurements, *run.superseded) if m.status == "ok"}
    return {case.id: group.id for group in groups(run.cases, valid) for case in group.cases}


def _ratio(
    case_id: str, reference_id: str, contrasts: Sequence[Contrast], estimate: Estimate, *, known: bool = True
) -> Ratio:
    """The speed is the inverse of the seconds."""
    return Ratio(
        case_id=case_id,
        reference_id=reference_id,
        value=math.exp(-estimate.centre),
        low=math.exp(-estimate.high) if known else None,
        high=math.exp(-estimate.low) if known else None,
        rounds=len(contrasts),
        simultaneous=all(c.simultaneous for c in contrasts),
    )


def _inverse(ratio: Ratio) -> Ratio:
    return replace(
        ratio,
        case_id=ratio.reference_id,
        reference_id=ratio.case_id,
        value=1 / ratio.value,
        low=None if ratio.high is None else 1 / ratio.high,
        high=None if ratio.low is None else 1 / ratio.low,
    )


def _chained(row: Ratio, other: Ratio) -> Ratio:
    """The ratio of two rows from those to their reference, whose intervals add up in squares. `rounds` is that of the
    row with fewer."""
    value = row.value / other.value
    low = high = None
    if row.low and row.high and other.low and other.high:
        low = value * math.exp(-math.hypot(math.log(row.value / row.low), math.log(other.high / other.value)))
        high = value * math.exp(math.hypot(math.log(row.high / row.value), math.log(other.value / other.low)))
    return Ratio(
        case_id=row.case_id,
        reference_id=other.case_id,
        value=value,
        low=low,
        high=high,
        rounds=min(row.rounds, other.rounds),
        simultaneous=row.simultaneous and other.simultaneous,
    )
