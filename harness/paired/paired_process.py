"""A block: one fresh process of one arm that measures several rows, one after another.

Rows of one model share the start-up; the process stays the unit of replication for every row in it. What is stored of
a block is each row's measurement with all raw samples, and the sentinel: work of our own that no arm can change.
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
from harness.processes.worker import measure_job
from harness.timing import Timer, perf_counter
from harness.types import Measurement, Metric

SENTINEL_ROW: Final = -1


@dataclass(frozen=True, kw_only=True)
class ProcessJob:
    """The rows of one block in the order in which they are measured. `referee` is the address where the block asks for
    its turns, and `side` the name it gives there; without one it has the machine to itself. `cpus` are the CPUs that
    the process may run on (none: all that it has). `packages` are those of the project under test: each measurement
    says which of them its work used."""

    jobs: tuple[Job, ...]
    sentinel: bool = True
    referee: str | None = None
    side: str = ""
    cpus: tuple[int, ...] = ()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """What a block's process returns: its measurements in order, metrics that only their models know, and seconds by
    sentinel."""

    measurements: tuple[Measurement, ...] = ()
    metrics: tuple[Metric, ...] = ()
    sentinel: dict[str, list[float]] = field(default_factory=dict)


def measure_rows(block: ProcessJob, report: Callable[[str], None]) -> ProcessResult:
    """Runs in the worker: one measurement a row, a failed one where a row fails; the process goes on."""
    import torch

    from harness import devices

    if block.cpus:
        os.sched_setaffinity(0, block.cpus)  # before the first thread of torch, which inherits it
    job = block.jobs[0]
    torch.set_num_threads(job.threads)
    device = devices.device(job.device)
    turns = Turns(block.referee, block.side) if block.referee else None
    if turns is not None:
        turns.begin_row(SENTINEL_ROW)
    found = control_workload.measure(Timer(device.synchronize), device, turns) if block.sentinel else {}
    measurements: list[Measurement] = []
    metrics: dict[str, Metric] = {}
    for number, each in enumerate(block.jobs):
        report(each.case.id)
        if turns is not None:
            turns.begin_row(number)
        before = list(sys.modules)
        started, clock = storage.now(), perf_counter()
        outcome = measure_job(each, lambda _phase: None, turns)
        metrics |= {m.name: m for m in outcome.metrics}
        measured = outcome.measurement
        state = {**measured.state, "cpus": sorted(os.sched_getaffinity(0))} if block.cpus else measured.state
        facts = measured.facts
        if block.packages:
            classes = facts.get("layers_from", ())
            facts = {**facts, "imported": used_packages(each.case, classes, block.packages, each.plugins, before)}
        timed = replace(measured, started=started, duration_s=perf_counter() - clock)
        measurements.append(replace(timed, state=state, facts=facts))
    if turns is not None:
        turns.close()
    return ProcessResult(measurements=tuple(measurements), metrics=tuple(metrics.values()), sentinel=found)
