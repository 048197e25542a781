"""Measures pairs of processes, base against head, until every row is decided or the budget is spent.

A round is one pair of each group of rows that needs a further pair. The two processes of a pair take turns
(`harness.measuring.turns`). Of each two consecutive pairs of a group, one begins with the base and the other one with
the head, in random order. Every round also measures the A/A control, which is a row of the base arm against a second
copy of itself.

All processes of one fork server share its memory layout. The hosts of the arms hold the fork servers, and are therefore
renewed every RENEWAL rounds. If each arm has a host of its own, the difference of the two layouts is an offset of all
their pairs, and further pairs of the same hosts do not reveal it. Such hosts are renewed every RENEWAL_APART rounds, so
that the offset becomes noise between pairs.

For example, let the offsets have a standard deviation of 0.8 % and the processes one of 0.5 %. A row that is 3 % slower
is then called unchanged in 143 of 1,000 runs if hosts are renewed every 8 rounds, and in 4 if they are renewed every 2
rounds (100 runs of each are in `tests/test_detector_table.py`). New hosts also begin the fresh pairs of a suspicion.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, cast

from harness import storage
from harness.measuring import contention, process_agreement
from harness.measuring.turns import Referee, shared_cpus
from harness.paired import paired_run
from harness.paired.control_row import COPY
from harness.paired.hosts import ArmHost
from harness.paired.pair_duration import PairDuration, seconds_in_pair
from harness.paired.paired_process import CONTROL_WORKLOAD_ROW, ProcessJob, ProcessResult
from harness.paired.paired_run import CONTROL_GROUP, ArmName, PairedProcess, PairedRow, PairedRun
from harness.paired.wire_protocol import MEASURE
from harness.processes.endings import Reply
from harness.processes.measure import Job
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.stored_types import Facts, State
from harness.timing import perf_counter
from harness.types import Case, Measurement

RENEWAL: Final = 8
RENEWAL_APART: Final = 2
PAIR_PROBES: Final = ("startup", "latency")
TIMEOUT_FACTOR: Final = 5.0  # a pair may take this many times its expected duration
RENEWAL_FACTOR: Final = 3.0  # hosts are renewed only if the remaining time is more than this many times the renewal's
PAIR_FACTS: Final = (
    "work_hash",
    "weights_hash",
    "output_hash",
    "output_shape",
    "output_kind",
    "repeat_error",
    "loops",
    "turns",
    "injected",
    "imported",
)


class Decider(Protocol):
    """Decides about the rows. Rows that are not in `wanted()` are left out of the next pairs."""

    @property
    def phase(self) -> str: ...
    def wanted(self) -> set[str]: ...
    def add(self, first: PairedProcess, second: PairedProcess) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ArmHosts:
    """The host of each arm; `control` serves the second copy of the base."""

    base: ArmHost
    head: ArmHost
    control: ArmHost

    def of(self, arm: ArmName) -> ArmHost:
        return {"base": self.base, "head": self.head, "control": self.control}[arm]

    def all(self) -> list[ArmHost]:
        return list(dict.fromkeys((self.base, self.head, self.control)))

    def due(self, rounds: int, *, another_phase: bool = False) -> list[ArmHost]:
        """The hosts that are renewed after `rounds` rounds. If each arm has its own host, both are also renewed at the
        start of another phase, so that the fresh pairs of a suspicion have new hosts. The control's own host decides
        about no row and is kept."""
        if rounds % RENEWAL == 0:
            return self.all()
        separate = self.base is not self.head
        return [self.base, self.head] if separate and (another_phase or rounds % RENEWAL_APART == 0) else []


def renew(hosts: Sequence[ArmHost]) -> None:
    """Restarts all of them at the same time."""
    for host in hosts:
        host.begin_renewal()
    for host in hosts:
        host.end_renewal()


@dataclass(kw_only=True)
class Pairs:
    """The measuring part of one paired run. `began` is the clock's value when the budget began to count."""

    run: PairedRun
    folder: Path
    hosts: ArmHosts
    referee: Referee
    plugins: tuple[str, ...]
    caches: Path
    began: float
    say: Callable[[str], None]
    _orders: dict[str, list[bool]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _estimate: PairDuration = field(default_factory=PairDuration)
    _broken: dict[str, str] = field(default_factory=dict)
    _proofs: dict[tuple[str, ArmName], Measurement] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        return perf_counter() - self.began

    @property
    def left_s(self) -> float:
        return self.run.budget_s - self.elapsed_s

    def measure(self, decider: Decider) -> str:
        """Measures rounds until every row is decided or no further pair fits into the budget. Returns why it ended."""
        rounds, phase = 0, decider.phase
        while wanted := self._groups(decider.wanted()):
            if rounds and self.left_s > RENEWAL_FACTOR * self._renewal_s():
                renew(self.hosts.due(rounds, another_phase=decider.phase != phase))
            phase = decider.phase
            measured = [self._pair(group, rows, decider) for group, rows in wanted.items()]
            if not any(measured):
                return "budget"
            rounds += 1
        return "decided"

    def _groups(self, wanted: set[str]) -> dict[str, list[PairedRow]]:
        """The rows to measure, by group. A control that is wanted gets its pairs even if no row is wanted."""
        usable = [row for row in self.run.rows if row.id not in self._broken]
        groups: dict[str, list[PairedRow]] = {}
        for row in usable:
            if row.id in wanted:
                groups.setdefault(row.group, []).append(row)
        control = next((row for row in usable if row.id == self.run.control), None)
        if control is not None and wanted:
            only_control_workload = not groups and COPY not in wanted
            groups[control.group if only_control_workload else CONTROL_GROUP] = [control]
        return groups

    def _pair(self, group: str, rows: Sequence[PairedRow], decider: Decider) -> bool:
        """Measures and stores one pair of processes. Returns False if it does not fit into the rest of the budget."""
        expected = self._estimate.seconds(group, [row.id for row in rows])
        if expected > self.left_s:
            return False
        number = self._counts.get(group, 0)
        arms = self.order(group, "control" if group == CONTROL_GROUP else "head")
        shuffled = random.Random(f"{self.run.seed}-{group}-{number}").sample(list(rows), len(rows))
        started = self.elapsed_s
        processes = self._together(arms, number, group, shuffled, decider.phase, expected)
        if not processes:
            return False
        self._estimate.add(group, self.elapsed_s - started, processes)
        for process in processes:
            paired_run.append_process(self.folder, process)
        decider.add(*processes)
        return True

    def order(self, group: str, other: ArmName) -> tuple[ArmName, ArmName]:
        """The order of the next pair of a group; `other` is the arm that is compared with the base."""
        number = self._counts.get(group, 0)
        self._counts[group] = number + 1
        return ("base", other) if self._base_first(group, number) else (other, "base")

    def _base_first(self, group: str, number: int) -> bool:
        """Random order in blocks of two: of two consecutive pairs, one has each order."""
        orders = self._orders.setdefault(group, [])
        while len(orders) <= number:
            first = random.Random(f"{self.run.seed}-{group}-order-{len(orders)}").random() < 0.5
            orders += [first, not first]
        return orders[number]

    def _together(
        self,
        arms: tuple[ArmName, ArmName],
        number: int,
        group: str,
        rows: Sequence[PairedRow],
        phase: str,
        expected: float,
    ) -> list[PairedProcess]:
        """Runs both processes of a pair, which take turns; the first of `arms` has the first turn. Returns an empty
        list if the budget ended before the processes did, which is not a failure."""
        limit_s, left_s = max(self.run.protocol.timeout_s, TIMEOUT_FACTOR * expected), max(self.left_s, 0.0)
        started, timeout = storage.now(), min(limit_s, left_s)
        self.referee.forget_late_comers()
        requests = [self._begin(arm, number, group, rows, timeout) for arm in arms]

        def gone() -> bool:
            return any(self.hosts.of(arm).ready(request) for arm, request in zip(arms, requests, strict=True))

        states, stuck = self.referee.run(arms, gone, timeout)
        replies = [self.hosts.of(arm).result(request, timeout) for arm, request in zip(arms, requests, strict=True)]
        if left_s < limit_s and any(reply.status == "timeout" for reply in replies):
            return []
        without_result = {arm for arm, reply in zip(arms, replies, strict=True) if not reply.value}
        failed_arm = stuck if stuck in without_result else None
        processes = []
        for slot, (arm, reply) in enumerate(zip(arms, replies, strict=True)):
            host = self.hosts.of(arm)
            only_waited = failed_arm not in {None, arm}
            processes.append(
                PairedProcess(
                    pair=number,
                    slot=slot,
                    arm=arm,
                    group=group,
                    phase=phase,
                    server=host.renewals,
                    started=started,
                    elapsed_s=self.elapsed_s,
                    measurements=self._measurements(arm, rows, reply, states, only_waited=only_waited),
                    control_workload=reply.value.control_workload if reply.value else {},
                    control_workload_contended=self._contended_at_first(states),
                )
            )
            if reply.status == "timeout":
                host.renew()
        return processes

    def _contended_at_first(self, states: Mapping[int, Mapping[str, Any]]) -> Reason | None:
        """Why the control workload was contended; None if it was not. It comes first in a process.

        The referee reads no GPU counters. Whether a GPU is measured decides how much of the CPU other processes may use
        (`harness.measuring.contention`)."""
        state = states.get(CONTROL_WORKLOAD_ROW, {})
        return contention.contended({**state, "gpu": {}} if DEVICES[self.run.device].is_gpu else state)

    def _begin(self, arm: ArmName, number: int, group: str, rows: Sequence[PairedRow], timeout: float) -> int:
        jobs = [self.job(row, arm, number) for row in rows]
        jobs = [replace(j, protocol=replace(j.protocol, timeout_s=timeout / len(jobs))) for j in jobs]
        cpus = shared_cpus(number, self.run.threads)
        packages, address = self.packages(arm), self.referee.address
        process = ProcessJob(
            jobs=tuple(jobs),
            control_workload=group != CONTROL_GROUP,  # a pair of the A/A control does not need the control workload
            referee=address,
            arm=arm,
            cpus=cpus,
            packages=packages,
        )
        return self.hosts.of(arm).begin(MEASURE, process)

    def proven(self, row: PairedRow, arm: ArmName, measurement: Measurement) -> Measurement:
        """The measurement, made `invalid` if it disagrees with the first measurement of this row and arm
        (`harness.measuring.process_agreement`)."""
        code: ArmName = "head" if arm == "head" else "base"  # the control runs the code of the base
        first = self._proofs.get((row.id, code))
        if first is None and measurement.status == "ok":
            self._proofs[row.id, code] = measurement
        return process_agreement.checked(first, measurement, self.run.device, strict=True)

    def packages(self, arm: ArmName) -> tuple[str, ...]:
        """The packages of the project under test in the code of this arm."""
        return tuple(self.run.arms[1 if arm == "head" else 0].get("packages", ()))

    def expect(self, alone: Mapping[str, Sequence[Measurement]]) -> None:
        """Estimates from the preflight of both arms how many seconds a row needs in a pair."""
        for row in self.run.rows:
            if row.interleaving is not None and row.id in alone:
                self._estimate.expect(row.id, sum(seconds_in_pair(m, row.interleaving) for m in alone[row.id]))

    def _measurements(
        self,
        arm: ArmName,
        rows: Sequence[PairedRow],
        reply: Reply,
        states: Mapping[int, Mapping[str, Any]],
        *,
        only_waited: bool,
    ) -> dict[str, Measurement]:
        """The measurements of the process by row id. If the process ended early, the row that it was measuring failed,
        and its later rows have no measurement in this pair. If the process was only waiting for the other arm's turn to
        end (`only_waited`), none of its rows failed."""
        result: ProcessResult = reply.value or ProcessResult()
        measured = [
            _of_pair(self.proven(row, arm, m), states.get(i))
            for i, (row, m) in enumerate(zip(rows, result.measurements, strict=False))
        ]
        found = {row.id: m for row, m in zip(rows, measured, strict=False)}
        if reply.value is None and not only_waited:
            failed = rows if reply.row is None else rows[reply.row : reply.row + 1]
            status: Any = reply.status if reply.status != "ok" else "failed"
            reason = reply.reason or Reason("no_result")
            found |= {r.id: Measurement(case=r.case(arm), replicate=0, status=status, reason=reason) for r in failed}
        oom = {name: m for name, m in found.items() if m.status == "oom"}
        found |= {n: replace(m, reason=Reason("beside_the_other_arm", {"reason": m.reason})) for n, m in oom.items()}
        for name, measurement in found.items():
            if measurement.status != "ok":
                self._broken[name] = f"{arm}: {measurement.status}: {measurement.reason}"
        return found

    def job(self, row: PairedRow, arm: ArmName, number: int) -> Job:
        """The timed pass of one row."""
        case = row.case(arm)
        return Job(
            case=case,
            replicate=number,
            protocol=self.run.protocol,
            device=self.run.device,
            folder=self.folder,
            cache=self.cache(arm, case),
            threads=self.run.threads,
            plugins=self.plugins,
            only=PAIR_PROBES,
            injections=tuple(self.run.arms[1 if arm == "head" else 0]["injections"]),
            interleaving=row.interleaving,
        )

    def cache(self, arm: ArmName, case: Case) -> Path:
        """The folder for the compiled kernels and exports of one case. Each arm has its own."""
        return self.caches / ("head" if arm == "head" else "base") / case.id

    def _renewal_s(self) -> float:
        """The seconds that the hosts, which start at the same time, took to start last time."""
        return max(host.start_s for host in self.hosts.all())


def _of_pair(measurement: Measurement, state: Mapping[str, Any] | None) -> Measurement:
    """The measurement with the machine's state as the referee read it, which does not count the other arm as another
    process. Only the facts in PAIR_FACTS are stored; the others are equal in all processes and in the preflight."""
    facts = cast("Facts", {k: v for k, v in measurement.facts.items() if k in PAIR_FACTS})
    kept = (w for w in measurement.warnings if not contention.is_contention(w))
    seen = cast("State", {**measurement.state, **(state or {}), "peers": 1})
    found = contention.contended(seen)
    return replace(measurement, facts=facts, state=seen, warnings=(*kept, found) if found else tuple(kept))
