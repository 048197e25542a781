"""One fresh process of one arm, which measures several rows one after another.

Rows of one model share a process, and the process is the unit of replication of each of its rows. A process returns the
measurement of each row, with all raw samples, and the times of the control workload, which no arm can change.
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
from harness.processes.worker import ParentPipe, measure_job
from harness.timing import Timer, perf_counter
from harness.types import Measurement, Metric

CONTROL_WORKLOAD_ROW: Final = -1


@dataclass(frozen=True, kw_only=True)
class ProcessJob:
    """The rows of one process in the order in which they are measured. `control_workload` says whether the control
    workload is measured as well.

    `referee` is the address at which the process asks for its turns, and `arm` is the name that it sends there. Without
    a referee it takes no turns. `cpus` are the CPUs that it may run on (empty: all of them). `packages` are those of
    the project under test: each measurement states which of them its work used."""

    jobs: tuple[Job, ...]
    control_workload: bool = True
    referee: str | None = None
    arm: str = ""
    cpus: tuple[int, ...] = ()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """What a process returns: its measurements in order, the metrics that the models define, and the seconds of each
    control workload."""

    measurements: tuple[Measurement, ...] = ()
    metrics: tuple[Metric, ...] = ()
    control_workload: dict[str, list[float]] = field(default_factory=dict)


def measure_rows(process_job: ProcessJob, report: Callable[[str], None]) -> ProcessResult:
    """Runs in the worker and measures each row once. If a row fails, its measurement has that status, and the process
    continues with the next row."""
    import torch

    from harness import devices

    if process_job.cpus:
        os.sched_setaffinity(0, process_job.cpus)  # before the first thread of torch, which inherits it
    job = process_job.jobs[0]
    torch.set_num_threads(job.threads)
    device = devices.device(job.device)
    turns = Turns(process_job.referee, process_job.arm) if process_job.referee else None
    if turns is not None:
        turns.begin_row(CONTROL_WORKLOAD_ROW)
    found = control_workload.measure(Timer(device.synchronize), device, turns) if process_job.control_workload else {}
    measurements: list[Measurement] = []
    metrics: dict[str, Metric] = {}
    for number, each in enumerate(process_job.jobs):
        report(each.case.id)
        if isinstance(report, ParentPipe):
            report.begin_row(number)
        if turns is not None:
            turns.begin_row(number)
        before = list(sys.modules)
        started, clock = storage.now(), perf_counter()
        outcome = measure_job(each, lambda _phase: None, turns)
        metrics |= {m.name: m for m in outcome.metrics}
        measured = outcome.measurement
        state, facts = measured.state.copy(), measured.facts.copy()
        if process_job.cpus:
            state["cpus"] = sorted(os.sched_getaffinity(0))
        if process_job.packages:
            classes = facts.get("layers_from", ())
            facts["imported"] = dict(used_packages(each.case, classes, process_job.packages, each.plugins, before))
        timed = replace(measured, started=started, duration_s=perf_counter() - clock)
        measurements.append(replace(timed, state=state, facts=facts))
    if turns is not None:
        turns.close()
    return ProcessResult(measurements=tuple(measurements), metrics=tuple(metrics.values()), control_workload=found)
