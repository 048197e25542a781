"""What imgbench itself costs an iteration, by backend: the latency of the model `null` there. Pure functions of a Run.

A run stores one process of it for each of its backends (`harness.sweeping.overhead`), as a control and not as a row. If
an iteration of a row takes less than FEWEST times as long, imgbench's own share of it is more than a hundredth, and the
row has a warning.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Final

from harness.attempts import timed
from harness.reasons import Reason
from harness.types import Control, Measurement, Run

OVERHEAD: Final = "overhead_s"
LATENCY: Final = "latency_s"
FEWEST: Final = 100


def controls(run: Run) -> dict[str, Control]:
    """Backend -> the control that counts: the last ok one, or else the last one."""
    found: dict[str, Control] = {}
    for control in run.controls:
        if control.side == "overhead":
            backend = control.measurement.case.backend
            if backend not in found or control.measurement.status == "ok" or found[backend].measurement.status != "ok":
                found[backend] = control
    return found


def by_backend(run: Run) -> dict[str, float | Reason]:
    """Backend -> seconds per iteration, or the reason why they were not measured."""
    return {backend: _seconds(control) for backend, control in controls(run).items()}


def _seconds(control: Control) -> float | Reason:
    measured = control.measurement
    if samples := measured.samples.get(LATENCY) if measured.status == "ok" else None:
        return statistics.median(samples)
    return Reason("overhead_failed", {"status": measured.status, "reason": measured.reason or Reason("not_measured")})


def of_row(found: Mapping[str, float | Reason], backend: str) -> float | Reason:
    """The seconds per iteration in a row's backend, or the reason why they are missing; `found` is `by_backend`."""
    return found.get(backend, Reason("overhead_not_measured", {"backend": backend}))


def warning(overhead_s: float, measurements: Iterable[Measurement]) -> Reason | None:
    """The warning of a row whose iteration takes less than FEWEST times what imgbench itself costs; else None. Its
    latency is the one that the row shows: the median over its processes of the median in each."""
    medians = [statistics.median(m.samples[LATENCY]) for m in timed(measurements) if m.samples.get(LATENCY)]
    if not medians or (latency_s := statistics.median(medians)) >= FEWEST * overhead_s:
        return None
    return Reason("overhead", {"overhead_s": overhead_s, "latency_s": latency_s})
