"""The plan of the rounds: who is measured beside whom, how often, for how long, and when it ends."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rounds_fixture import group_cases, rounds_run

from harness.sweeping import memory, planning, rounds, sweep
from harness.sweeping.planning import MEMBERS, MOST_ROUNDS
from harness.types import Control, Measurement, Protocol, Run

PLENTY = 1e12
START_S = 0.6


def prepared(groups: int = 2, rows: int = 3, **protocol: object) -> Run:
    """A run whose rows have been measured once, alone."""
    run = rounds_run(groups=groups, rows=rows, rounds=0)
    started = {"load_s": [START_S], "build_s": [0.0], "first_call_s": [0.0], "peak_host_bytes": [1e9]}
    measurements = tuple(replace(m, samples={**m.samples, **started}, duration_s=2.0) for m in run.measurements)
    return replace(run, measurements=measurements, protocol=Protocol(**{"ratio_interval": None, **protocol}))


def measured(planned: rounds.Round, run: Run, noise: random.Random, process_sd: float = 0.01) -> Run:
    """The run with a round, simulated: its processes differ by `process_sd`."""
    drift = noise.gauss(0, 0.2)
    for member in planned.members:
        turns = member.interleaving.turns
        log = math.log(0.01) + drift + noise.gauss(0, process_sd)
        samples = [math.exp(log + noise.gauss(0, 0.01)) for _ in range(turns * member.interleaving.samples)]
        found = Measurement(
            case=member.case,
            replicate=member.replicate,
            status="ok",
            round=planned.number,
            samples={"latency_s": samples, "load_s": [START_S], "build_cached_s": [0.0], "first_call_s": [0.0]},
            facts={"turns": turns, "alternates": planned.alternates},
            duration_s=planned.seconds,
        )
        if member.copy:
            run = replace(run, controls=(*run.controls, Control(side="copy", measurement=found)))
        else:
            run = replace(run, measurements=(*run.measurements, found))
    return run


def names(planned: rounds.Round) -> set[tuple[str, bool]]:
    return {(member.case.id, member.copy) for member in planned.members}


def test_a_cycle_visits_every_row_with_its_reference_and_the_copy_of_the_reference() -> None:
    run = prepared(groups=3, rows=2)
    planned = planning.cycle(planning.plan(run, free_bytes=PLENTY))
    assert len(planned) == 3
    assert [each.number for each in planned] == [1, 2, 3]
    groups = {frozenset((c.id, False) for c in group_cases(g, 2)) | {(group_cases(g, 2)[0].id, True)} for g in range(3)}
    assert {frozenset(names(each)) for each in planned} == groups
    assert all(each.alternates == "turns" for each in planned)


def test_a_large_group_is_split_into_rounds_that_each_hold_the_reference() -> None:
    run = prepared(groups=1, rows=13)
    planned = planning.cycle(planning.plan(run, free_bytes=PLENTY))
    reference = (group_cases(0, 13)[0].id, False)
    assert len(planned) == 3
    assert all(len(each.members) <= MEMBERS and reference in names(each) for each in planned)
    others = [name for each in planned for name in names(each) - {reference}]
    assert len(others) == len(set(others)) == 14


def test_without_a_ratio_interval_each_row_has_as_many_processes_as_the_protocol_says() -> None:
    run, noise = prepared(replicates=3), random.Random(0)
    cycles = 0
    while planned := planning.cycle(planning.plan(run, free_bytes=PLENTY)):
        cycles += 1
        for each in planned:
            run = measured(each, run, noise, process_sd=0.2)
    assert cycles == 2
    assert {len(found) for found in run.by_case.values()} == {3}
    numbers = [m.replicate for m in run.by_case[run.cases[0].id]]
    assert numbers == [0, 1, 2]


def test_rounds_go_on_for_the_rows_whose_interval_is_too_wide_and_for_no_other() -> None:
    run, noise = prepared(replicates=3, ratio_interval=0.03), random.Random(1)
    while planned := planning.cycle(found := planning.plan(run, free_bytes=PLENTY)):
        opened = {(entry.case.id, entry.copy) for group in found.groups for entry in found.open_entries(group)}
        visited = {name for each in planned for name in names(each)}
        assert visited - {(group.id, False) for group in found.groups} == opened
        for each in planned:
            run = measured(each, run, noise)
    final = planning.plan(run)
    widths = [r.half_width for r in (*final.ratios.of.values(), *final.ratios.controls.values())]
    assert len(widths) == 8
    assert all(width is not None and width <= 0.03 for width in widths)


def test_a_row_that_does_not_become_narrow_is_given_up_after_the_most_rounds() -> None:
    run, noise = prepared(groups=1, rows=1, replicates=2, ratio_interval=1e-6), random.Random(2)
    cycles = 0
    while planned := planning.cycle(planning.plan(run, free_bytes=PLENTY)):
        cycles += 1
        for each in planned:
            run = measured(each, run, noise)
    assert cycles == MOST_ROUNDS


def test_the_widest_interval_comes_first_where_not_all_rounds_fit() -> None:
    run, noise = prepared(groups=4, rows=1, replicates=3, ratio_interval=1e-4), random.Random(3)
    wide = group_cases(2, 1)[1]
    for _ in range(3):
        for each in planning.cycle(planning.plan(run, free_bytes=PLENTY)):
            run = measured(each, run, noise, process_sd=0.1 if wide in {m.case for m in each.members} else 0.002)
    first = planning.cycle(planning.plan(run, free_bytes=PLENTY), widest_first=True)[0]
    assert wide.id in {case_id for case_id, _ in names(first)}


def test_models_that_do_not_fit_together_alternate_process_by_process_in_the_order_abba() -> None:
    run = prepared(groups=1, rows=2)
    planned = planning.cycle(planning.plan(run, free_bytes=1.5e9))
    assert all(each.alternates == "processes" and len(each.members) == 4 for each in planned)
    for each in planned:
        first, second, third, fourth = ((m.case, m.copy) for m in each.members)
        assert (first, second) == (fourth, third)
        assert first != second
        replicates = [(m.case.id, m.copy, m.replicate) for m in each.members]
        assert len(set(replicates)) == 4


def test_as_many_models_as_fit_are_measured_beside_each_other() -> None:
    run = prepared(groups=1, rows=5)
    planned = planning.cycle(planning.plan(run, free_bytes=4e9))  # of 1 GB each, in 85 % of it
    assert {each.alternates for each in planned} == {"turns"}
    assert {len(each.members) for each in planned} == {3}


def test_only_the_row_that_ran_out_of_memory_is_measured_alone() -> None:
    run = prepared(groups=1, rows=3)
    short = group_cases(0, 3)[2]
    planned = planning.cycle(planning.plan(run, alone=frozenset({short.id}), free_bytes=PLENTY))
    by_kind = {each.alternates: names(each) for each in planned}
    assert {case_id for case_id, _ in by_kind["processes"]} == {short.id, group_cases(0, 3)[0].id}
    assert short.id not in {case_id for case_id, _ in by_kind["turns"]}


def test_memory_that_is_unknown_is_not_taken_as_enough() -> None:
    run = prepared(groups=1, rows=1)
    assert {e.alternates for e in planning.cycle(planning.plan(run, free_bytes=None))} == {"processes"}
    bare = tuple(
        replace(m, samples={k: v for k, v in m.samples.items() if k != "peak_host_bytes"}) for m in run.measurements
    )
    without = replace(run, measurements=bare)
    assert {e.alternates for e in planning.cycle(planning.plan(without, free_bytes=PLENTY))} == {"processes"}


def test_a_process_has_more_turns_the_more_its_turns_differ_and_the_less_processes_do() -> None:
    def turns(turn_sd: float, process_sd: float) -> int:
        run, noise = prepared(groups=1, rows=3, replicates=9), random.Random(4)
        for _ in range(6):
            for each in planning.cycle(planning.plan(run, free_bytes=PLENTY)):
                for member in each.members:
                    log = math.log(0.01) + noise.gauss(0, process_sd)
                    count = member.interleaving.turns
                    levels = [log + noise.gauss(0, turn_sd) for _ in range(count)]
                    samples = [math.exp(v) for v in levels for _ in range(member.interleaving.samples)]
                    found = Measurement(
                        case=member.case, replicate=member.replicate, status="ok", round=each.number,
                        samples={"latency_s": samples, "load_s": [START_S]},
                        facts={"turns": count, "alternates": "turns"},
                    )  # fmt: skip
                    if member.copy:
                        run = replace(run, controls=(*run.controls, Control(side="copy", measurement=found)))
                    else:
                        run = replace(run, measurements=(*run.measurements, found))
        return planning.turns_of(planning.plan(run), list(group_cases(0, 3)))

    assert turns(0.05, 0.002) > turns(0.02, 0.01) >= turns(0.005, 0.05)


@pytest.mark.parametrize(("latency_s", "turns"), [(0.01, 6), (0.2, 4), (2.0, 2)])
def test_long_iterations_have_fewer_turns(latency_s: float, turns: int) -> None:
    run = prepared(groups=1, rows=1)
    slow = replace(
        run, measurements=tuple(replace(m, samples={**m.samples, "latency_s": [latency_s]}) for m in run.measurements)
    )
    assert planning.turns_of(planning.plan(slow), list(slow.cases)) >= turns
    if latency_s > 1:
        assert planning.turns_of(planning.plan(slow), list(slow.cases)) == turns


def test_a_copy_that_failed_is_not_measured_again() -> None:
    run = prepared(groups=1, rows=1)
    failed = Measurement(case=run.cases[0], replicate=0, status="failed", reason="a planted failure", round=1)
    run = replace(run, controls=(Control(side="copy", measurement=failed),))
    (planned,) = planning.cycle(planning.plan(run, free_bytes=PLENTY))
    assert names(planned) == {(case.id, False) for case in run.cases}


def test_the_budget_is_the_protocol_s_or_follows_from_preparing() -> None:
    assert planning.budget_s(prepared(budget_s=60.0), 500.0) == 60.0
    assert planning.budget_s(prepared(), 500.0) == 500.0 + 2 * 500.0
    assert planning.budget_s(prepared(), 5.0) == 5.0 + 120.0


def test_the_seconds_of_a_round_are_those_of_its_longest_process_or_of_all_if_they_ran_one_by_one() -> None:
    run = prepared(groups=1, rows=1)
    noise = random.Random(5)
    (side_by_side,) = planning.cycle(planning.plan(run, free_bytes=PLENTY))
    with_turns = measured(side_by_side, run, noise)
    assert planning.spent_s(with_turns) == (4.0, pytest.approx(side_by_side.seconds))
    alone = planning.cycle(planning.plan(run, free_bytes=1.0))[0]
    assert planning.spent_s(measured(alone, run, noise))[1] == pytest.approx(4 * alone.seconds)


class Clock:
    """A clock that only simulated rounds move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Watching:
    """A listener that notes the clock, and the seconds that are told to be left."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: list[tuple[float, float]] = []

    def rounds_begin(self, open_rows: int, seconds_left: float) -> None:
        self.told.append((self.clock(), seconds_left))

    def round_end(self, measurements: object, open_rows: int, seconds_left: float) -> None:
        self.told.append((self.clock(), seconds_left))


@pytest.mark.parametrize("budget_s", [None, 150.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_time_left_is_right_within_a_third_or_a_round_after_a_fifth_of_the_run(
    budget_s: float | None, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(groups=5, rows=4, replicates=4, ratio_interval=0.03, budget_s=budget_s)
    run = replace(run, folder=str(tmp_path), environment={"device": "cpu", "threads": 1}, id=f"run-{seed}")
    clock, noise = Clock(), random.Random(seed)
    watching = Watching(clock)

    def simulated(planned: rounds.Round, run: Run, _site: object) -> list[tuple[rounds.Member, Measurement]]:
        seconds = sum(1.2 * planning.seconds_of(planning.plan(run), member) for member in planned.members)
        clock.now += seconds * noise.uniform(0.8, 1.3)
        found = measured(planned, replace(run, measurements=(), controls=()), noise, process_sd=0.015)
        mine = {(m.case.id, False): m for m in found.measurements} | {
            (c.measurement.case.id, True): c.measurement for c in found.controls
        }
        return [(member, mine[member.case.id, member.copy]) for member in planned.members]

    monkeypatch.setattr(sweep, "perf_counter", clock)
    monkeypatch.setattr(rounds, "measure_round", simulated)
    monkeypatch.setattr(memory, "free_bytes", lambda _environment: PLENTY)
    site = sweep.Site(workers=None, plugins=(), cache=tmp_path, report=print)  # type: ignore[arg-type]
    sweep._rounds(run, site, watching, planning.spent_s(run)[0], ())  # type: ignore[arg-type]
    before, end = planning.spent_s(run)[0], clock()
    shown = [(at, left) for at, left in watching.told if before + at > 0.2 * (before + end) and end - at > 5]
    longest = max(b - a for (a, _), (b, _) in pairwise(watching.told))  # an error of one round cannot be avoided
    right = [abs(left - (end - at)) <= max((end - at) / 3, longest) for at, left in shown]
    assert len(shown) > 5
    assert all(right)
    if budget_s is not None:
        assert before + end <= budget_s
