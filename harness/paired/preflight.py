"""Before anything is timed: each row once in full in both arms, so that unequal or wrong work is found out first.

The preflight gives what does not need pairs (outputs against the fp32 eager reference, memory, counts, proof of
execution), fills compile and export caches, and says how many iterations a sample of each row needs.

Nothing starts when the budget is spent, and a process that the end of the budget cut off has found nothing: of its row
nothing is stored for either arm, and the verdicts say that the budget was not enough.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from harness.paired import paired_run as paired
from harness.paired.pair_duration import interleaved
from harness.paired.paired_process import ProcessJob, ProcessResult
from harness.paired.paired_run import PairedRow, Side
from harness.paired.pairs import Pairs
from harness.paired.wire_protocol import MEASURE
from harness.processes.measure import Job
from harness.types import Measurement, Metric

QUALITY_PROBES: Final = ("quality",)
QUALITY_SHARE: Final = 0.25  # of the budget that is left: more than that is not spent on judging outputs
ORDER: Final = "preflight"

Measured = tuple[Measurement, tuple[Metric, ...]]


def preflight(pairs: Pairs, rows: Sequence[PairedRow], only: tuple[str, ...], replicate: int = 0) -> None:
    """Measures `rows` in both arms with the probes `only`, a fresh process each, and stores the measurements. The arm
    that comes first changes, so that what a row's first process warms up helps each arm as often."""
    for row in rows:
        both: dict[Side, Measured] = {}
        for side in pairs.sides(ORDER, "head"):
            pairs.say(f"preflight · {row.label} · {side}")
            job = replace(pairs.job(row, side, replicate), only=only)
            found = _measured(pairs, side, job, pairs.left_s)
            if found is None:
                return
            both[side] = found
        _store(pairs, row, both)


def quality(pairs: Pairs, rows: Sequence[PairedRow]) -> dict[str, Metric]:
    """Judges the outputs of `rows` in both arms, by the models' own judges; the metrics that they brought.

    What does not fit into QUALITY_SHARE of the time that is left is not stored: the row's quality stays undecided, and
    the comparison says so.
    """
    deadline = pairs.left_s * (1 - QUALITY_SHARE)
    found: dict[str, Metric] = {}
    for row in rows:
        both: dict[Side, Measured] = {}
        for side in pairs.sides(ORDER, "head"):
            pairs.say(f"quality · {row.label} · {side}")
            job = pairs.job(row, side, 0)
            job = replace(job, only=QUALITY_PROBES, protocol=replace(job.protocol, quality=True))
            measured = _measured(pairs, side, job, pairs.left_s - deadline)
            if measured is None:
                return found
            both[side] = measured
            found |= {m.name: m for m in measured[1]}
        if all(measurement.status != "timeout" for measurement, _ in both.values()):
            _store(pairs, row, both)
    return found


def with_counts(rows: Sequence[PairedRow], base: dict[str, Measurement]) -> tuple[PairedRow, ...]:
    """The rows with turns and counts from the base arm's preflight; a row without a latency as it was."""
    found = []
    for row in rows:
        samples = base[row.id].samples.get("latency_s") if row.id in base else None
        loops = int(base[row.id].facts.get("loops", 1)) if samples else 1
        found.append(interleaved(row, statistics.median(samples), loops) if samples else row)
    return tuple(found)


def _store(pairs: Pairs, row: PairedRow, both: Mapping[Side, Measured]) -> None:
    for side, (measurement, _) in both.items():
        paired.append_preflight(pairs.folder, row.id, side, pairs.proven(row, side, measurement))


def _measured(pairs: Pairs, side: Side, job: Job, seconds: float) -> Measured | None:
    """One pass in a fresh process of the arm; None where it would take more than `seconds` of the budget."""
    if seconds <= 0:
        return None
    server, asked_s = pairs.servers.of(side), pairs.run.protocol.timeout_s
    job = replace(job, protocol=replace(job.protocol, timeout_s=min(asked_s, seconds)))
    block = ProcessJob(jobs=(job,), sentinel=False, packages=pairs.packages(side))
    reply = server.call(MEASURE, block, job.protocol.timeout_s)
    if reply.status == "timeout":
        cut = seconds < asked_s
        if pairs.left_s > 0 and (server.ended or not cut):
            server.renew()
        if cut:
            return None
    if reply.value:
        result: ProcessResult = reply.value
        return result.measurements[0], result.metrics
    status: Any = reply.status
    return Measurement(
        case=job.case, replicate=job.replicate, status=status, reason=reply.reason, cause=reply.cause
    ), ()
