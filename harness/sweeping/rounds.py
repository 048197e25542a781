"""A round: fresh processes of some rows of a group, of its reference, and of a second copy of the reference, measured
side by side.

The processes take turns of some 30 ms (`harness.measuring.turns`), so that a drift of the machine's speed is common to
all of them and cancels in their ratios. Where their models do not fit into memory together, one process of each of two
rows at a time has its samples alone, in the order A B B A.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from harness import storage, weights
from harness.measuring import contention
from harness.measuring.turns import Interleaving, Referee, shared_cpus
from harness.paired.paired_process import ProcessJob, ProcessResult, measure_rows
from harness.processes.endings import Reply
from harness.processes.measure import Job
from harness.processes.worker import Workers
from harness.reasons import Reason
from harness.stored_types import Facts, State
from harness.timing import perf_counter
from harness.types import Case, Measurement, Run

PROBES: Final = ("startup", "latency")
TIMEOUT_FACTOR: Final = 5.0  # a round may take this many times its expected duration
Alternates = Literal["turns", "processes"]  # what alternates: turns of all processes, or whole processes (ABBA)
FACTS: Final = (
    "work_hash",
    "weights_hash",
    "output_hash",
    "output_shape",
    "output_kind",
    "repeat_error",
    "first_process_error",
    "loops",
    "turns",
    "alternates",
    "cold_cache_bytes",
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process of a round: of a row, or (`copy`) of the second copy of the reference. `replicate` and `attempt`
    number it among the processes of its row or copy."""

    case: Case
    interleaving: Interleaving
    replicate: int
    attempt: int = 0
    copy: bool = False

    @property
    def name(self) -> str:
        """The name, unique in the round."""
        return f"{self.case.id}-{'copy' if self.copy else 'row'}"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What is measured side by side: the members in the order of their first turns, and the expected seconds."""

    number: int
    members: tuple[Member, ...]
    alternates: Alternates
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a run's rounds are measured."""

    workers: Workers
    referee: Referee
    plugins: tuple[str, ...]
    cache: Path


def measure_round(planned: Round, run: Run, site: Site) -> list[tuple[Member, Measurement]]:
    """The measurements of a round. A member that only waited while another one hung or crashed has none."""
    if planned.alternates == "processes":
        return _one_at_a_time(planned, run, site)
    started = storage.now()
    timeout_s = max(run.protocol.timeout_s, TIMEOUT_FACTOR * planned.seconds)
    site.referee.forget_late_comers()
    processes = [_Process(member, planned.number, run, site, timeout_s) for member in planned.members]
    names = [member.name for member in planned.members]
    try:
        for process in processes:
            process.start()
        states, stuck = site.referee.run(names, lambda: any(p.ended for p in processes), timeout_s)
    except BaseException:
        site.workers.kill_all()
        raise
    finally:
        for process in processes:
            process.join()
    unfinished = {p.member.name for p in processes if not p.reply.value}
    failed_member = stuck if stuck in unfinished else None
    return [
        (process.member, _measurement(process, planned, started, states))
        for process in processes
        if process.reply.value or failed_member in (None, process.member.name)
    ]


def _one_at_a_time(planned: Round, run: Run, site: Site) -> list[tuple[Member, Measurement]]:
    found = []
    for member in planned.members:
        process = _Process(member, planned.number, run, site, run.protocol.timeout_s, alone=True)
        started = storage.now()
        process.start()
        try:
            process.join()
        except BaseException:
            site.workers.kill_all()
            raise
        found.append((member, _measurement(process, planned, started, None)))
        if found[-1][1].status != "ok":
            break
    return found


class _Process(threading.Thread):
    """Waits in a thread of its own for the reply of one member's worker process."""

    def __init__(
        self, member: Member, number: int, run: Run, site: Site, timeout_s: float, *, alone: bool = False
    ) -> None:
        super().__init__(daemon=True)
        self.member = member
        self.reply = Reply(status="failed", reason=Reason("no_result"))
        self.duration_s = 0.0
        self._workers, self._timeout_s = site.workers, timeout_s
        job = _job(member, run, site, timeout_s, alone=alone)
        self._process_job = ProcessJob(
            jobs=(job,),
            control_workload=False,
            referee=None if alone else site.referee.address,
            arm=member.name,
            cpus=shared_cpus(number, job.threads),
        )

    @property
    def ended(self) -> bool:
        return not self.is_alive()

    def run(self) -> None:
        began = perf_counter()
        log = f"{self.member.name}.{self.member.replicate}"
        self.reply = self._workers.call(
            measure_rows, self._process_job, self._timeout_s, log, lambda _phase: None, reference_extends=False
        )
        self.duration_s = perf_counter() - began


def _job(member: Member, run: Run, site: Site, timeout_s: float, *, alone: bool) -> Job:
    """The timed pass of a member. One that runs alone samples by time, without a target for its own interval."""
    return Job(
        case=weights.built_case(member.case, run),
        replicate=member.replicate,
        protocol=replace(run.protocol, timeout_s=timeout_s, target_interval=None),
        device=run.environment["device"],
        folder=Path(str(run.folder)),
        cache=(site.cache / f"{member.name}.{member.replicate}" if run.protocol.fresh_builds else site.cache)
        / member.case.id,
        threads=cast("int", run.environment["threads"]),
        plugins=site.plugins,
        only=PROBES,
        interleaving=None if alone else member.interleaving,
    )


def _measurement(
    process: _Process, planned: Round, started: str, states: Mapping[int, Mapping[str, Any]] | None
) -> Measurement:
    """The measurement of a member: with the machine's state as the referee saw it, which counts the CPU time of all
    members as our own, and with the facts that prove its work. `states` is None for a process that ran alone."""
    member, reply = process.member, process.reply
    result: ProcessResult = reply.value or ProcessResult()
    if not result.measurements:
        status: Any = reply.status if reply.status != "ok" else "failed"
        found = Measurement(
            case=member.case, replicate=member.replicate, status=status, reason=reply.reason or Reason("no_result")
        )
    else:
        found = result.measurements[0]
        facts = {k: v for k, v in found.facts.items() if k in FACTS} | {"alternates": planned.alternates}
        found = replace(found, facts=cast("Facts", facts))
    if states is not None and result.measurements:
        kept = (w for w in found.warnings if not contention.is_contention(w))
        seen = cast("State", {**found.state, **states.get(0, {}), "peers": len(planned.members) - 1})
        met = contention.contended(seen)
        found = replace(found, state=seen, warnings=(*kept, met) if met else tuple(kept))
    return replace(
        found,
        case=member.case,
        replicate=member.replicate,
        attempt=member.attempt,
        round=planned.number,
        started=started,
        duration_s=process.duration_s,
    )
