"""Centres of many short series with intervals, where each series has too few values to show its own spread.

A series is the log ratios of one row, one for each round. Its values follow a contaminated normal model (Box & Tiao
1968, Biometrika 55:119): a value is the centre of its series plus normal noise, or, with a small probability, it is
outlying and off by much more. The standard deviations of the series have a common log-normal distribution, which all
series determine together (empirical Bayes, as in the moderated t of Smyth 2004, doi:10.2202/1544-6115.1027); series
whose centre is known contribute from their first value on. The posterior is computed on a grid. The estimate is its
median, and the interval its central 95 %. So one outlying value of three moves the estimate little, two values that
disagree get a wide interval, and the interval of a single value has the width that the other series suggest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE: Final = 0.95
OUTLYING_SCALE: Final = 0.2  # an outlying value is off by Student's t with 3 degrees of freedom, times this
DEVIATIONS: Final = np.geomspace(0.0007, 0.2, 13)  # standard deviations of one process that a series may have
TYPICAL: Final = np.geomspace(0.001, 0.08, 14)  # typical standard deviations that a run may have
TYPICAL_BEFORE: Final = (0.01, 0.8)  # what is supposed of it before anything is measured: median, sd of the log
UNEQUAL: Final = (0.2, 0.5, 0.9)  # how unequal the series may be: sd of the log of their standard deviations
POINTS: Final = 151  # centres of a grid, which lie closest at the median of the values
FINEST: Final = 0.001  # half of the range in which they are about equally spaced


@dataclass(frozen=True, kw_only=True)
class Value:
    """A log ratio of processes. `processes` is its variance in units of the variance between processes: 2 for the ratio
    of two, less for that of means of several. `error` is the variance from within the processes, 0 if it is unknown.
    `outlying` is the probability that the value is outlying."""

    value: float
    processes: float = 2.0
    error: float = 0.0
    outlying: float


Series = Sequence[Value]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A centre, the bounds of its 95 % interval, and the standard deviation of one process that is not outlying."""

    centre: float
    low: float
    high: float
    deviation: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How much processes differ, as all series together show it: the probability of each of the `MODELS`, which are
    distributions over the DEVIATIONS."""

    chances: Array

    @property
    def deviation(self) -> float:
        """The standard deviation of one process of a series of which nothing is known (root mean square)."""
        return float(np.sqrt(self.chances @ MODELS @ DEVIATIONS**2))

    def estimates(self, series: Sequence[Series]) -> list[Estimate]:
        """The estimate of each series, which has at least one value."""
        return _Grid(series).estimates(self) if series else []


def _models() -> tuple[Array, Array]:
    """(MODELS, BEFORE): the log-normal distribution over the DEVIATIONS for each of TYPICAL and UNEQUAL, and the
    probability of each before anything is measured."""
    typical, unequal = (axis.reshape(-1, 1) for axis in np.meshgrid(np.log(TYPICAL), UNEQUAL))
    shares = np.exp(-0.5 * ((np.log(DEVIATIONS) - typical) / unequal) ** 2)
    before = np.exp(-0.5 * ((typical[:, 0] - math.log(TYPICAL_BEFORE[0])) / TYPICAL_BEFORE[1]) ** 2)
    return shares / shares.sum(axis=1, keepdims=True), before / before.sum()


MODELS, BEFORE = _models()
SUPPOSED: Final = Spread(chances=BEFORE)  # what is supposed before anything is measured


def moderated(series: Sequence[Series], around_zero: Sequence[Series] = ()) -> tuple[list[Estimate], Spread]:
    """The estimate of each of `series`, and the spread that they show together with those of `around_zero`, whose true
    centre is 0. Each series has at least one value."""
    found = [_Grid(series)] if series else []
    known = [_Grid(around_zero, centred=True)] if around_zero else []
    logs = np.log(BEFORE) + sum(np.log(grid.evidence @ MODELS.T).sum(axis=0) for grid in (*found, *known))
    weights = np.exp(logs - logs.max())
    spread = Spread(chances=weights / weights.sum())
    return [estimate for grid in found for estimate in grid.estimates(spread)], spread


def normal_scores(count: int, processes: float, error: float, deviation: float, outlying: float) -> list[Value]:
    """A series that is as regular as one can be: its centre is 0, and the values are normal quantiles at
    (i - 3/8) / (n + 1/4) (Blom 1958), scaled to the standard deviation that the other arguments give."""
    normal = statistics.NormalDist()
    scores = [normal.inv_cdf((i + 0.625) / (count + 0.25)) for i in range(count)]
    scale = math.sqrt(processes * deviation**2 + error)
    return [Value(value=scale * s, processes=processes, error=error, outlying=outlying) for s in scores]


class _Grid:
    """The likelihood of each series for each standard deviation and centre, (series, deviation, centre)."""

    def __init__(self, series: Sequence[Series], *, centred: bool = False) -> None:
        count = max(map(len, series))
        values, processes, errors, outlying = np.full((4, count, len(series)), np.nan)
        for row, one in enumerate(series):
            values[: len(one), row] = [v.value for v in one]
            processes[: len(one), row] = [v.processes for v in one]
            errors[: len(one), row] = [v.error for v in one]
            outlying[: len(one), row] = [v.outlying for v in one]
        self.centres = np.zeros((len(series), 1)) if centred else _centres(values)
        self.widths = np.ones((len(series), 1)) if centred else np.gradient(self.centres, axis=1)
        self.likelihood = np.ones((len(series), len(DEVIATIONS), self.centres.shape[1]))
        for value, factor, error, doubt in zip(values, processes, errors, outlying, strict=True):
            there = np.flatnonzero(~np.isnan(value))
            squares = DEVIATIONS**2 * factor[there, None] + error[there, None]
            off = value[there, None] - self.centres[there]
            density = (off**2)[:, None, :] * (-0.5 / squares)[..., None]
            np.exp(density, out=density)
            density *= ((1 - doubt[there, None]) / np.sqrt(2 * np.pi * squares))[..., None]
            density += (doubt[there, None] * _outlying(off))[:, None, :]
            if len(there) == len(value):
                self.likelihood *= density
            else:
                self.likelihood[there] *= density

    @cached_property
    def evidence(self) -> Array:
        """(series, deviation): the likelihood of each standard deviation, with a flat prior of the centre."""
        return np.einsum("sdc,sc->sd", self.likelihood, self.widths)

    def estimates(self, spread: Spread) -> list[Estimate]:
        """The posterior of each series, with the models weighted by the spread, which has seen this series already."""
        weights = (spread.chances / (self.evidence @ MODELS.T)) @ MODELS
        masses = np.einsum("sd,sdc->sc", weights, self.likelihood) * self.widths
        deviations = np.sqrt((weights * self.evidence) @ DEVIATIONS**2 / (weights * self.evidence).sum(axis=1))
        tail = (1 - CONFIDENCE) / 2
        found = []
        for centres, mass, deviation in zip(self.centres, masses, deviations, strict=True):
            below = np.cumsum(mass)
            low, centre, high = np.interp([tail, 0.5, 1 - tail], (below - mass / 2) / below[-1], centres)
            found.append(Estimate(centre=float(centre), low=float(low), high=float(high), deviation=float(deviation)))
        return found


def _centres(values: Array) -> Array:
    """(series, POINTS): the centres that are considered, from values (value, series)."""
    middle = np.nanmedian(values, axis=0)[:, None]
    reach = 0.8 + 1.5 * np.nanmax(np.abs(values.T - middle), axis=1, keepdims=True)
    return np.asarray(middle + FINEST * np.sinh(np.linspace(-1, 1, POINTS) * np.arcsinh(reach / FINEST)))


def _outlying(off: Array) -> Array:
    """The density of Student's t with 3 degrees of freedom, times OUTLYING_SCALE."""
    return np.asarray(2 / (math.pi * math.sqrt(3) * OUTLYING_SCALE) / (1 + (off / OUTLYING_SCALE) ** 2 / 3) ** 2)
