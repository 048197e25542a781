"""The metrics that follow from raw samples, by name: what they are. `harness.derived` computes them. This module
imports no numpy, so that metrics can be listed without it."""

from __future__ import annotations

import math
from typing import Final

from harness.types import Metric


def needed_for(percentile: float) -> int:
    """The number of samples that a percentile needs.

    >>> needed_for(90), needed_for(99)
    (10, 100)
    """
    return math.ceil(round(1.0 / (1.0 - percentile / 100.0), 6))


def _percentile(percentile: int) -> Metric:
    return Metric(
        name=f"latency_p{percentile}_s",
        unit="s",
        label=f"Latency p{percentile}",
        better="lower",
        kind="advisory",
        description=f"{percentile}th percentile of the seconds per iteration (Harrell-Davis); needs "
        f"{needed_for(percentile)} samples",
    )


PERCENTILES: Final = {percentile: _percentile(percentile) for percentile in (90, 95, 99)}
THROUGHPUT: Final = Metric(
    name="throughput",
    unit="image/s",
    label="Throughput",
    better="higher",
    kind="advisory",
    description="images per second: batch size / mean seconds per iteration, with equal weight for each process "
    "(follows from latency_s, which is gated)",
)
METRICS: Final = (*PERCENTILES.values(), THROUGHPUT)
