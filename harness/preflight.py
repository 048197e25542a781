"""Before anything is timed: each row once in full in both arms, so that unequal or wrong work is found out first.

The preflight gives what does not need pairs (outputs against the fp32 eager reference, memory, counts, proof of
execution), fills compile and export caches, and says how many iterations a sample of each row needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness import paired
from harness.blocks import BlockJob
from harness.measure import Job
from harness.paired import PairedRow, Side
from harness.pairs import Pairs, interleaved
from harness.types import Measurement

# Quality of a trained model takes longer than all pairs of its row; it is judged where the outputs differ.
LEFT_OUT: Final = ("quality", "stages", "energy")
SIDES: Final[tuple[Side, Side]] = ("base", "head")


def preflight(pairs: Pairs, rows: Sequence[PairedRow], only: tuple[str, ...], replicate: int = 0) -> None:
    """Measures `rows` in both arms with the probes `only`, a fresh process each, and stores the measurements."""
    for row in rows:
        for side in SIDES:
            pairs.say(f"preflight · {row.label} · {side}")
            measurement = _measured(pairs, row, side, only, replicate)
            paired.append_preflight(pairs.folder, row.id, side, measurement)


def with_counts(rows: Sequence[PairedRow], base: dict[str, Measurement]) -> tuple[PairedRow, ...]:
    """The rows with turns and counts from the base arm's preflight; a row without a latency as it was."""
    found = []
    for row in rows:
        samples = base[row.id].samples.get("latency_s") if row.id in base else None
        found.append(interleaved(row, statistics.median(samples)) if samples else row)
    return tuple(found)


def _measured(pairs: Pairs, row: PairedRow, side: Side, only: tuple[str, ...], replicate: int) -> Measurement:
    server = pairs.servers.of(side)
    job: Job = replace(pairs.job(row, side, replicate), protocol=pairs.run.protocol, only=only)
    timeout = min(pairs.run.protocol.timeout_s, max(pairs.left_s, 1.0))
    job = replace(job, protocol=replace(job.protocol, timeout_s=timeout))
    reply = server.call("block", BlockJob(jobs=(job,), sentinel=False), timeout)
    if reply.status == "timeout":
        server.renew()
    if reply.value:
        measurement: Measurement = reply.value.measurements[0]
        return measurement
    return Measurement(case=row.case(side), replicate=replicate, status=reply.status, reason=reply.reason)  # type: ignore[arg-type]
