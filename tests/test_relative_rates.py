"""The error rates of the rule on relative latency, on simulated runs of 36 rows in 12 groups with four stored sessions.

    RELATIVE_RUNS=60 .venv/bin/python -m pytest -s tests/test_relative_rates.py   # the rates in docs/methodology.md

Without RELATIVE_RUNS the test simulates a third of these runs.

A run has four rounds of each group, and a suspect gets EXTRA_ROUNDS more, as in `imgbench compare`. The machine's speed
differs by 20 % from round to round; 3 % of the processes are slower by 15 to 50 %; the processes of a row differ by 0.3
to 2 %, and its sessions by 0.2 %. A slow-down is planted by scaling the ratios of its row, which is what scaling all of
its samples does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import pytest
from relative_fixture import session, slowed

from baselines.stored import relative
from baselines.stored.relative_verdicts import SUSPECT_BETTER, SUSPECT_WORSE, _groups
from baselines.stored.row_verdicts import Compared, RunRows
from baselines.stored.rows import rows_of
from baselines.stored.suspects import EXTRA_ROUNDS
from harness.ratios import Ratio, Ratios, ratios

GROUPS, ROUNDS, SESSIONS = 12, 4, 4
PROCESS, BETWEEN = (0.003, 0.02), 0.002
POOL, SETS = int(os.environ.get("RELATIVE_RUNS", "20")), 5


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A run, the ratios that it has in a first look, and those of all its rounds."""

    rows: RunRows
    found: Ratios
    later: Ratios

    def sharpened(self, suspects: Collection[str]) -> Ratios:
        """The ratios after further rounds of the suspects and the references of their groups."""
        references = {r.reference_id for r in self.found.of.values() if {r.case_id, r.reference_id} & set(suspects)}
        of = {n: self.later.of[n] if {n, r.reference_id} & set(suspects) else r for n, r in self.found.of.items()}
        controls = {n: self.later.controls[n] if n in references else r for n, r in self.found.controls.items()}
        return replace(self.found, of=of, controls=controls)


def simulated(seed: int, further: int = EXTRA_ROUNDS) -> Simulated:
    run = session(seed, groups=GROUPS, rounds=ROUNDS + further, between=BETWEEN, process=PROCESS)
    first = replace(
        run,
        measurements=tuple(m for m in run.measurements if (m.round or 0) < ROUNDS * GROUPS),
        controls=tuple(c for c in run.controls if (c.measurement.round or 0) < ROUNDS * GROUPS),
    )
    found = ratios(first)
    return Simulated(rows=RunRows(run=first, rows=rows_of(first)), found=found, later=ratios(run) if further else found)


def planted(found: Ratios, case_id: str, factor: float) -> Ratios:
    """The ratios where one row, which may be a reference, is slower by a factor."""

    def changed(ratio: Ratio) -> Ratio:
        by = factor if ratio.reference_id == case_id else 1 / factor if ratio.case_id == case_id else 1.0
        return replace(ratio, value=ratio.value * by, low=(ratio.low or 0.0) * by, high=(ratio.high or 0.0) * by)

    return replace(found, of={name: changed(ratio) for name, ratio in found.of.items()})


def looked_at(
    here: Simulated, found: Ratios, stored: list[Simulated], further: Collection[str] = ()
) -> tuple[set[str], set[str], set[str]]:
    """(rows called slower, rows called faster, suspects) by the rule on these ratios."""
    compared = Compared(candidate=here.rows, sessions=tuple(one.rows for one in stored), scope="all")
    groups = _groups(compared, found, compared.sessions, [one.found for one in stored])
    shifts = relative.shifts([group.members for group in groups])
    suspects = {s.case_id for s in shifts if s.p_worse <= SUSPECT_WORSE or s.p_better <= SUSPECT_BETTER}
    return *relative.alarms(shifts, further), suspects


def sets_of(pool: list[Simulated], i: int) -> Iterator[list[Simulated]]:
    """Stored sessions of run `i` of the pool: SETS times other ones."""
    for number in range(SETS):
        yield [pool[(i + 1 + number * len(pool) // SETS + k) % len(pool)] for k in range(SESSIONS)]


def decided(here: Simulated, stored: list[Simulated], row: str = "", factor: float = 1.0) -> tuple[set[str], set[str]]:
    """(rows called slower, rows called faster) after further rounds of the suspects; `row` is slower by a factor."""
    worse, better, suspects = looked_at(here, planted(here.found, row, factor), stored)
    if suspects:
        again = planted(here.sharpened(suspects), row, factor)
        worse, better, _ = looked_at(here, again, stored, suspects)
    return worse, better


@pytest.mark.slow
def test_equal_runs_have_no_alarm_and_one_slower_row_is_caught() -> None:
    pool = [simulated(seed) for seed in range(POOL)]
    counts = Counter[str]()
    for i, here in enumerate(pool):
        for number, stored in enumerate(sets_of(pool, i)):
            worse, better = decided(here, stored)
            counts["equal"] += 1
            counts["slower"] += bool(worse)
            counts["faster"] += bool(better)
            factor = {0: 1.05, 1: 1.03}.get(number)
            if factor is not None:
                row = here.rows.run.cases[(7 * i + number) % len(here.rows.run.cases)].id
                worse, better = decided(here, stored, row, factor)
                counts[f"{factor}"] += row in worse
                counts[f"{factor} elsewhere"] += bool((worse | better) - {row})
    print(f"\n{dict(counts)} of {POOL} planted runs each")
    assert counts["equal"] == SETS * POOL
    assert counts["slower"] + counts["faster"] == 0
    assert counts["1.05"] >= 0.9 * POOL
    assert counts["1.05 elsewhere"] <= 1


def test_all_rows_slower_together_are_not_seen() -> None:
    """A limit of the rule: the ratios of a run do not tell it from a run on a slower machine."""
    run = session(3, groups=GROUPS, between=BETWEEN, process=PROCESS)
    equal, slower = ratios(run).of, ratios(slowed(run, None, 1.05)).of
    assert equal.keys() == slower.keys()
    assert all(slower[name].value == pytest.approx(ratio.value, rel=1e-6) for name, ratio in equal.items())
    assert all(slower[name].half_width == pytest.approx(ratio.half_width, rel=1e-3) for name, ratio in equal.items())
