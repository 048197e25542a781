"""Which rounds come next, how long they take, and when the rounds of a run end. Pure functions of the run.

A cycle visits each group that has open rows, in a random order, so that every row is measured throughout the run. A row
is open until it has the fewest rounds of the protocol, and then until the 95 % interval of its ratio to the reference
is within the protocol's `ratio_interval`. The second copy of the reference is measured and decided like a row. A round
holds at most MEMBERS processes, because the turns of more would lie too far apart in time. A group with more open rows
has several rounds in a cycle. The first round of each row is measured whatever the budget is.

How often a process has the turn follows from the two variances (optimal allocation; Cochran, Sampling Techniques, 3rd
edition, section 10.6): a new process costs its start and a further turn only itself, so a process has more turns, the
more its turns differ from each other and the less the processes do.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from harness import attempts, comparison_groups
from harness.comparison_groups import Group
from harness.measuring.turns import Interleaving
from harness.paired.pair_duration import LONG_S, MIN_LONG_TURNS, MIN_TURNS, interleaving
from harness.ratios import Ratio, Ratios, ratios
from harness.sweeping import memory, overhead
from harness.sweeping.rounds import Alternates, Member, Round
from harness.types import Case, Measurement, Run

LATENCY: Final = "latency_s"
MEMBERS: Final = 6
MOST_ROUNDS: Final = 40  # of a row: its interval will not become narrow enough in any useful time
MOST_TURNS: Final = 24
VERY_LONG_S: Final = 1.0  # an iteration so long is a turn of which two are enough
BUDGET_SHARE: Final = 2.0  # without a budget, rounds take at most this many times the seconds of preparing ...
BUDGET_LEAST_S: Final = 120.0  # ... or this many seconds, if that is more
PROCESS_S: Final = 0.4  # of a process, beside what it measures of its start
CACHED: Final = 0.3  # a build that finds its files on disk takes about this share of the first one
TURN_SD: Final = 0.021  # of the log ratio of two neighbouring turns (`harness.measuring.turns`)
PROCESS_SD: Final = 0.01  # of the log ratio between processes
GUESS: Final = 3.5  # the rounds that rows need, as long as no spread is known
LAST: Final = 1.3
SEVERAL: Final = 0.75
LEAST_ROUNDS: Final = 3  # of a row before its spreads count


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a group, or (`copy`) the second copy of its reference: what a cycle measures beside the reference.
    `ratio` is None if it has none yet; `rounds` is the number of rounds in which it was measured."""

    case: Case
    copy: bool
    ratio: Ratio | None
    rounds: int

    @property
    def width(self) -> float:
        """Half the width of the interval of its ratio; infinite without one."""
        half = None if self.ratio is None else self.ratio.half_width
        return math.inf if half is None else half


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the rounds of a run follow from. `rounds` counts the rounds by case id and whether it is the copy. A copy
    that failed is not measured again, and is not in the plan. `alone` are the ids of cases that ran out of memory
    beside others; `free_bytes` is the free memory of the device."""

    run: Run
    groups: tuple[Group, ...]
    prepared: Mapping[str, Measurement]
    ratios: Ratios
    rounds: Mapping[tuple[str, bool], int]
    alone: frozenset[str] = frozenset()
    free_bytes: float | None = None

    def open_entries(self, group: Group) -> list[Entry]:
        """The entries of a group that need further rounds, the widest interval first."""
        found = [self.entry(case) for case in group.others]
        if (group.id, True) in self.rounds:
            found.append(self.entry(group.reference, copy=True))
        return sorted(filter(self._is_open, found), key=lambda entry: -entry.width)

    def entry(self, case: Case, *, copy: bool = False) -> Entry:
        ratio = self.ratios.controls.get(case.id) if copy else self.ratios.of.get(case.id)
        return Entry(case=case, copy=copy, ratio=ratio, rounds=self.rounds.get((case.id, copy), 0))

    def _is_open(self, entry: Entry) -> bool:
        protocol = self.run.protocol
        if entry.rounds < protocol.replicates - 1:
            return True
        target = protocol.ratio_interval
        return target is not None and entry.rounds < MOST_ROUNDS and entry.width > target

    def fits(self, cases: Sequence[Case]) -> bool:
        """Whether processes of these cases (one case may occur twice) may be in memory at the same time."""
        gpu = memory.is_gpu(self.run.environment)
        together = [self.prepared[case.id] for case in cases]
        return not self.alone & {c.id for c in cases} and memory.fit(together, self.free_bytes, gpu=gpu)


def in_rounds(run: Run) -> bool:
    """Whether the further processes of the run's rows are measured in rounds."""
    return run.protocol.rounds and run.protocol.replicates > 1


def plan(
    run: Run,
    *,
    alone: frozenset[str] = frozenset(),
    free_bytes: float | None = None,
    retried: Collection[Measurement] = (),
) -> Plan:
    """The plan of the rounds of a run, from everything that is measured. The failures `retried` do not count."""
    prepared = {m.case.id: m for m in run.measurements if m.replicate == 0 and m.samples.get(LATENCY)}
    bad = {m.case.id for m in run.measurements if m.status != "ok" and m not in retried}
    groups = tuple(comparison_groups.groups(run.cases, prepared.keys() - bad))
    numbers: dict[tuple[str, bool], set[int]] = {(group.id, True): set() for group in groups}
    for copy, m in _in_rounds(run):
        if m.status == "ok":
            numbers.setdefault((m.case.id, copy), set()).add(cast("int", m.round))
    for control in run.controls:
        if control.side == "copy" and control.measurement.status != "ok":
            numbers.pop((control.measurement.case.id, True), None)
    return Plan(
        run=run,
        groups=groups,
        prepared=prepared,
        ratios=ratios(run),
        rounds={key: len(found) for key, found in numbers.items()},
        alone=alone,
        free_bytes=free_bytes,
    )


def to_retry(run: Run, *, retry_failed: bool = False) -> tuple[Measurement, ...]:
    """The failures in rounds that a resumed run measures again (`harness.attempts.to_retry`)."""
    return tuple(m for m in run.measurements if m.round is not None and attempts.to_retry(m, retry_failed))


def _in_rounds(run: Run) -> Iterator[tuple[bool, Measurement]]:
    """(whether it is a copy, measurement) of every process of a round."""
    yield from ((False, m) for m in _all(run) if m.round is not None)
    yield from ((True, c.measurement) for c in run.controls if c.measurement.round is not None)


def cycle(plan: Plan, *, widest_first: bool = False) -> list[Round]:
    """The rounds of the next cycle; empty if no row is open. They come in random order, or those of the group with the
    widest interval first."""
    number = 1 + max((m.round for m in _all(plan.run) if m.round is not None), default=0)
    shuffle = random.Random(f"{plan.run.id}-{number}")
    visited = [(group, entries) for group in plan.groups if (entries := plan.open_entries(group))]
    if widest_first:
        visited.sort(key=lambda found: -found[1][0].width)
    else:
        shuffle.shuffle(visited)
    return _rounds(plan, visited, number, shuffle)


def rounds_of(plan: Plan, wanted: Collection[str]) -> list[Round]:
    """One round, or several where they do not fit, of each group with rows in `wanted` (ids): these rows, the reference
    and its copy. If the reference itself is wanted, all rows of its group take part; a row alone has its copy."""
    number = 1 + max((m.round for _, m in _in_rounds(plan.run) if m.round is not None), default=0)
    visited = []
    for group in plan.groups:
        rows = [c for c in group.others if c.id in wanted or group.id in wanted]
        entries = [plan.entry(case) for case in rows]
        if (entries or group.id in wanted) and (group.id, True) in plan.rounds:
            entries.append(plan.entry(group.reference, copy=True))
        if entries:
            visited.append((group, entries))
    return _rounds(plan, visited, number, random.Random(f"{plan.run.id}-{number}"))


def _rounds(
    plan: Plan, visited: Sequence[tuple[Group, Sequence[Entry]]], number: int, shuffle: random.Random
) -> list[Round]:
    planned: list[Round] = []
    counts = _Numbers(plan.run)
    for group, entries in visited:
        shuffled = shuffle.sample(entries, len(entries))
        for part in _parts(plan, group, shuffled):
            planned.append(_round(plan, group, part, number + len(planned), shuffle, counts))
    return planned


def _parts(plan: Plan, group: Group, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The entries in as few parts of about the same size as MEMBERS and the memory allow. An entry that does not fit
    beside the reference is a part of its own."""
    beside = [entry for entry in entries if plan.fits([group.reference, entry.case])]
    yield from ([entry] for entry in entries if entry not in beside)
    for size in range(MEMBERS - 1, 0, -1):
        count = math.ceil(len(beside) / size)
        parts = [beside[i::count] for i in range(count)]
        if size == 1 or all(plan.fits([group.reference, *(e.case for e in part)]) for part in parts):
            yield from parts
            return


def _round(
    plan: Plan, group: Group, part: Sequence[Entry], number: int, shuffle: random.Random, counts: _Numbers
) -> Round:
    turns = turns_of(plan, [group.reference, *(entry.case for entry in part)])
    alternates: Alternates = "turns"
    reference = counts.member(group.reference, _counts(plan, group.reference, turns), copy=False)
    others = [counts.member(e.case, _counts(plan, e.case, turns), copy=e.copy) for e in part]
    members = shuffle.sample([reference, *others], len(others) + 1)
    if not plan.fits([member.case for member in members]):
        alternates = "processes"
        again = [counts.member(m.case, m.interleaving, copy=m.copy) for m in reversed(members)]
        members += again
    return Round(
        number=number,
        members=tuple(members),
        alternates=alternates,
        seconds=math.fsum(seconds_of(plan, member) for member in members),
    )


class _Numbers:
    """Numbers the processes that a cycle plans, after those that the run has. A process that failed because of the
    environment, or that is to be retried, is measured again under its number."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next: dict[tuple[str, bool], int] = {}
        self._retries: dict[str, list[Measurement]] = {}
        for m in _all(run):
            key = (m.case.id, False)
            self._next[key] = max(self._next.get(key, 0), m.replicate + 1)
        for control in run.controls:
            if control.side == "copy":
                key = (control.measurement.case.id, True)
                self._next[key] = max(self._next.get(key, 0), control.measurement.replicate + 1)
        for m in run.measurements:
            if m.round is not None and attempts.to_retry(m, retry_failed=True):
                self._retries.setdefault(m.case.id, []).append(m)

    def member(self, case: Case, counts: Interleaving, *, copy: bool) -> Member:
        if not copy and self._retries.get(case.id):
            replicate = self._retries[case.id].pop(0).replicate
            attempt = attempts.next_attempt(self._run, case.id, replicate)
            return Member(case=case, interleaving=counts, replicate=replicate, attempt=attempt)
        number = self._next.get((case.id, copy), 0)
        self._next[case.id, copy] = number + 1
        return Member(case=case, interleaving=counts, replicate=number, copy=copy)


def _all(run: Run) -> tuple[Measurement, ...]:
    return (*run.measurements, *run.superseded)


def _counts(plan: Plan, case: Case, turns: int) -> Interleaving:
    return replace(_own_counts(plan, case), turns=turns)


def _own_counts(plan: Plan, case: Case) -> Interleaving:
    prepared = plan.prepared[case.id]
    return interleaving(_latency_s(plan, case), int(prepared.facts.get("loops", 1)))


def _latency_s(plan: Plan, case: Case) -> float:
    return statistics.median(plan.prepared[case.id].samples[LATENCY])


def turns_of(plan: Plan, cases: Sequence[Case]) -> int:
    """The turns that each of these cases has in a common round: an even number."""
    longest = max(_latency_s(plan, case) for case in cases)
    if longest > VERY_LONG_S:
        return 2
    fewest = MIN_LONG_TURNS if longest > LONG_S else MIN_TURNS
    turn_s = statistics.median(_turn_s(plan, case) for case in cases)
    start_s = statistics.median(_start_s(plan, case) for case in cases)
    turn_sd, process_sd = spreads(plan.run)
    best = math.sqrt(start_s / turn_s) * turn_sd / process_sd
    turns = min(max(math.ceil(best), fewest), MOST_TURNS)
    return turns + turns % 2


def spreads(run: Run) -> tuple[float, float]:
    """(turns, processes): the standard deviation of the log ratio of one turn, and the one between processes without
    what the turns contribute to it; typical ones if no row has three rounds. Medians over the rows."""
    turns, processes = [], []
    for found in _turn_ratios(run):
        if len(found) >= LEAST_ROUNDS:
            within = statistics.fmean(statistics.variance(ratios) for ratios in found)
            between = statistics.variance(statistics.fmean(ratios) for ratios in found)
            turns.append(within)
            processes.append(between - within / statistics.fmean(len(ratios) for ratios in found))
    if not turns:
        return TURN_SD, PROCESS_SD
    turn = statistics.median(turns)
    return math.sqrt(turn), math.sqrt(max(statistics.median(processes), turn / MOST_TURNS))


def _turn_ratios(run: Run) -> Iterator[list[list[float]]]:
    """For each row and second copy, the log ratios to the reference by round and turn."""
    by_round: dict[int | None, list[tuple[str, bool, Measurement]]] = {}
    for copy, m in _in_rounds(run):
        by_round.setdefault(m.round, []).append((m.case.id, copy, m))
    found: dict[tuple[str, bool], list[list[float]]] = {}
    for members in by_round.values():
        logs = {(case_id, copy): _logs(m) for case_id, copy, m in members}
        reference = next((logs[case_id, False] for case_id, copy in logs if copy and (case_id, False) in logs), None)
        for key, own in logs.items():
            if reference and own is not reference and len(own) == len(reference) > 1:
                found.setdefault(key, []).append([a - b for a, b in zip(own, reference, strict=True)])
    yield from found.values()


def _logs(measurement: Measurement) -> list[float]:
    """The log median of the samples of each turn; empty if the process took no turns."""
    values, turns = measurement.samples.get(LATENCY, []), measurement.facts.get("turns", 0)
    in_turns = measurement.facts.get("alternates") == "turns"
    if not in_turns or not turns or not values or len(values) % turns or min(values) <= 0:
        return []
    size = len(values) // turns
    return [math.log(statistics.median(values[i : i + size])) for i in range(0, len(values), size)]


def _turn_s(plan: Plan, case: Case) -> float:
    counts, latency = _own_counts(plan, case), _latency_s(plan, case)
    loops = int(plan.prepared[case.id].facts.get("loops", 1))
    return latency * (counts.discarded + counts.samples * loops)


def _start_s(plan: Plan, case: Case) -> float:
    """Seconds that a process of a case takes before its first turn; from its last process that found its build on
    disk, if there is one."""
    mine = [m for m in plan.run.by_case.get(case.id, ()) if m.status == "ok"]
    last = max(mine, key=lambda m: m.replicate).samples
    parts = {name: math.fsum(last.get(name, ())) for name in ("load_s", "capture_s", "first_call_s")}
    build = (
        math.fsum(last["build_cached_s"]) if "build_cached_s" in last else CACHED * math.fsum(last.get("build_s", ()))
    )
    warm_up = _own_counts(plan, case).warmups * _latency_s(plan, case)
    return PROCESS_S + math.fsum(parts.values()) + build + warm_up


def seconds_of(plan: Plan, member: Member) -> float:
    """The expected seconds of one member of a round."""
    return _start_s(plan, member.case) + member.interleaving.turns * _turn_s(plan, member.case)


def is_first(plan: Plan, planned: Round) -> bool:
    """Whether a row (not a copy) of the round is measured with its reference for the first time."""
    references = {group.id for group in plan.groups}
    rows = {member.case.id for member in planned.members if not member.copy} - references
    return any(not plan.rounds.get((case_id, False)) for case_id in rows)


def seconds_left(plan: Plan, *, first_only: bool = False) -> float:
    """The expected seconds of all further rounds, without a budget: each open entry needs a number of rounds, and each
    cycle measures the reference beside those that are still open. With `first_only` those of the first rounds alone,
    which are measured whatever the budget is."""
    total = 0.0
    target = plan.run.protocol.ratio_interval
    for group in plan.groups:
        entries = plan.open_entries(group)
        if first_only:
            needed = [(entry.case, 1.0) for entry in entries if not entry.copy and not entry.rounds]
        else:
            needed = [(entry.case, _rounds_left(plan, entry, target)) for entry in entries]
        for number in range(math.ceil(max((count for _, count in needed), default=0.0))):
            cases = [case for case, count in needed if count > number]
            share = min(1.0, max(count for _, count in needed) - number)
            rounds = math.ceil(len(cases) / (MEMBERS - 1))
            turns = turns_of(plan, [group.reference, *cases])
            members = [group.reference] * rounds + cases
            total += share * math.fsum(_start_s(plan, case) + turns * _turn_s(plan, case) for case in members)
    return total


def _rounds_left(plan: Plan, entry: Entry, target: float | None) -> float:
    """The expected number of further rounds of an open entry. In a simulation, a row whose interval is almost narrow
    enough needs LAST rounds on average. One that needs several rounds needs fewer than few rounds make expect, by the
    factor SEVERAL. GUESS is typical before anything is known of the spread."""
    least = max(0, plan.run.protocol.replicates - 1 - entry.rounds)
    if target is None:
        return least
    if plan.ratios.spread is None:
        return max(least, GUESS)
    group = comparison_groups.work_of(entry.case)
    reference = next(g.id for g in plan.groups if comparison_groups.work_of(g.reference) == group)
    needed = plan.ratios.rounds_needed(entry.case.id, reference, target)
    expected = max(least or LAST, SEVERAL * needed)
    return min(expected, MOST_ROUNDS - entry.rounds)


def budget_s(run: Run, preparing_s: float) -> float:
    """The seconds that the whole run may take: those of the protocol, or a multiple of those of preparing."""
    if run.protocol.budget_s is not None:
        return run.protocol.budget_s
    return preparing_s + max(BUDGET_SHARE * preparing_s, BUDGET_LEAST_S)


def spent_s(run: Run) -> tuple[float, float]:
    """(preparing, rounds): the seconds that the stored processes of a run took. Those of a round ran side by side."""
    preparing = math.fsum(m.duration_s or 0.0 for m in _all(run) if m.round is None) + overhead.spent_s(run)
    rounds: dict[int | None, list[Measurement]] = {}
    for _, m in _in_rounds(run):
        rounds.setdefault(m.round, []).append(m)
    return preparing, math.fsum(_wall_s(members) for members in rounds.values())


def _wall_s(members: Sequence[Measurement]) -> float:
    durations = [m.duration_s or 0.0 for m in members]
    in_turns = all(m.facts.get("alternates") == "turns" for m in members if m.status == "ok")
    return max(durations) if in_turns else math.fsum(durations)
