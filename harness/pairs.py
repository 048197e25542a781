"""Measures pairs of blocks, base against head, until the judge has decided or the budget is spent.

A round is one pair of each group of rows that still needs one. The two processes of a pair take turns
(`harness.turns`); of each two consecutive pairs of a group one begins with the base, the other with the head, in random
order. Every round also measures the A/A control: a row of the base arm against a second copy of itself.

All processes of one fork server share its memory layout, so servers are renewed every RENEWAL rounds. Where the arms
have a server each, the difference of the two layouts is an offset of all their pairs, which no number of pairs of the
same servers shows: they are renewed every RENEWAL_APART rounds, so that it becomes noise between pairs. Where the
offsets of the servers have a standard deviation of 0.8 % and the processes one of 0.5 %, renewal every 8 rounds calls a
row that is 3 % slower unchanged in 149 of 1,000 runs and alarms in 21 of 1,000 A/A runs; renewal every 2 rounds does so
in 7 and in none (a smaller version is in `tests/test_detector_table.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from harness import contention, paired, storage
from harness.arm_process import ArmProcess
from harness.blocks import SENTINEL_ROW, BlockJob, BlockResult
from harness.measure import Job
from harness.paired import CONTROL_GROUP, COPY, Block, PairedRow, PairedRun, Side
from harness.timing import perf_counter
from harness.turns import Interleaving, Referee, shared_cpus
from harness.types import Case, Measurement
from harness.worker import Reply

RENEWAL: Final = 8
RENEWAL_APART: Final = 2
BLOCK_PROBES: Final = ("startup", "latency")
TURN_S: Final = 0.03
MAX_TURN_SAMPLES: Final = 12
MIN_TURNS, MAX_TURNS = 4, 10
SAMPLE_S: Final = 0.3
WARM_UP_S: Final = 0.05
MIN_WARM_UPS: Final = 3
PATIENCE: Final = 5.0
WORTH: Final = 3.0  # servers are not renewed for what is less than this many times the renewal
BLOCK_FACTS: Final = ("work_hash", "weights_hash", "output_hash", "output_shape", "loops", "turns", "injected")


class Judge(Protocol):
    """Who decides. Rows that are not wanted are left out of the next blocks."""

    @property
    def phase(self) -> str: ...
    def wanted(self) -> set[str]: ...
    def add(self, first: Block, second: Block) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The host of each arm; `control` serves the second copy of the base."""

    base: ArmProcess
    head: ArmProcess
    control: ArmProcess

    def of(self, side: Side) -> ArmProcess:
        return {"base": self.base, "head": self.head, "control": self.control}[side]

    def all(self) -> list[ArmProcess]:
        return list(dict.fromkeys((self.base, self.head, self.control)))

    def due(self, rounds: int) -> list[ArmProcess]:
        """The servers that are renewed after so many rounds. The control's own decides about no row: it lives on."""
        if rounds % RENEWAL == 0:
            return self.all()
        apart = self.base is not self.head
        return [self.base, self.head] if apart and rounds % RENEWAL_APART == 0 else []


def renew(servers: Sequence[ArmProcess]) -> None:
    """All of them anew, side by side."""
    for server in servers:
        server.begin_renewal()
    for server in servers:
        server.end_renewal()


@dataclass(kw_only=True)
class Pairs:
    """The measuring side of one paired run. `began` is the clock when the budget began to count."""

    run: PairedRun
    folder: Path
    servers: Servers
    referee: Referee
    plugins: tuple[str, ...]
    caches: Path
    began: float
    say: Callable[[str], None]
    _orders: dict[str, list[bool]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _estimate: Estimate = field(default_factory=lambda: Estimate())
    _broken: dict[str, str] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        return perf_counter() - self.began

    @property
    def left_s(self) -> float:
        return self.run.budget_s - self.elapsed_s

    def measure(self, judge: Judge) -> str:
        """Rounds until nothing is wanted or no further pair fits into the budget; why it ended."""
        rounds = 0
        while wanted := self._groups(judge.wanted()):
            if rounds and self.left_s > WORTH * self._renewal_s():
                renew(self.servers.due(rounds))
            fitted = [self._pair(group, rows, judge) for group, rows in wanted.items()]
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
            only_sentinels = not groups and COPY not in wanted
            groups[control.group if only_sentinels else CONTROL_GROUP] = [control]
        return groups

    def _pair(self, group: str, rows: Sequence[PairedRow], judge: Judge) -> bool:
        """One pair of blocks, stored and judged; False where it would not fit into what is left of the budget."""
        expected = self._estimate.seconds(group, [row.id for row in rows])
        if expected > self.left_s:
            return False
        number = self._counts.get(group, 0)
        self._counts[group] = number + 1
        other: Side = "control" if group == CONTROL_GROUP else "head"
        sides: tuple[Side, Side] = ("base", other) if self._base_first(group, number) else (other, "base")
        shuffled = random.Random(f"{self.run.seed}-{group}-{number}").sample(list(rows), len(rows))
        started = self.elapsed_s
        blocks = self._together(sides, number, group, shuffled, judge.phase, expected)
        self._estimate.add(group, self.elapsed_s - started, blocks)
        for block in blocks:
            paired.append_block(self.folder, block)
        judge.add(*blocks)
        return True

    def _base_first(self, group: str, number: int) -> bool:
        """Random permuted ABBA: two consecutive pairs have both orders, in random order."""
        orders = self._orders.setdefault(group, [])
        while len(orders) <= number:
            first = random.Random(f"{self.run.seed}-{group}-order-{len(orders)}").random() < 0.5
            orders += [first, not first]
        return orders[number]

    def _together(
        self, sides: tuple[Side, Side], number: int, group: str, rows: Sequence[PairedRow], phase: str, expected: float
    ) -> list[Block]:
        """Both blocks of a pair, side by side and in turns; the first of `sides` has the first turn."""
        started, timeout = storage.now(), max(30.0, PATIENCE * expected)
        self.referee.forget_late_comers()
        asked = [self._begin(side, number, rows, timeout) for side in sides]

        def gone() -> bool:
            return any(self.servers.of(side).ready(number) for side, number in zip(sides, asked, strict=True))

        states, stuck = self.referee.run(*sides, gone, timeout)
        replies = [self.servers.of(s).result(request, timeout) for s, request in zip(sides, asked, strict=True)]
        culprit = stuck if any(s == stuck and not r.value for s, r in zip(sides, replies, strict=True)) else None
        blocks = []
        for slot, (side, reply) in enumerate(zip(sides, replies, strict=True)):
            server = self.servers.of(side)
            victim = culprit not in {None, side}
            blocks.append(
                Block(
                    pair=number,
                    slot=slot,
                    arm=side,
                    group=group,
                    phase=phase,
                    server=server.renewals,
                    started=started,
                    elapsed_s=self.elapsed_s,
                    measurements=self._measurements(side, rows, reply, states, victim=victim),
                    sentinel=reply.value.sentinel if reply.value else {},
                    sentinel_contended=contention.contended(states.get(SENTINEL_ROW, {})),
                )
            )
            if reply.status == "timeout":
                server.renew()
        return blocks

    def _begin(self, side: Side, number: int, rows: Sequence[PairedRow], timeout: float) -> int:
        jobs = [self.job(row, side, number) for row in rows]
        jobs = [replace(j, protocol=replace(j.protocol, timeout_s=timeout / len(jobs))) for j in jobs]
        cpus = shared_cpus(number, self.run.threads)
        block = BlockJob(jobs=tuple(jobs), referee=self.referee.address, side=side, cpus=cpus)
        return self.servers.of(side).begin("block", block)

    def _measurements(
        self,
        side: Side,
        rows: Sequence[PairedRow],
        reply: Reply,
        states: Mapping[int, Mapping[str, Any]],
        *,
        victim: bool,
    ) -> dict[str, Measurement]:
        """What the block gave by row. Where it ended early, the row in which it did so failed, and the others have
        nothing in this pair; where it only waited for the other arm's turn to end (`victim`), no row of it failed."""
        result: BlockResult = reply.value or BlockResult()
        measured = [_of_pair(m, states.get(i)) for i, m in enumerate(result.measurements)]
        found = {row.id: m for row, m in zip(rows, measured, strict=False)}
        if reply.value is None and not victim:
            guilty = [row for row in rows if row.case(side).id == reply.phase] or rows
            status: Any = reply.status if reply.status != "ok" else "failed"
            reason = reply.reason or "the block's process gave no result"
            found |= {r.id: Measurement(case=r.case(side), replicate=0, status=status, reason=reason) for r in guilty}
        for name, measurement in found.items():
            if measurement.status != "ok":
                self._broken[name] = f"{side}: {measurement.status}: {measurement.reason}"
        return found

    def job(self, row: PairedRow, side: Side, number: int) -> Job:
        """The timed pass of one row."""
        case = row.case(side)
        return Job(
            case=case,
            replicate=number,
            protocol=self.run.protocol,
            device=self.run.device,
            folder=self.folder,
            cache=self.cache(side, case),
            threads=self.run.threads,
            plugins=self.plugins,
            only=BLOCK_PROBES,
            injections=tuple(self.run.arms[1 if side == "head" else 0]["injections"]),
            interleaving=row.interleaving,
        )

    def cache(self, side: Side, case: Case) -> Path:
        """Where compiled kernels and exports of one case are kept: each arm has its own."""
        return self.caches / ("head" if side == "head" else "base") / case.id

    def _renewal_s(self) -> float:
        """Seconds that starting the servers took last time; they start side by side."""
        return max(server.start_s for server in self.servers.all())


class Estimate:
    """Seconds that a pair will take: each row's own, and what the processes of its group cost beside the rows."""

    def __init__(self) -> None:
        self._rows: dict[str, float] = {}
        self._overhead: dict[str, float] = {}

    def add(self, group: str, seconds: float, blocks: Sequence[Block]) -> None:
        rows: dict[str, float] = {}
        for block in blocks:
            for row, measurement in block.measurements.items():
                rows[row] = max(rows.get(row, 0.0), measurement.duration_s or 0.0)
        self._rows |= rows
        self._overhead[group] = max(0.0, seconds - sum(rows.values()))

    def seconds(self, group: str, rows: Sequence[str]) -> float:
        """The last pair's own seconds; a row or a group that was never measured counts as the longest of the others."""
        longest, overhead = max(self._rows.values(), default=1.0), max(self._overhead.values(), default=1.0)
        return self._overhead.get(group, overhead) + sum(self._rows.get(row, longest) for row in rows)


def interleaved(row: PairedRow, latency_s: float) -> PairedRow:
    """The row with its turns and counts, from one latency of the base arm; equal in both arms.

    A turn is as long as the machine's speed stays about the same (`harness.turns`), but at least one iteration.
    """
    samples = min(max(round(TURN_S / latency_s), 1), MAX_TURN_SAMPLES)
    turns = min(max(math.ceil(SAMPLE_S / (samples * latency_s)), MIN_TURNS), MAX_TURNS)
    warmups = max(MIN_WARM_UPS, math.ceil(WARM_UP_S / latency_s))
    counts = Interleaving(
        warmups=warmups, turns=turns + turns % 2, samples=samples, discarded=1 if latency_s < TURN_S / 2 else 0
    )
    return replace(row, interleaving=counts)


def _of_pair(measurement: Measurement, state: Mapping[str, Any] | None) -> Measurement:
    """The measurement with the machine's state as the referee saw it (the other arm is no stranger), and with the
    facts that prove its work; the rest is the same in every block and in the preflight."""
    facts = {k: v for k, v in measurement.facts.items() if k in BLOCK_FACTS}
    kept = tuple(w for w in measurement.warnings if not w.startswith("contended"))
    seen = {**measurement.state, **(state or {}), "peers": 1}
    return replace(measurement, facts=facts, state=seen, warnings=(*kept, *contention.warnings(seen)))
