"""One metric of one row under the paired rule: screened, then confirmed with pairs that were not used to suspect it.

    screen, looks at 8, 12, 20, 32, 64, 128 pairs:
        99 % interval of the trimmed mean inside +-guarantee          -> unchanged
        98 % one-sided excludes 0, and |mean| > guarantee / 3         -> suspect
    confirm a suspect on fresh pairs, looks at 16, 32, 64, 120:
        exact signed-rank test of  direction * d - floor > 0, Bonferroni over the looks (Holm over the suspects:
        `decision`)
        upper 99 % bound < guarantee                                  -> the suspicion is withdrawn
        a shift of a secondary metric, or of a control, is not likely -> the run waits for it no longer (likely: half
                                       the guarantee or more, and the 80 % one-sided interval excludes 0)
    or on all pairs, looks at 16, 20, 24, 32, 64, 128 of both phases together:
        the same test, Bonferroni over looks, directions and rows (no row was chosen: each has the test), and at least 8
        fresh pairs, which alone reject at 2.5 %: the 95 % interval that is shown of them is beyond the floor
    a secondary metric keeps its pairs after `unchanged`: they may take it back, and never raise a suspicion

`d` is ln(head / base), turned so that + is worse. A pair is left out only by criteria that were fixed beforehand
(contention), never by its own value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from baselines.paired.robust import Trimmed, hodges_lehmann, signed_rank_p, student, trimmed

SCREEN_LOOKS: Final = (8, 12, 20, 32, 64, 128)
CONFIRM_LOOKS: Final = (16, 32, 64, 120)
POOLED_LOOKS: Final = (16, 20, 24, 32, 64, 128)
FEWEST_FRESH: Final = 8
SUPPORT_LEVEL: Final = 0.025  # of the fresh pairs alone, where all pairs together raise the alarm
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
    """What a metric is asked for, in log ratio: `guarantee` is the shift that "unchanged" rules out, `floor` the shift
    below which nothing is called a change (a run's own constant offset: memory layout, which core)."""

    guarantee: float = 0.025
    floor: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Key:
    """Which question: a row (or a control) and a metric."""

    row: str
    metric: str


@dataclass(kw_only=True)
class Question:
    """A question and what has been learnt of it so far. `primary`: it asks for pairs itself; secondary metrics are
    measured on the same pairs. `p_value` is that of the fresh pairs, `pooled_p_value` that of all pairs; both over all
    looks, the second over both directions and `rows`, too, which share the test. `only_likely`: at the end of the
    screening a shift was likely, and no look had suspected it; `unlikely`: at their last look the fresh pairs did not
    make a shift in its direction likely."""

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
        """Whether a pair that is measured in this phase is one of its own. Fresh pairs of a suspect may come
        while its row is screened on."""
        if phase == "done":
            return False
        checked = self.state == "unchanged" and not self.primary
        return checked or self.state == "suspect" or (self.state == "open" and phase == "screen")

    def record(self, shift: float) -> None:
        """One pair: of a suspect a fresh one."""
        (self.confirmed if self.state == "suspect" else self.screened).append(shift)

    @property
    def direction(self) -> float:
        """+1 where the suspicion is that head is worse, -1 where it is better."""
        return 1.0 if trimmed(self.screened).mean >= 0 else -1.0

    def screen(self) -> None:
        """Looks at the screening pairs, where one of the planned counts has been reached since the last look."""
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
        """At the end of the screening time: a shift that is already likely goes on to be confirmed."""
        if self.state != "open" or len(self.screened) < SCREEN_LOOKS[0]:
            return
        if self._likely(trimmed(self.screened)):
            self.state, self.only_likely = "suspect", True
            self.looks.append(f"screen ended after {len(self.screened)} pairs, a shift is likely: suspect")

    def _likely(self, found: Trimmed) -> bool:
        """Whether a shift of half the guarantee or more is seen, and none is unlikely."""
        return abs(found.mean) > self.sensitivity.guarantee / 2 and found.lower(LIKELY_CONFIDENCE) > 0

    def confirm(self) -> None:
        """Looks at the fresh pairs: the p-value so far, and whether the suspicion is futile."""
        count = _reached(len(self.confirmed), CONFIRM_LOOKS)
        if self.state != "suspect" or count <= self._confirm_looked:
            return
        self._confirm_looked = count
        turned = [self.direction * d for d in self.confirmed[:count]]
        raw = signed_rank_p([d - self.sensitivity.floor for d in turned])
        self.p_value = min(self.p_value if self.p_value is not None else 1.0, raw * len(CONFIRM_LOOKS), 1.0)
        found = trimmed(turned)
        upper = found.mean + student(FUTILE_CONFIDENCE, found.degrees) * found.error
        self.looks.append(
            f"confirm, {count} fresh pairs: p = {raw:.2g} at this look, {self.p_value:.2g} over all looks"
        )
        self.unlikely = not (found.mean > 0 and self._likely(found))
        if self.p_value > FAMILY_LEVEL and upper < self.sensitivity.guarantee:
            self._drop()

    def pool(self, rows: int) -> None:
        """Looks at all pairs of a suspect, which is one of `rows`. The p-value counts only where the fresh pairs alone
        support it: the screening pairs made it a suspect, so they are no evidence alone."""
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
            f"both phases, {count} pairs: p = {raw:.2g} (x {factors}); the {len(fresh)} fresh ones alone "
            f"{'support it' if alone <= SUPPORT_LEVEL else 'do not support it'} (p = {alone:.2g})"
        )
        if alone <= SUPPORT_LEVEL:
            least = 1.0 if self.pooled_p_value is None else self.pooled_p_value
            self.pooled_p_value = min(least, raw * 2 * len(POOLED_LOOKS) * rows)

    def alarm(self, why: str, *, by_all_pairs: bool = False) -> None:
        """The family's test has passed: this is a change."""
        self.state, self.by_all_pairs = "regressed" if self.direction > 0 else "improved", by_all_pairs
        self.looks.append(f"{self.state}: {why}")

    @property
    def deciding_p_value(self) -> float | None:
        """That of the test that raised the alarm; of a suspect without one that of the fresh pairs."""
        return self.pooled_p_value if self.by_all_pairs else self.p_value

    @property
    def deferred(self) -> bool:
        """A suspicion that the run does not wait for: of a secondary metric or a control, and unlikely by now."""
        return self.state == "suspect" and self.unlikely and not self.primary

    @property
    def withdrawn(self) -> bool:
        """A suspicion that the fresh pairs did not support."""
        return self.state == "dropped" or self.deferred

    def abandon(self) -> None:
        """No pair of it can be had any more."""
        if self.state in {"open", "suspect"}:
            self.state = "undecided"

    def give_up_after_last_look(self) -> None:
        """No further look is planned for a suspect that has had them all."""
        if self.state == "suspect" and self._confirm_looked == CONFIRM_LOOKS[-1]:
            self._drop()

    def _drop(self) -> None:
        self.state = "dropped"
        self.looks.append("the fresh pairs do not support the suspicion")

    def within_guarantee(self) -> bool:
        """Whether a withdrawn suspicion may be called unchanged: the fresh pairs alone show it."""
        return len(self.confirmed) >= 4 and self.lies_within(self.sensitivity.guarantee)

    def lies_within(self, limit: float) -> bool:
        """Whether the pairs that the estimate is made of show a shift inside ±`limit` at 99 %. Needs at least 4."""
        low, high = trimmed(self.best()).interval(UNCHANGED_CONFIDENCE)
        return -limit < low and high < limit

    def best(self) -> list[float]:
        """The pairs that the estimate is made of: the fresh ones of a suspect (the screening ones were selected)."""
        return self.confirmed if len(self.confirmed) >= 4 else self.screened

    def estimate(self) -> tuple[float, float, float]:
        """(shift, low, high) in log ratio at 95 %, by what decided: the trimmed mean of the screen, the signed ranks of
        an alarm. Needs at least 4 pairs."""
        values = self.best()
        if self.state in {"regressed", "improved"}:
            return hodges_lehmann(values, SHOWN_CONFIDENCE)
        found = trimmed(values)
        return found.mean, *found.interval(SHOWN_CONFIDENCE)

    def still_unchanged(self) -> bool:
        """Whether all pairs show what the first ones did: a secondary metric gets more of them after its look."""
        return self.lies_within(self.sensitivity.guarantee)

    def detectable(self) -> float | None:
        """Log ratio that as many pairs again would show as a change 19 times out of 20; None below 4 pairs."""
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
    return f"shift {found.mean:+.2%} [{low:+.2%}, {high:+.2%}]"
