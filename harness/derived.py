"""Metrics that follow from raw samples: percentiles and throughput. Computed on reading, never stored.

Each entry takes the samples of a row, one list for each process, and its batch size. It returns a value with its
interval, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.derived_metrics import PERCENTILES, THROUGHPUT, needed_for
from harness.reasons import Reason
from harness.types import Metric


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A row's value of one metric with its 95 % interval, or the reason why it is missing."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Derived:
    metric: Metric
    source: str
    estimate: Callable[[stats.Groups, int], Estimate]


def summarise(metric: Metric, groups: stats.Groups) -> Estimate:
    """The row's value of a measured metric with an interval: the median over its processes of the median in each, the
    mean of means, the maximum, or the last. All processes have equal weight, however many samples they have."""
    row = stats.processes(groups)
    values = np.concatenate(row)
    if metric.unit == "share":
        low, high = stats.wilson(float(values.sum()), len(values))
        return Estimate(value=float(values.mean()), low=low, high=high)
    if metric.kind == "quality_continuous":
        return Estimate(value=float(values.mean()))
    if metric.summary == "max":
        return Estimate(value=float(values.max()))
    if metric.summary == "last":
        return Estimate(value=float(values[-1]))
    if metric.summary == "median":
        return _estimate(_over_processes(row, stats.median, stats.median), stats.median_interval(row))
    return _estimate(_over_processes(row, _mean, _mean), stats.interval(row, _mean, _mean))


def _mean(values: stats.Array) -> stats.Array:
    return np.asarray(np.mean(values, axis=-1))


def _over_processes(groups: stats.Processes, within: stats.Estimator, across: stats.Estimator) -> float:
    return float(across(np.array([within(samples) for samples in groups])))


def _estimate(value: float, bounds: tuple[float, float] | None) -> Estimate:
    return Estimate(value=value, low=bounds[0] if bounds else None, high=bounds[1] if bounds else None)


def _percentile(percentile: float) -> Callable[[stats.Groups, int], Estimate]:
    def estimate(groups: stats.Groups, _batch_size: int) -> Estimate:
        count, needed = sum(len(g) for g in groups), needed_for(percentile)
        if count < needed:
            return Estimate(reason=Reason("too_few_samples", {"needed": needed, "count": count}))
        value = stats.pooled_percentile(groups, percentile)
        return _estimate(value, stats.percentile_interval(groups, percentile))

    return estimate


def _throughput(groups: stats.Groups, batch_size: int) -> Estimate:
    row = stats.processes(groups)

    def across(seconds: stats.Array) -> stats.Array:
        return batch_size / _mean(seconds)

    return _estimate(_over_processes(row, _mean, across), stats.interval(row, _mean, across))


DERIVED: tuple[Derived, ...] = (
    *(Derived(metric=metric, source="latency_s", estimate=_percentile(p)) for p, metric in PERCENTILES.items()),
    Derived(metric=THROUGHPUT, source="latency_s", estimate=_throughput),
)
