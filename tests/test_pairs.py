"""The measuring side of a paired run: which servers are renewed when, in which order, and what a pair costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paired_fixture import new_paired_run

from harness.paired.pair_duration import TURN_S, PairDuration, interleaved, seconds_in_pair
from harness.paired.paired_process import CONTROL_WORKLOAD_ROW, ProcessResult
from harness.paired.paired_run import row_of
from harness.paired.pairs import ArmHosts, Pairs
from harness.paired.preflight import with_counts
from harness.processes.endings import Reply
from harness.reasons import Reason
from harness.timing import perf_counter
from harness.types import Case, Measurement

ONE: Any = "server"
TWO: Any = "another server"
THREE: Any = "the control's server"


def test_servers_of_arms_that_have_one_each_are_renewed_every_second_round() -> None:
    apart = ArmHosts(base=ONE, head=TWO, control=THREE)
    assert [apart.due(rounds) for rounds in (1, 2, 3, 4)] == [[], [ONE, TWO], [], [ONE, TWO]]
    assert apart.due(8) == [ONE, TWO, THREE]
    assert apart.due(3, another_phase=True) == [ONE, TWO]  # for the fresh pairs of a suspicion


def test_one_server_for_both_arms_lives_for_eight_rounds() -> None:
    together = ArmHosts(base=ONE, head=ONE, control=ONE)
    assert [together.due(rounds) for rounds in (2, 4, 7)] == [[], [], []]
    assert together.due(8) == together.due(16) == [ONE]
    assert together.due(3, another_phase=True) == []


def pairs(seed: int) -> Pairs:
    nothing: Any = None
    return Pairs(
        run=new_paired_run(seed=seed),
        folder=Path(),
        hosts=ArmHosts(base=ONE, head=ONE, control=ONE),
        referee=nothing,
        plugins=(),
        caches=Path(),
        began=0.0,
        say=print,
    )


def test_of_two_consecutive_pairs_one_begins_with_each_arm_in_an_order_that_the_seed_fixes() -> None:
    first = [pairs(seed=1)._base_first("group", number) for number in range(64)]
    again = pairs(seed=1)
    assert [again._base_first("group", number) for number in range(64)] == first
    assert all(first[i] != first[i + 1] for i in range(0, 64, 2))
    assert 8 <= sum(first[::2]) <= 24  # the order of each two is random
    assert [pairs(seed=2)._base_first("group", number) for number in range(64)] != first


@pytest.mark.parametrize(
    ("latency_s", "samples", "discarded"), [(0.0005, 12, 1), (0.010, 3, 1), (0.1, 1, 0), (0.5, 1, 0)]
)
def test_a_turn_is_as_long_as_the_machine_is_steady_and_turns_are_even(
    latency_s: float, samples: int, discarded: int
) -> None:
    row = row_of(Case(model="m"), Case(model="m"))
    counts = interleaved(row, latency_s).interleaving
    assert counts is not None
    assert (counts.samples, counts.discarded) == (samples, discarded)
    assert counts.turns % 2 == 0
    assert (4 if latency_s == 0.5 else 6) <= counts.turns <= 10


@pytest.mark.parametrize(
    ("latency_s", "loops", "samples", "turns"),
    [
        (1e-4, 2, 12, 10),  # a CPU's sample of 0.2 ms: as many as before, since there is a most of them
        (1e-4, 40, 8, 10),  # a GPU's of 4 ms: eight of them are a turn of 32 ms
        (3e-3, 2, 5, 10),
    ],
)
def test_a_turn_counts_the_iterations_that_a_sample_holds(
    latency_s: float, loops: int, samples: int, turns: int
) -> None:
    row = row_of(Case(model="m"), Case(model="m"))
    base = Measurement(
        case=Case(model="m"), replicate=0, status="ok", samples={"latency_s": [latency_s]}, facts={"loops": loops}
    )
    (found,) = with_counts([row], {row.id: base})
    counts = found.interleaving
    assert counts is not None
    assert (counts.samples, counts.turns) == (samples, turns)
    assert counts.samples * loops * latency_s <= 1.1 * TURN_S
    sampled = latency_s * counts.turns * counts.samples * loops
    rest = latency_s * (counts.warmups + counts.turns * counts.discarded)
    assert seconds_in_pair(base, counts) == pytest.approx(sampled + rest)


class Answering:
    """A server whose blocks end at once with nothing but a control workload."""

    renewals = 0

    def begin(self, _command: str, _block: Any) -> int:
        return 0

    def ready(self, _number: int) -> bool:
        return True

    def result(self, _number: int, _timeout_s: float) -> Reply:
        return Reply(status="ok", value=ProcessResult(control_workload={"gemm": [1.0]}))


class Counting:
    """A referee that saw this of the machine while the control workload ran."""

    address = ""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def forget_late_comers(self) -> None:
        pass

    def run(self, *_arguments: Any) -> tuple[dict[int, dict[str, Any]], None]:
        return {CONTROL_WORKLOAD_ROW: self.state}, None


def control_workload_of(device: str, state: dict[str, Any]) -> set[Reason | None]:
    server: Any = Answering()
    referee: Any = Counting(state)
    row = row_of(Case(model="m"), Case(model="m"))
    measuring = pairs(seed=1)
    measuring.run = new_paired_run(device=device, rows=(row,), arms=({"injections": ()}, {"injections": ()}))
    measuring.hosts = ArmHosts(base=server, head=server, control=server)
    measuring.referee = referee
    measuring.began = perf_counter()
    blocks = measuring._together(("base", "head"), 0, row.group, [row], "screen", 1.0)
    return {block.control_workload_contended for block in blocks}


def test_beside_a_gpu_the_control_workload_leaves_others_a_share_of_the_free_cores() -> None:
    """Half a core of others on a host of 64 took every pair from the control workload, and none from the rows."""
    state = {"elapsed_s": 1.0, "other_cpu_s": 0.5, "own_cpu_s": 1.0, "cores": 64}
    assert control_workload_of("cuda", state) == {None}
    told = Reason("contended_cpu", {"used": 20.0, "left": 63.0})
    assert str(told) == (
        "contended: other processes used 2000 % of a core (32 % of the 63.0 cores left to them) during the measurement"
    )
    assert control_workload_of("cuda", {**state, "other_cpu_s": 20.0}) == {told}
    assert control_workload_of("cpu", state) == {Reason("contended_cpu", {"used": 0.5})}


FIRST, SECOND = Case(model="m", batch_size=1), Case(model="m", batch_size=2)


@pytest.mark.parametrize(
    ("reply", "failed"),
    [
        (Reply(status="failed", row=1), [SECOND]),
        (Reply(status="failed", phase="start"), [FIRST, SECOND]),
    ],
)
def test_the_row_in_which_a_process_ended_has_failed(reply: Reply, failed: list[Case]) -> None:
    rows = [row_of(case, case) for case in (FIRST, SECOND)]
    found = pairs(seed=1)._measurements("base", rows, reply, {}, only_waited=False)
    assert list(found) == [row_of(case, case).id for case in failed]


def test_a_pair_that_was_never_measured_is_expected_to_take_as_long_as_the_longest() -> None:
    estimate = PairDuration()
    assert estimate.seconds("group", ["row"]) == 2.0
    estimate._rows |= {"a": 1.0, "b": 3.0}
    estimate._overhead["group"] = 0.5
    assert estimate.seconds("group", ["a"]) == 1.5
    assert estimate.seconds("group", ["a", "new"]) == 4.5
