"""The preflight: before pairs are timed, each row is measured once in full in both arms, so that unequal or wrong work
is found first.

The preflight measures what needs no pairs (outputs against the fp32 eager reference, memory, counts, proof of
execution). It fills the caches of compiled and exported networks, and finds how many iterations a sample of each row
needs.

No process starts after the end of the budget. If the budget ends while a process runs, nothing is stored of its row for
either arm, and the verdicts say that the budget was not enough.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from harness.paired import paired_run
from harness.paired.pair_duration import interleaved
from harness.paired.paired_process import ProcessJob, ProcessResult
from harness.paired.paired_run import ArmName, PairedRow
from harness.paired.pairs import Pairs
from harness.paired.wire_protocol import MEASURE
from harness.processes.measure import Job
from harness.types import Measurement, Metric

QUALITY_PROBES: Final = ("quality",)
QUALITY_SHARE: Final = 0.25  # of the budget that is left: quality takes no more
ORDER: Final = "preflight"

Measured = tuple[Measurement, tuple[Metric, ...]]


def preflight(pairs: Pairs, rows: Sequence[PairedRow], only: tuple[str, ...], replicate: int = 0) -> None:
    """Measures `rows` in both arms with the probes `only`, each in a fresh process, and stores the measurements. The
    arms come first alternately, so that both profit equally often from caches that the first process filled."""
    for row in rows:
        both: dict[ArmName, Measured] = {}
        for arm in pairs.order(ORDER, "head"):
            pairs.say(f"preflight · {row.label} · {arm}")
            job = replace(pairs.job(row, arm, replicate), only=only)
            found = _measured(pairs, arm, job, pairs.left_s)
            if found is None:
                return
            both[arm] = found
        _store(pairs, row, both)


def quality(pairs: Pairs, rows: Sequence[PairedRow]) -> dict[str, Metric]:
    """Measures the quality of the outputs of `rows` in both arms, and returns the metrics that the models define.

    What does not fit into QUALITY_SHARE of the remaining time is not stored. The quality of such a row stays undecided,
    and the comparison says so.
    """
    deadline = pairs.left_s * (1 - QUALITY_SHARE)
    found: dict[str, Metric] = {}
    for row in rows:
        both: dict[ArmName, Measured] = {}
        for arm in pairs.order(ORDER, "head"):
            pairs.say(f"quality · {row.label} · {arm}")
            job = pairs.job(row, arm, 0)
            job = replace(job, only=QUALITY_PROBES, protocol=replace(job.protocol, quality=True))
            measured = _measured(pairs, arm, job, pairs.left_s - deadline)
            if measured is None:
                return found
            both[arm] = measured
            found |= {m.name: m for m in measured[1]}
        if all(measurement.status != "timeout" for measurement, _ in both.values()):
            _store(pairs, row, both)
    return found


def with_counts(rows: Sequence[PairedRow], base: dict[str, Measurement]) -> tuple[PairedRow, ...]:
    """The rows with turns and counts from the base arm's preflight. A row without a latency stays as it is."""
    found = []
    for row in rows:
        samples = base[row.id].samples.get("latency_s") if row.id in base else None
        loops = int(base[row.id].facts.get("loops", 1)) if samples else 1
        found.append(interleaved(row, statistics.median(samples), loops) if samples else row)
    return tuple(found)


def _store(pairs: Pairs, row: PairedRow, both: Mapping[ArmName, Measured]) -> None:
    for arm, (measurement, _) in both.items():
        paired_run.append_preflight(pairs.folder, row.id, arm, pairs.proven(row, arm, measurement))


def _measured(pairs: Pairs, arm: ArmName, job: Job, seconds: float) -> Measured | None:
    """One pass in a fresh process of the arm; None if it takes more than `seconds` of the budget."""
    if seconds <= 0:
        return None
    host, timeout_s = pairs.hosts.of(arm), pairs.run.protocol.timeout_s
    job = replace(job, protocol=replace(job.protocol, timeout_s=min(timeout_s, seconds)))
    process = ProcessJob(jobs=(job,), control_workload=False, packages=pairs.packages(arm))
    reply = host.call(MEASURE, process, job.protocol.timeout_s)
    if reply.status == "timeout":
        cut_off = seconds < timeout_s
        if pairs.left_s > 0 and (host.ended or not cut_off):
            host.renew()
        if cut_off:
            return None
    if reply.value:
        result: ProcessResult = reply.value
        return result.measurements[0], result.metrics
    status: Any = reply.status
    return Measurement(case=job.case, replicate=job.replicate, status=status, reason=reply.reason), ()
