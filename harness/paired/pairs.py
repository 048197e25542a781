"""Measures pairs of processes, base against head, until every row is decided or the budget is spent.

A round is one pair of each group of rows that still needs one. The two processes of a pair take turns
(`harness.measuring.turns`). Of each two consecutive pairs of a group, one begins with the base and the other one with
the head, in random order. Every round also measures the A/A control, which is a row of the base arm against a second
copy of itself.

All processes of one fork server share its memory layout, so the arms' hosts, each of which holds a fork server, are
renewed every RENEWAL rounds. Where the arms have a host each, the difference of the two layouts is an offset of all
their pairs, which no number of pairs of the same hosts shows. Those hosts are renewed every RENEWAL_APART rounds, so
that the offset becomes noise between pairs. Where the offsets have a standard deviation of 0.8 % and the processes one
of 0.5 %, renewal every 8 rounds calls a row that is 3 % slower unchanged in 143 of 1,000 runs; renewal every 2 rounds
does so in 4 (100 runs of each are in `tests/test_detector_table.py`). The fresh pairs of a suspicion begin with new
hosts, too.
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
from harness.paired.hosts import ArmHost
from harness.paired.pair_duration import PairDuration, seconds_in_pair
from harness.paired.paired_process import CONTROL_WORKLOAD_ROW, ProcessJob, ProcessResult
from harness.paired.paired_run import CONTROL_GROUP, COPY, ArmName, PairedProcess, PairedRow, PairedRun
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
PATIENCE: Final = 5.0  # times the expected duration of a pair
WORTH: Final = 3.0  # hosts are not renewed for remaining work of less than this many times the renewal
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
    """Decides about the rows. Those that are not wanted are left out of the next pairs."""

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
        """The hosts that are renewed after so many rounds; those of arms apart in another phase, too, so that a
        suspicion's fresh pairs have fresh ones. The control's own decides about no row and is kept."""
        if rounds % RENEWAL == 0:
            return self.all()
        apart = self.base is not self.head
        return [self.base, self.head] if apart and (another_phase or rounds % RENEWAL_APART == 0) else []


def renew(hosts: Sequence[ArmHost]) -> None:
    """Restarts all of them at the same time."""
    for host in hosts:
        host.begin_renewal()
    for host in hosts:
        host.end_renewal()


@dataclass(kw_only=True)
class Pairs:
    """The measuring part of one paired run. `began` is the clock when the budget began to count."""

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
        """Measures rounds until every row is decided or no further pair fits into the budget; returns why it ended."""
        rounds, phase = 0, decider.phase
        while wanted := self._groups(decider.wanted()):
            if rounds and self.left_s > WORTH * self._renewal_s():
                renew(self.hosts.due(rounds, another_phase=decider.phase != phase))
            phase = decider.phase
            fitted = [self._pair(group, rows, decider) for group, rows in wanted.items()]
            if not any(fitted):
                return "budget"
            rounds += 1
        return "decided"

    def _groups(self, wanted: set[str]) -> dict[str, list[PairedRow]]:
        """Rows to measure by group. A wanted control without any wanted row still gets its pairs."""
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
        """Measures and stores one pair of processes; False where it did not fit into what is left of the budget."""
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
        """Random permuted ABBA: two consecutive pairs have both orders, in random order."""
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
        """Both processes of a pair, at the same time and in turns; the first of `arms` has the first turn. Empty if
        the budget ended before they did, which is not a failure."""
        patience, left_s = max(self.run.protocol.timeout_s, PATIENCE * expected), max(self.left_s, 0.0)
        started, timeout = storage.now(), min(patience, left_s)
        self.referee.forget_late_comers()
        asked = [self._begin(arm, number, group, rows, timeout) for arm in arms]

        def gone() -> bool:
            return any(self.hosts.of(arm).ready(number) for arm, number in zip(arms, asked, strict=True))

        states, stuck = self.referee.run(arms, gone, timeout)
        replies = [self.hosts.of(arm).result(request, timeout) for arm, request in zip(arms, asked, strict=True)]
        if left_s < patience and any(reply.status == "timeout" for reply in replies):
            return []
        without = {arm for arm, reply in zip(arms, replies, strict=True) if not reply.value}
        culprit = stuck if stuck in without else None
        processes = []
        for slot, (arm, reply) in enumerate(zip(arms, replies, strict=True)):
            host = self.hosts.of(arm)
            victim = culprit not in {None, arm}
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
                    measurements=self._measurements(arm, rows, reply, states, victim=victim),
                    sentinel=reply.value.sentinel if reply.value else {},
                    sentinel_contended=self._contended_at_first(states),
                )
            )
            if reply.status == "timeout":
                host.renew()
        return processes

    def _contended_at_first(self, states: Mapping[int, Mapping[str, Any]]) -> Reason | None:
        """Why the control workload was contended; None if it was not. The referee reads no GPU; whether one was
        measured decides how much of the CPU others may use (`harness.measuring.contention`)."""
        state = states.get(CONTROL_WORKLOAD_ROW, {})
        return contention.contended({**state, "gpu": {}} if DEVICES[self.run.device].is_gpu else state)

    def _begin(self, arm: ArmName, number: int, group: str, rows: Sequence[PairedRow], timeout: float) -> int:
        jobs = [self.job(row, arm, number) for row in rows]
        jobs = [replace(j, protocol=replace(j.protocol, timeout_s=timeout / len(jobs))) for j in jobs]
        cpus = shared_cpus(number, self.run.threads)
        packages, address = self.packages(arm), self.referee.address
        process = ProcessJob(
            jobs=tuple(jobs),
            sentinel=group != CONTROL_GROUP,  # the A/A control's pair needs none
            referee=address,
            arm=arm,
            cpus=cpus,
            packages=packages,
        )
        return self.hosts.of(arm).begin(MEASURE, process)

    def proven(self, row: PairedRow, arm: ArmName, measurement: Measurement) -> Measurement:
        """The measurement, made `invalid` if it disagrees with the first one of this row and arm
        (`harness.measuring.process_agreement`), with which all others are compared."""
        code: ArmName = "head" if arm == "head" else "base"  # the control runs the base's
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
        victim: bool,
    ) -> dict[str, Measurement]:
        """The measurements of the process by row id. Where it ended early, the row in which it did so failed, and the
        others have nothing in this pair; where it only waited for the other arm's turn to end (`victim`), no row of it
        failed."""
        result: ProcessResult = reply.value or ProcessResult()
        measured = [
            _of_pair(self.proven(row, arm, m), states.get(i))
            for i, (row, m) in enumerate(zip(rows, result.measurements, strict=False))
        ]
        found = {row.id: m for row, m in zip(rows, measured, strict=False)}
        if reply.value is None and not victim:
            guilty = rows if reply.row is None else rows[reply.row : reply.row + 1]
            status: Any = reply.status if reply.status != "ok" else "failed"
            reason = reply.reason or Reason("no_result")
            found |= {r.id: Measurement(case=r.case(arm), replicate=0, status=status, reason=reason) for r in guilty}
        short = {name: m for name, m in found.items() if m.status == "oom"}
        found |= {n: replace(m, reason=Reason("beside_the_other_arm", {"reason": m.reason})) for n, m in short.items()}
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
        """Where compiled kernels and exports of one case are kept: each arm has its own."""
        return self.caches / ("head" if arm == "head" else "base") / case.id

    def _renewal_s(self) -> float:
        """Seconds that starting the hosts took last time; they start at the same time."""
        return max(host.start_s for host in self.hosts.all())


def _of_pair(measurement: Measurement, state: Mapping[str, Any] | None) -> Measurement:
    """The measurement with the machine's state as the referee saw it (the other arm is not counted as another
    process), and with the facts that prove its work. Other facts are equal in all processes and in the preflight."""
    facts = cast("Facts", {k: v for k, v in measurement.facts.items() if k in PAIR_FACTS})
    kept = (w for w in measurement.warnings if not contention.is_contention(w))
    seen = cast("State", {**measurement.state, **(state or {}), "peers": 1})
    found = contention.contended(seen)
    return replace(measurement, facts=facts, state=seen, warnings=(*kept, found) if found else tuple(kept))
