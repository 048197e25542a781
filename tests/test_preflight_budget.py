"""The preflight and the first pair within a budget: what the end of the budget cuts off is nobody's failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paired_fixture import new_paired_run

from harness.measuring.turns import Interleaving
from harness.paired import paired_run, preflight
from harness.paired import pairs as pairs_room
from harness.paired.pair_duration import PairDuration, interleaved, seconds_in_pair
from harness.paired.paired_process import ProcessJob, ProcessResult
from harness.paired.paired_run import PairedProcess, PairedRow, row_of
from harness.paired.pairs import ArmHosts, Pairs
from harness.processes.endings import Reply
from harness.reasons import Reason, stated
from harness.types import Case, Measurement, Metric, Protocol

TIMEOUT_S = 60.0


class Clock:
    now = 0.0


class Server:
    """A host whose blocks take `seconds` by the test's own clock, and are killed where they are given less."""

    def __init__(self, clock: Clock, seconds: Callable[[Case], float], status: str = "ok") -> None:
        self.clock, self.seconds, self.status = clock, seconds, status
        self.cases: list[Case] = []
        self.renewals = self.asked = 0
        self.ended = False
        self.start_s = 1.0
        self.replies: dict[int, Reply] = {}

    def call(self, _command: str, block: ProcessJob, timeout_s: float) -> Reply:
        assert block.packages == ("tiny",)
        job = block.jobs[0]
        self.cases.append(job.case)
        needed = self.seconds(job.case)
        self.clock.now += min(needed, timeout_s)
        if needed > timeout_s:
            return Reply(status="timeout", reason=stated(f"no result after {timeout_s:g} s"))
        measured = Measurement(case=job.case, replicate=0, status="ok", samples={"latency_s": [0.01]})
        metric = Metric(name="top1", unit="1", label="", better="higher", kind="quality_item", description="")
        return Reply(value=ProcessResult(measurements=(measured,), metrics=(metric,)))

    def begin(self, _command: str, block: ProcessJob) -> int:
        self.asked += 1
        if self.status == "oom":
            self.replies[self.asked] = Reply(status="oom", reason=stated("killed by the kernel"), row=0)
        else:
            self.replies[self.asked] = self.call("block", block, sum(j.protocol.timeout_s for j in block.jobs))
        return self.asked

    def ready(self, _number: int) -> bool:
        return True

    def result(self, number: int, _timeout_s: float) -> Reply:
        return self.replies[number]

    def renew(self) -> None:
        self.renewals += 1


class Referee:
    address = ""

    def forget_late_comers(self) -> None: ...

    def run(self, *_arguments: Any) -> tuple[dict[int, Any], None]:
        return {}, None


class Heard:
    """A judge that wants everything and remembers."""

    phase = "screen"

    def __init__(self) -> None:
        self.blocks: list[PairedProcess] = []

    def wanted(self) -> set[str]:
        return {row.id for row in planned(2)}

    def add(self, first: PairedProcess, second: PairedProcess) -> None:
        self.blocks += [first, second]


def planned(count: int) -> tuple[PairedRow, ...]:
    cases = [Case(model="m", batch_size=i + 1) for i in range(count)]
    return tuple(row_of(case, case) for case in cases)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pairs_room, "perf_counter", lambda: clock.now)
    return clock


def pairs_of(folder: Path, base: Server, head: Server, budget_s: float, rows: int = 2, **changes: Any) -> Pairs:
    arms = ({"text": "", "injections": (), "packages": ("tiny",)},) * 2
    run = new_paired_run(rows=planned(rows), budget_s=budget_s, arms=arms, protocol=Protocol(timeout_s=TIMEOUT_S))
    hosts: Any = ArmHosts(base=base, head=head, control=base)  # type: ignore[arg-type]
    referee: Any = Referee()
    return Pairs(
        run=replace(run, **changes),
        folder=folder,
        hosts=hosts,
        referee=referee,
        plugins=(),
        caches=folder,
        began=0.0,
        say=lambda _text: None,
    )


def stored(folder: Path) -> list[tuple[str, str]]:
    return [(row, arm) for row, arm, _ in paired_run.preflight(folder)]


@pytest.mark.parametrize("slow", ["base", "head"])
def test_a_time_out_that_the_budget_caused_stores_nothing_of_the_row(slow: str, clock: Clock, tmp_path: Path) -> None:
    """The first row takes 2 x 10 s; of the second one arm fits into the 30 s, and the other does not."""
    sides = {
        arm: Server(clock, lambda case, arm=arm: 40.0 if (case.batch_size, arm) == (2, slow) else 10.0)  # type: ignore[misc]
        for arm in ("base", "head")
    }
    pairs = pairs_of(tmp_path, sides["base"], sides["head"], budget_s=30.0)
    preflight.preflight(pairs, pairs.run.rows, ("latency",))
    first = pairs.run.rows[0].id
    assert sorted(stored(tmp_path)) == [(first, "base"), (first, "head")]
    assert clock.now == 30.0
    assert (sides["base"].renewals, sides["head"].renewals) == (0, 0)


def test_nothing_starts_when_the_budget_is_spent(clock: Clock, tmp_path: Path) -> None:
    base, head = Server(clock, lambda _case: 4.0), Server(clock, lambda _case: 4.0)
    pairs = pairs_of(tmp_path, base, head, budget_s=10.0, rows=12)
    preflight.preflight(pairs, pairs.run.rows, ("latency",))
    assert len(stored(tmp_path)) == 2
    assert len(base.cases) + len(head.cases) == 3
    before = clock.now
    preflight.preflight(pairs, pairs.run.rows, ("memory",), 1)
    assert preflight.quality(pairs, pairs.run.rows) == {}
    assert (clock.now, base.renewals + head.renewals) == (before, 0)


def test_a_time_out_of_the_suites_own_is_a_finding(clock: Clock, tmp_path: Path) -> None:
    base, head = Server(clock, lambda _case: 1.0), Server(clock, lambda case: 90.0 if case.batch_size == 1 else 1.0)
    pairs = pairs_of(tmp_path, base, head, budget_s=600.0)
    preflight.preflight(pairs, pairs.run.rows, ("latency",))
    found = {(row, arm): m.status for row, arm, m in paired_run.preflight(tmp_path)}
    assert found[pairs.run.rows[0].id, "head"] == "timeout"
    assert sorted(found.values()) == ["ok", "ok", "ok", "timeout"]
    assert head.renewals == 1


def test_quality_that_its_share_cut_off_costs_no_server_that_still_answers(clock: Clock, tmp_path: Path) -> None:
    """A quarter of 100 s: the first row's 2 x 10 s fit, and of the second row nothing is stored."""
    base, head = Server(clock, lambda _case: 10.0), Server(clock, lambda _case: 10.0)
    pairs = pairs_of(tmp_path, base, head, budget_s=100.0)
    assert list(preflight.quality(pairs, pairs.run.rows)) == ["top1"]
    assert len(stored(tmp_path)) == 2
    assert (clock.now, base.renewals + head.renewals) == (25.0, 0)
    for server in (base, head):
        server.ended = True  # it did not even answer that the time was over
    preflight.quality(pairs, pairs.run.rows)
    assert base.renewals + head.renewals == 1


def test_each_arm_is_first_in_one_of_two_rows(clock: Clock, tmp_path: Path) -> None:
    order: list[str] = []
    base = Server(clock, lambda _case: order.append("base") or 1.0)  # type: ignore[func-returns-value]
    head = Server(clock, lambda _case: order.append("head") or 1.0)  # type: ignore[func-returns-value]
    pairs = pairs_of(tmp_path, base, head, budget_s=600.0, rows=8)
    preflight.preflight(pairs, pairs.run.rows, ("latency",))
    first = order[::2]
    assert all({first[i], first[i + 1]} == {"base", "head"} for i in range(0, 8, 2))


def test_what_is_expected_of_a_pair_comes_from_the_preflight() -> None:
    counts = Interleaving(warmups=3, turns=4, samples=1, discarded=0)
    alone = Measurement(
        case=Case(model="m"),
        replicate=0,
        status="ok",
        samples={"latency_s": [2.0, 2.0], "load_s": [1.0], "build_s": [60.0], "first_call_s": [3.0]},
    )
    assert seconds_in_pair(alone, counts) == 1.0 + 3.0 + 2.0 * 7  # the blocks find the build on disk
    estimate = PairDuration()
    estimate.expect("row", 36.0)
    assert estimate.seconds("group", ["row"]) == 37.0


def timed(rows: tuple[PairedRow, ...], latency_s: float) -> tuple[PairedRow, ...]:
    return tuple(interleaved(row, latency_s) for row in rows)


@pytest.mark.parametrize(("latency_s", "least"), [(0.001, TIMEOUT_S), (10.0, 5 * 2 * 2 * 50.0)])
def test_a_block_may_take_what_its_rows_need_and_what_the_suite_allows(
    latency_s: float, least: float, clock: Clock, tmp_path: Path
) -> None:
    given: list[float] = []
    base = Server(clock, lambda _case: 1.0)
    plain = base.call

    def call(command: str, block: ProcessJob, timeout_s: float) -> Reply:
        given.append(timeout_s)
        return plain(command, block, timeout_s)

    base.call = call  # type: ignore[method-assign]
    pairs = pairs_of(tmp_path, base, base, budget_s=1e6, rows=2)
    pairs.run = replace(pairs.run, rows=timed(pairs.run.rows, latency_s))
    alone = Measurement(case=Case(model="m"), replicate=0, status="ok", samples={"latency_s": [latency_s]})
    pairs.expect({row.id: [alone, alone] for row in pairs.run.rows})
    assert pairs._pair("m", pairs.run.rows, Heard())
    assert min(given) >= least


def test_a_pair_that_the_budget_cuts_off_is_nobodys_failure(clock: Clock, tmp_path: Path) -> None:
    base, head = Server(clock, lambda _case: 8.0), Server(clock, lambda _case: 80.0)
    pairs = pairs_of(tmp_path, base, head, budget_s=50.0)
    pairs.run = replace(pairs.run, rows=timed(pairs.run.rows, 0.001))
    heard = Heard()
    assert pairs.measure(heard) == "budget"
    assert heard.blocks == []
    assert clock.now <= 60.0
    assert not list(paired_run.processes(tmp_path))
    assert base.renewals + head.renewals == 0


def test_a_pair_that_took_too_long_by_its_suite_is_a_failure(clock: Clock, tmp_path: Path) -> None:
    base, head = Server(clock, lambda _case: 8.0), Server(clock, lambda _case: 80.0)
    pairs = pairs_of(tmp_path, base, head, budget_s=900.0)
    pairs.run = replace(pairs.run, rows=timed(pairs.run.rows, 0.001))
    heard = Heard()
    assert pairs._pair("m", pairs.run.rows, heard)
    assert {m.status for b in heard.blocks if b.arm == "head" for m in b.measurements.values()} == {"timeout"}
    assert head.renewals == 1


def test_memory_that_runs_out_in_a_pair_says_that_both_arms_were_there(clock: Clock, tmp_path: Path) -> None:
    base, head = Server(clock, lambda _case: 1.0), Server(clock, lambda _case: 1.0, status="oom")
    pairs = pairs_of(tmp_path, base, head, budget_s=900.0)
    pairs.run = replace(pairs.run, rows=timed(pairs.run.rows, 0.001))
    heard = Heard()
    pairs._pair("m", pairs.run.rows, heard)
    (broken,) = (m for b in heard.blocks if b.arm == "head" for m in b.measurements.values())
    assert broken.status == "oom"
    assert broken.reason == Reason("beside_the_other_arm", {"reason": stated("killed by the kernel")})
