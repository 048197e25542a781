"""Which row of a group got slower relative to the others, from ratios in which a drift of the machine cancels.

A run with rounds gives the log latency of each row relative to its group's reference (`harness.ratios`), and so does
each stored session. The values of a row in the sessions and in the run form contrasts that are independent of each
other (Helmert): the second session against the first one, the third one against the mean of both, ..., the run against
the mean of all sessions. If nothing changed, a contrast has the variance of its processes, which the intervals of the
ratios give, and the variance between sessions (memory layout, builds), which all rows and all contrasts determine
together: the standard deviations of the rows have a common log-normal distribution, as in `harness.moderated`.

Ratios to a reference cannot tell a slower row from a faster reference. So every row of a group, the reference included,
is compared with the centre of the others, where each of the others may itself have changed (contaminated normal
model): the majority of the group determines what "unchanged" is. In a group of two rows there is no majority.

The p-value of a row is the probability of a shift this large from the centre of the others; a shift up to FLOOR is no
change. All rows of the run are one family at FAMILY_LEVEL in each direction (Holm 1979). A row that was not measured in
further rounds (`baselines.stored.suspects`) must pass FIRST_LEVEL as well, and is inconclusive otherwise. The rule sees
one row among many. It cannot see that all rows of a group became slower together: their ratios do not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq

Array = NDArray[np.float64]

FLOOR: Final = 0.01
FAMILY_LEVEL: Final = 0.005  # of rows that were measured in further rounds
FIRST_LEVEL: Final = 0.001  # of rows that were not: an outlying process of a few rounds weighs more
DETECTION: Final = 0.95
GUARANTEE: Final = 0.05  # a change of this size is detectable and excluded if a row is "unchanged"
FEWEST_CONTRASTS: Final = 6  # in a run, from which the spread between sessions is estimated
CHANGED: Final = 0.01  # the probability that a row changed, as the centre of the others supposes
CHANGED_SCALE: Final = 0.1  # a changed row is off by Student's t with 3 degrees of freedom, times this
DEVIATIONS: Final = np.geomspace(0.0003, 0.1, 14)  # standard deviations between sessions that a row may have
TYPICAL: Final = np.geomspace(0.0005, 0.05, 12)  # typical ones that a run may have
TYPICAL_BEFORE: Final = (0.004, 0.8)  # what is supposed of it before anything is measured: median, sd of the log
UNEQUAL: Final = (0.3, 0.8)  # how unequal the rows may be: sd of the log of their standard deviations
POINTS: Final = 101  # centres of a grid
FINEST: Final = 0.001  # half of the range in which they are about equally spaced
NEGLIGIBLE: Final = 1e-8  # probability of a centre or of a deviation
TINY: Final = 1e-300  # a density, instead of 0
PASSES: Final = 2  # centres follow from the spread, and the spread from the centres


@dataclass(frozen=True, kw_only=True)
class Member:
    """One row of a group. `logs` are its log latencies relative to the reference in the sessions, oldest first, and at
    last in the run; 0 for the reference itself. `variances` are those of its own processes, without the reference's.
    All members of a group have the same number of values, at least two."""

    case_id: str
    logs: tuple[float, ...]
    variances: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """What a contrast of a row is expected to be if the row did not change: a mixture of normal distributions, with the
    `chances` (centre, deviation) of each of `centres` and `deviations`."""

    centres: Array
    deviations: Array
    chances: Array

    @cached_property
    def mean(self) -> float:
        return float(self.chances.sum(axis=1) @ self.centres)

    @cached_property
    def error(self) -> float:
        """The standard deviation."""
        within = self.chances.sum(axis=0) @ self.deviations**2
        return math.sqrt(float(within + self.chances.sum(axis=1) @ (self.centres - self.mean) ** 2))

    def above(self, value: float) -> float:
        """The probability of more than `value`."""
        return float((special.ndtr((self.centres[:, None] - value) / self.deviations) * self.chances).sum())

    def below(self, value: float) -> float:
        return float((special.ndtr((value - self.centres[:, None]) / self.deviations) * self.chances).sum())

    def upper(self, probability: float) -> float:
        """The value above which the probability is this one."""
        return self._solved(lambda value: self.above(value) - probability)

    def lower(self, probability: float) -> float:
        """The value below which the probability is this one."""
        return self._solved(lambda value: self.below(value) - probability)

    def _solved(self, difference: Callable[[float], float]) -> float:
        reach = 12 * float(self.deviations[-1])
        return float(brentq(difference, self.centres[0] - reach, self.centres[-1] + reach, xtol=1e-5))


@dataclass(frozen=True, kw_only=True)
class Shift:
    """The change of a row relative to the centre of the others in its group, in log ratio; positive is slower. `off` is
    its contrast with the sessions, `expected` what that would be without a change, `members` the size of the
    group, and `level` the one at which a row that alone changed raises an alarm, after the correction."""

    case_id: str
    off: float
    expected: Expected
    members: int
    level: float

    @property
    def shift(self) -> float:
        return self.off - self.expected.mean

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds of the 95 % interval."""
        return self.off - self.expected.upper(0.025), self.off - self.expected.lower(0.025)

    @property
    def p_worse(self) -> float:
        """The probability of a shift this large if nothing changed, before the correction; 1 up to FLOOR."""
        return self.expected.above(self.off) if self.shift > FLOOR else 1.0

    @property
    def p_better(self) -> float:
        return self.expected.below(self.off) if self.shift < -FLOOR else 1.0

    @property
    def threshold(self) -> float:
        """The shift at which a row that alone changed raises an alarm."""
        return max(FLOOR, self.expected.upper(self.level) - self.expected.mean)

    @property
    def detectable(self) -> float:
        """The log ratio that is detected in 95 of 100 cases."""
        return self.threshold + float(special.ndtri(DETECTION)) * self.expected.error

    @property
    def excluded(self) -> bool:
        """Whether a change of GUARANTEE is detectable, and the 99 % bounds of the shift exclude it."""
        furthest = abs(self.shift) + float(special.ndtri(0.99)) * self.expected.error
        return max(self.detectable, furthest) <= math.log1p(GUARANTEE)


def contrasts(groups: Sequence[Sequence[Member]]) -> int:
    """How many independent contrasts the rows of these groups have."""
    return sum((len(members) - 1) * (len(members[0].logs) - 1) for members in groups if len(members) > 1)


def shifts(groups: Sequence[Sequence[Member]]) -> list[Shift]:
    """The shift of each member of each group that has at least two; in order."""
    found = [_Group(members) for members in groups if len(members) > 1]
    if not found:
        return []
    models, before = _models()
    chances = before
    for _ in range(PASSES):
        usual = chances @ models
        for group in found:
            group.centre(usual)
        logs = np.log(before) + sum(np.log(group.evidence @ models.T).sum(axis=0) for group in found)
        weights = np.exp(logs - logs.max())
        chances = weights / weights.sum()
    level = FAMILY_LEVEL / sum(len(group.members) for group in found)
    return [shift for group in found for shift in group.shifts(chances, models, level)]


def alarms(tested: Sequence[Shift], further: Collection[str]) -> tuple[set[str], set[str]]:
    """(ids of the rows that became slower, ids of those that became faster). `further` are the ids of the rows that
    were measured in further rounds."""
    ids = [shift.case_id for shift in tested]

    def rejected(p_values: Sequence[float]) -> set[str]:
        last, first = (holm(p_values, level) for level in (FAMILY_LEVEL, FIRST_LEVEL))
        return {i for i, late, early in zip(ids, last, first, strict=True) if late and (early or i in further)}

    return rejected([shift.p_worse for shift in tested]), rejected([shift.p_better for shift in tested])


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """The hypotheses that Holm (1979) rejects at the family-wise error rate `level`.

    >>> holm([0.001, 0.5, 0.004], 0.01)
    [True, False, True]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(order) - rank):
            break
        rejected[i] = True
    return rejected


def _models() -> tuple[Array, Array]:
    """(distributions over the DEVIATIONS for each of TYPICAL and UNEQUAL, their probabilities before)."""
    typical, unequal = (axis.reshape(-1, 1) for axis in np.meshgrid(np.log(TYPICAL), UNEQUAL))
    shares = np.exp(-0.5 * ((np.log(DEVIATIONS) - typical) / unequal) ** 2)
    before = np.exp(-0.5 * ((typical[:, 0] - math.log(TYPICAL_BEFORE[0])) / TYPICAL_BEFORE[1]) ** 2)
    return shares / shares.sum(axis=1, keepdims=True), before / before.sum()


class _Group:
    """A group, with arrays (member, contrast) and further axes (deviation, centre)."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        logs, variances = np.array([m.logs for m in members]), np.array([m.variances for m in members])
        before = np.arange(1, logs.shape[1])  # how many values a contrast compares its own with
        self.off = logs[:, 1:] - np.cumsum(logs, axis=1)[:, :-1] / before
        self.errors = variances[:, 1:] + np.cumsum(variances, axis=1)[:, :-1] / before**2
        squares = (1 + 1 / before)[:, None] * DEVIATIONS**2
        self.squares = self.errors[..., None] + squares[None]  # (member, contrast, deviation)
        middle = np.median(self.off, axis=0)[:, None]
        reach = 0.1 + 1.5 * np.abs(self.off - middle.T).max(axis=0)[:, None]
        self.centres = middle + FINEST * np.sinh(np.linspace(-1, 1, POINTS) * np.arcsinh(reach / FINEST))
        self.widths = np.gradient(self.centres, axis=1)

    def centre(self, usual: Array) -> None:
        """The posterior of the centre of the others, (member, contrast, centre), with its mean and variance; `usual` is
        the probability of each of the DEVIATIONS."""
        away = self.off[..., None] - self.centres[None]
        normal = np.einsum("mcdp,d->mcp", _normal(away[:, :, None, :], self.squares[..., None]), usual)
        changed = CHANGED if len(self.members) > 2 else 0.0  # of two rows, what is tested is their ratio
        logs = np.log(np.maximum((1 - changed) * normal + changed * _changed(away), TINY))
        others = logs.sum(axis=0, keepdims=True) - logs
        density = np.exp(others - others.max(axis=2, keepdims=True)) * self.widths
        self.posterior = density / density.sum(axis=2, keepdims=True)
        self.mean = (self.posterior * self.centres).sum(axis=2)
        self.variance = (self.posterior * (self.centres - self.mean[..., None]) ** 2).sum(axis=2)

    @property
    def likelihoods(self) -> Array:
        """(member, contrast, deviation): how likely each contrast is, given the centre of the others."""
        away = self.off - self.mean
        normal = _normal(away[..., None], self.squares + self.variance[..., None])
        return np.asarray((1 - CHANGED) * normal + CHANGED * _changed(away)[..., None])

    @property
    def evidence(self) -> Array:
        """(member, deviation): the likelihood of each standard deviation. The contrasts of n members have n - 1 degrees
        of freedom, so each counts for a little less."""
        count = len(self.members)
        return np.asarray(self.likelihoods.prod(axis=1) ** ((count - 1) / count))

    def shifts(self, chances: Array, models: Array, level: float) -> list[Shift]:
        """The shifts of the last contrast. The spread of a row follows from all rows and from its own sessions; its own
        last contrast is what is tested."""
        earlier = self.likelihoods[:, :-1].prod(axis=1) * (chances @ models)
        weights = earlier / earlier.sum(axis=1, keepdims=True)
        return [
            Shift(
                case_id=member.case_id,
                off=float(self.off[i, -1]),
                expected=self._expected(i, weights[i]),
                members=len(self.members),
                level=level,
            )
            for i, member in enumerate(self.members)
        ]

    def _expected(self, i: int, weights: Array) -> Expected:
        there, apart = self.posterior[i, -1] > NEGLIGIBLE, weights > NEGLIGIBLE
        chances = self.posterior[i, -1][there, None] * weights[apart]
        return Expected(
            centres=self.centres[-1][there],
            deviations=np.sqrt(self.squares[i, -1][apart]),
            chances=chances / chances.sum(),
        )


def _normal(off: Array, squares: Array) -> Array:
    return np.asarray(np.exp(-0.5 * off**2 / squares) / np.sqrt(2 * np.pi * squares))


def _changed(off: Array) -> Array:
    """The density of Student's t with 3 degrees of freedom, times CHANGED_SCALE."""
    return np.asarray(2 / (math.pi * math.sqrt(3) * CHANGED_SCALE) / (1 + (off / CHANGED_SCALE) ** 2 / 3) ** 2)
