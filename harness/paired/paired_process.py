"""One fresh process of one arm, which measures several rows one after another.

Rows of one model share the start-up, and the process is the unit of replication of each row in it. What is stored of a
process are the measurement of each row with all raw samples, and the control workload, which no arm can change.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from harness import storage
from harness.measuring import control_workload
from harness.measuring.turns import Turns
from harness.processes.measure import Job
from harness.processes.used_packages import used_packages
from harness.processes.worker import Line, measure_job
from harness.timing import Timer, perf_counter
from harness.types import Measurement, Metric

CONTROL_WORKLOAD_ROW: Final = -1


@dataclass(frozen=True, kw_only=True)
class ProcessJob:
    """The rows of one process in the order in which they are measured. `control_workload` requests the control
    workload.
    `referee` is the address at which the process asks for its turns, and `arm` the name that it gives there; without a
    referee it takes no turns. `cpus` are the CPUs that it may run on (empty: all of them). `packages` are those of
    the project under test: each measurement says which of them its work used."""

    jobs: tuple[Job, ...]
    control_workload: bool = True
    referee: str | None = None
    arm: str = ""
    cpus: tuple[int, ...] = ()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """What a process returns: its measurements in order, metrics that only their models know, and the seconds of each
    control workload."""

    measurements: tuple[Measurement, ...] = ()
    metrics: tuple[Metric, ...] = ()
    control_workload: dict[str, list[float]] = field(default_factory=dict)


def measure_rows(asked: ProcessJob, report: Callable[[str], None]) -> ProcessResult:
    """Runs in the worker: one measurement a row, a failed one where a row fails; the process goes on."""
    import torch

    from harness import devices

    if asked.cpus:
        os.sched_setaffinity(0, asked.cpus)  # before the first thread of torch, which inherits it
    job = asked.jobs[0]
    torch.set_num_threads(job.threads)
    device = devices.device(job.device)
    turns = Turns(asked.referee, asked.arm) if asked.referee else None
    if turns is not None:
        turns.begin_row(CONTROL_WORKLOAD_ROW)
    found = control_workload.measure(Timer(device.synchronize), device, turns) if asked.control_workload else {}
    measurements: list[Measurement] = []
    metrics: dict[str, Metric] = {}
    for number, each in enumerate(asked.jobs):
        report(each.case.id)
        if isinstance(report, Line):
            report.begin_row(number)
        if turns is not None:
            turns.begin_row(number)
        before = list(sys.modules)
        started, clock = storage.now(), perf_counter()
        outcome = measure_job(each, lambda _phase: None, turns)
        metrics |= {m.name: m for m in outcome.metrics}
        measured = outcome.measurement
        state, facts = measured.state.copy(), measured.facts.copy()
        if asked.cpus:
            state["cpus"] = sorted(os.sched_getaffinity(0))
        if asked.packages:
            classes = facts.get("layers_from", ())
            facts["imported"] = dict(used_packages(each.case, classes, asked.packages, each.plugins, before))
        timed = replace(measured, started=started, duration_s=perf_counter() - clock)
        measurements.append(replace(timed, state=state, facts=facts))
    if turns is not None:
        turns.close()
    return ProcessResult(measurements=tuple(measurements), metrics=tuple(metrics.values()), control_workload=found)
