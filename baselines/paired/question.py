"""One metric of one row under the paired rule: screening, then confirmation with fresh pairs.

    screen, looks at 8, 12, 20, 32, 64, 128 pairs:
        99 % interval of the trimmed mean inside +-guarantee          -> unchanged
        98 % one-sided excludes 0, and |mean| > guarantee / 3         -> suspect
    confirm a suspect on fresh pairs, looks at 16, 32, 64, 120:
        exact signed-rank test of  direction * d - floor > 0, Bonferroni over the looks (Holm over the suspects:
        `decision`)
        upper 99 % bound < guarantee                                  -> the suspicion is withdrawn
        a shift of a secondary metric, or of a control, is not likely -> the run no longer waits for it (likely: half
                                       the guarantee or more, and the 80 % one-sided interval excludes 0)
    or on all pairs, looks at 16, 20, 24, 32, 64, 128 of both phases together:
        the same test, Bonferroni over looks, directions and rows (every row has the test), and at least 8 fresh pairs,
        which alone reject at 2.5 %: their 95 % interval, which is shown, is beyond the floor
    after `unchanged`, a secondary metric gets further pairs: they may revoke `unchanged`, but raise no suspicion

`d` is ln(head / base); a positive value is worse. A pair is left out only by a criterion that is fixed beforehand
(contention), never because of its value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from baselines.paired.robust import Trimmed, hodges_lehmann, signed_rank_p, student, trimmed
from harness.units import percent

SCREEN_LOOKS: Final = (8, 12, 20, 32, 64, 128)
CONFIRM_LOOKS: Final = (16, 32, 64, 120)
POOLED_LOOKS: Final = (16, 20, 24, 32, 64, 128)
FEWEST_FRESH: Final = 8
SUPPORT_LEVEL: Final = 0.025  # of the fresh pairs alone, if all pairs together raise the alarm
UNCHANGED_CONFIDENCE: Final = 0.99
SUSPECT_CONFIDENCE: Final = 0.98
LIKELY_CONFIDENCE: Final = 0.80
FUTILE_CONFIDENCE: Final = 0.99
SHOWN_CONFIDENCE: Final = 0.95
FAMILY_LEVEL: Final = 0.01  # of any alarm in a run
FRESH_LEVEL: Final = FAMILY_LEVEL / 2
POOLED_LEVEL: Final = FAMILY_LEVEL / 2
POWER: Final = 0.95

Phase = Literal["screen", "confirm", "done"]
State = Literal["open", "unchanged", "suspect", "regressed", "improved", "dropped", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The sensitivity of a metric, in log ratio. `guarantee` is the shift that "unchanged" excludes. `floor` is the
    shift below which nothing is called a change, because a run may have a constant offset (its memory layout, its
    core)."""

    guarantee: float = 0.025
    floor: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Key:
    """The key of a question: a row (or a control) and a metric."""

    row: str
    metric: str


@dataclass(kw_only=True)
class Question:
    """A question (has this metric of this row changed?) and its state.

    - `primary`: the question determines the number of pairs. Secondary metrics use the same pairs.
    - `p_value`: of the fresh pairs, corrected over all looks.
    - `pooled_p_value`: of all pairs, corrected over all looks, both directions and the rows that share the test.
    - `only_likely`: at the end of the screening a shift was likely, but no look had suspected it.
    - `unlikely`: at the last look, the fresh pairs did not make a shift in its direction likely."""

    key: Key
    sensitivity: Sensitivity
    primary: bool = True
    control: bool = False
    state: State = "open"
    screened: list[float] = field(default_factory=list)
    confirmed: list[float] = field(default_factory=list)
    dropped: int = 0
    p_value: float | None = None
    family: int | None = None
    pooled_p_value: float | None = None
    by_all_pairs: bool = False
    only_likely: bool = False
    unlikely: bool = False
    looks: list[str] = field(default_factory=list)
    _looked: int = 0
    _confirm_looked: int = 0
    _pooled_looked: int = 0

    def takes(self, phase: Phase) -> bool:
        """Whether the question uses a pair of this phase. A suspect also uses the pairs in which its row is
        screened."""
        if phase == "done":
            return False
        checked = self.state == "unchanged" and not self.primary
        return checked or self.state == "suspect" or (self.state == "open" and phase == "screen")

    def record(self, shift: float) -> None:
        """Adds one pair. For a suspect it is a fresh pair."""
        (self.confirmed if self.state == "suspect" else self.screened).append(shift)

    @property
    def direction(self) -> float:
        """+1 if head is suspected to be worse, -1 if better."""
        return 1.0 if trimmed(self.screened).mean >= 0 else -1.0

    def screen(self) -> None:
        """Tests the screening pairs if their number has reached a further planned look."""
        count = _reached(len(self.screened), SCREEN_LOOKS)
        if self.state != "open" or count <= self._looked:
            return
        self._looked = count
        found = trimmed(self.screened[:count])
        low, high = found.interval(UNCHANGED_CONFIDENCE)
        limit = self.sensitivity.guarantee
        if -limit < low and high < limit:
            self.state = "unchanged"
        elif found.lower(SUSPECT_CONFIDENCE) > 0 and abs(found.mean) > limit / 3:
            self.state = "suspect"
        elif count == SCREEN_LOOKS[-1]:
            self.state = "undecided"
        self.looks.append(f"screen, {count} pairs: {_percent(found, low, high)} (99 %): {self.state}")

    def suspect_if_likely(self) -> None:
        """Makes the question a suspect at the end of the screening time if a shift is likely."""
        if self.state != "open" or len(self.screened) < SCREEN_LOOKS[0]:
            return
        if self._likely(trimmed(self.screened)):
            self.state, self.only_likely = "suspect", True
            self.looks.append(f"screen ended after {len(self.screened)} pairs, a shift is likely: suspect")

    def _likely(self, found: Trimmed) -> bool:
        """Whether the shift is more than half the guarantee, and its one-sided interval excludes 0."""
        return abs(found.mean) > self.sensitivity.guarantee / 2 and found.lower(LIKELY_CONFIDENCE) > 0

    def confirm(self) -> None:
        """Computes the p-value of the fresh pairs at a planned look, and withdraws the suspicion if they exclude a
        shift of the guarantee."""
        count = _reached(len(self.confirmed), CONFIRM_LOOKS)
        if self.state != "suspect" or count <= self._confirm_looked:
            return
        self._confirm_looked = count
        in_direction = [self.direction * d for d in self.confirmed[:count]]
        raw = signed_rank_p([d - self.sensitivity.floor for d in in_direction])
        self.p_value = min(self.p_value if self.p_value is not None else 1.0, raw * len(CONFIRM_LOOKS), 1.0)
        found = trimmed(in_direction)
        upper = found.mean + student(FUTILE_CONFIDENCE, found.degrees) * found.error
        self.looks.append(
            f"confirm, {count} fresh pairs: p = {raw:.2g} at this look, {self.p_value:.2g} over all looks"
        )
        self.unlikely = not (found.mean > 0 and self._likely(found))
        if self.p_value > FAMILY_LEVEL and upper < self.sensitivity.guarantee:
            self._drop()

    def pool(self, rows: int) -> None:
        """Computes the p-value of all pairs of a suspect, which is one of `rows` rows, at a planned look. It counts
        only if the fresh pairs alone support it, because the screening pairs selected the suspect."""
        count = _reached(len(self.screened) + len(self.confirmed), POOLED_LOOKS)
        if self.state != "suspect" or count <= self._pooled_looked:
            return
        self._pooled_looked = count
        beyond = [self.direction * d - self.sensitivity.floor for d in [*self.screened, *self.confirmed][:count]]
        fresh = beyond[len(self.screened) :]
        if len(fresh) < FEWEST_FRESH:
            return
        raw, alone = signed_rank_p(beyond), signed_rank_p(fresh)
        factors = f"{len(POOLED_LOOKS)} looks x 2 directions x {rows} rows"
        self.looks.append(
            f"both phases, {count} pairs: p = {raw:.2g} (x {factors}); the {len(fresh)} fresh pairs alone "
            f"{'support it' if alone <= SUPPORT_LEVEL else 'do not support it'} (p = {alone:.2g})"
        )
        if alone <= SUPPORT_LEVEL:
            least = 1.0 if self.pooled_p_value is None else self.pooled_p_value
            self.pooled_p_value = min(least, raw * 2 * len(POOLED_LOOKS) * rows)

    def alarm(self, why: str, *, by_all_pairs: bool = False) -> None:
        """Makes the question a confirmed change."""
        self.state, self.by_all_pairs = "regressed" if self.direction > 0 else "improved", by_all_pairs
        self.looks.append(f"{self.state}: {why}")

    @property
    def deciding_p_value(self) -> float | None:
        """The p-value of the test that raised the alarm; without an alarm, that of the fresh pairs."""
        return self.pooled_p_value if self.by_all_pairs else self.p_value

    @property
    def deferred(self) -> bool:
        """Whether the run does not wait for a suspicion, because it is unlikely and concerns a secondary metric or a
        control."""
        return self.state == "suspect" and self.unlikely and not self.primary

    @property
    def withdrawn(self) -> bool:
        """Whether the fresh pairs did not support the suspicion."""
        return self.state == "dropped" or self.deferred

    def abandon(self) -> None:
        """Ends an open question for which no further pair can be measured."""
        if self.state in {"open", "suspect"}:
            self.state = "undecided"

    def give_up_after_last_look(self) -> None:
        """Withdraws the suspicion after its last planned look."""
        if self.state == "suspect" and self._confirm_looked == CONFIRM_LOOKS[-1]:
            self._drop()

    def _drop(self) -> None:
        self.state = "dropped"
        self.looks.append("the fresh pairs do not support the suspicion")

    def within_guarantee(self) -> bool:
        """Whether the fresh pairs alone show that a withdrawn suspicion is within the guarantee."""
        return len(self.confirmed) >= 4 and self.lies_within(self.sensitivity.guarantee)

    def lies_within(self, limit: float) -> bool:
        """Whether the pairs of the estimate show a shift within ±`limit` at 99 %. Needs at least 4 pairs."""
        low, high = trimmed(self.best()).interval(UNCHANGED_CONFIDENCE)
        return -limit < low and high < limit

    def best(self) -> list[float]:
        """The pairs of the estimate. For a suspect they are the fresh pairs, because its screening pairs are biased by
        the selection."""
        return self.confirmed if len(self.confirmed) >= 4 else self.screened

    def estimate(self) -> tuple[float, float, float]:
        """(shift, low, high) in log ratio at 95 %: from signed ranks after an alarm, otherwise from the trimmed mean.
        Needs at least 4 pairs."""
        values = self.best()
        if self.state in {"regressed", "improved"}:
            return hodges_lehmann(values, SHOWN_CONFIDENCE)
        found = trimmed(values)
        return found.mean, *found.interval(SHOWN_CONFIDENCE)

    def still_unchanged(self) -> bool:
        """Whether the pairs, including those after the look that found `unchanged`, are still within the guarantee."""
        return self.lies_within(self.sensitivity.guarantee)

    def detectable(self) -> float | None:
        """The log ratio that this number of pairs detects in 95 of 100 cases; None below 4 pairs."""
        values = self.best()
        if len(values) < 4:
            return None
        found = trimmed(values)
        level = 1 - FRESH_LEVEL / 2 / len(CONFIRM_LOOKS)  # of a single suspect of the first round
        quantiles = student(level, found.degrees) + student(POWER, found.degrees)
        return self.sensitivity.floor + quantiles * found.error


def _reached(count: int, looks: tuple[int, ...]) -> int:
    """The largest planned look that `count` pairs allow; 0 before the first."""
    return max((look for look in looks if look <= count), default=0)


def _percent(found: Trimmed, low: float, high: float) -> str:
    return f"shift {percent(found.mean, '+.2')} [{percent(low, '+.2')}, {percent(high, '+.2')}]"
