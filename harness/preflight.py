"""Before anything is timed: each row once in full in both arms, so that unequal or wrong work is found out first.

The preflight gives what does not need pairs (outputs against the fp32 eager reference, memory, counts, proof of
execution), fills compile and export caches, and says how many iterations a sample of each row needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from harness import paired
from harness.blocks import BlockJob, BlockResult
from harness.measure import Job
from harness.paired import PairedRow, Side
from harness.pairs import Pairs, interleaved
from harness.types import Measurement, Metric

QUALITY_PROBES: Final = ("quality",)
QUALITY_SHARE: Final = 0.25  # of the budget that is left: more than that is not spent on judging outputs
SIDES: Final[tuple[Side, Side]] = ("base", "head")


def preflight(pairs: Pairs, rows: Sequence[PairedRow], only: tuple[str, ...], replicate: int = 0) -> None:
    """Measures `rows` in both arms with the probes `only`, a fresh process each, and stores the measurements."""
    for row in rows:
        for side in SIDES:
            pairs.say(f"preflight · {row.label} · {side}")
            job = replace(pairs.job(row, side, replicate), only=only)
            measurement, _ = _measured(pairs, side, job, pairs.left_s)
            paired.append_preflight(pairs.folder, row.id, side, measurement)


def quality(pairs: Pairs, rows: Sequence[PairedRow]) -> dict[str, Metric]:
    """Judges the outputs of `rows` in both arms, by the models' own judges; the metrics that they brought.

    What does not fit into QUALITY_SHARE of the time that is left is not stored: the row's quality stays undecided, and
    the comparison says so.
    """
    deadline = pairs.left_s * (1 - QUALITY_SHARE)
    found: dict[str, Metric] = {}
    for row in rows:
        both = []
        for side in SIDES:
            pairs.say(f"quality · {row.label} · {side}")
            job = pairs.job(row, side, 0)
            job = replace(job, only=QUALITY_PROBES, protocol=replace(job.protocol, quality=True))
            if pairs.left_s <= deadline:
                return found
            measurement, metrics = _measured(pairs, side, job, pairs.left_s - deadline)
            both.append((side, measurement))
            found |= {m.name: m for m in metrics}
        if all(measurement.status != "timeout" for _, measurement in both):
            for side, measurement in both:
                paired.append_preflight(pairs.folder, row.id, side, measurement)
    return found


def with_counts(rows: Sequence[PairedRow], base: dict[str, Measurement]) -> tuple[PairedRow, ...]:
    """The rows with turns and counts from the base arm's preflight; a row without a latency as it was."""
    found = []
    for row in rows:
        samples = base[row.id].samples.get("latency_s") if row.id in base else None
        found.append(interleaved(row, statistics.median(samples)) if samples else row)
    return tuple(found)


def _measured(pairs: Pairs, side: Side, job: Job, seconds: float) -> tuple[Measurement, tuple[Metric, ...]]:
    """One pass in a fresh process of the arm, in at most so many seconds."""
    server = pairs.servers.of(side)
    timeout = min(pairs.run.protocol.timeout_s, max(seconds, 1.0))
    job = replace(job, protocol=replace(job.protocol, timeout_s=timeout))
    reply = server.call("block", BlockJob(jobs=(job,), sentinel=False), timeout)
    if reply.status == "timeout":
        server.renew()
    if reply.value:
        result: BlockResult = reply.value
        return result.measurements[0], result.metrics
    status: Any = reply.status
    return Measurement(case=job.case, replicate=job.replicate, status=status, reason=reply.reason), ()
