"""Two speed levels: planted ones are found and attributed to their row, and equal runs have none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rounds_fixture import CONTENDED, Noise, group_cases, process_of, rounds_run, run_of_rounds

import baselines
from baselines.detector.recorded import Recording, load
from harness.speed_levels import SpeedLevels, speed_levels, split, two_levels
from harness.types import Case, Measurement, Run

RECORDED = sorted((Path(baselines.__file__).parent / "recorded").glob("gate-*.json.gz"))
SEEDS = 20
NOISE = Noise(process=(0.003, 0.015))


def planted(seed: int, slow: Case, rounds: int, rows: int = 3) -> Run:
    """A group in which 25 to 60 % of the processes of one case are slower by 14 to 32 %."""
    generator = np.random.default_rng(seed)
    share, gap = generator.uniform(0.25, 0.6), np.log1p(generator.uniform(0.14, 0.32))

    def levels(case: Case, drawn: np.random.Generator) -> float:
        return float(gap) if case == slow and drawn.random() < share else 0.0

    return rounds_run(rows=rows, rounds=rounds, samples=1, noise=replace(NOISE, seed=seed), levels=levels)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("slow", [0, 1], ids=["reference", "row"])
def test_planted_levels_are_attributed_to_their_row(slow: int, rows: int) -> None:
    """With 20 rounds. The reference has two processes in each of them. Beside a single row, whose own noise is in all
    that can be compared, fewer are found."""
    case = group_cases(rows=rows)[slow]
    found = [set(speed_levels(planted(seed, case, 20, rows))) for seed in range(SEEDS)]
    assert sum(case.id in names for names in found) >= (0.9 if rows > 1 or slow == 0 else 0.6) * SEEDS
    assert sum(bool(names - {case.id}) for names in found) == 0


@pytest.mark.slow
def test_no_levels_are_claimed_of_equal_rows() -> None:
    """48 rows in a run, 3 % of whose processes are slower by 15 to 50 %."""
    found = [speed_levels(rounds_run(groups=12, rounds=8, samples=1, noise=Noise(seed=seed))) for seed in range(8)]
    assert not any(found)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.split(".")[0])
def test_no_levels_are_claimed_of_recorded_equal_rows(path: Path) -> None:
    """Each recorded row is a group: the processes of both arms of two pairs are the players of a round."""
    recording = load(path)
    found = {row.id: speed_levels(recorded_run(recording, row.id)) for row in recording.rows}
    assert len(found) == 12
    assert not any(found.values())


def recorded_run(recording: Recording, row: str) -> Run:
    """A run of the processes of one recorded row, two pairs in a round: reference, its copy, and two rows."""
    cases = group_cases(rows=2)
    measured: list[Measurement] = []
    copies: list[Measurement] = []
    blocks = [b for b in recording.blocks if row in b.rows and b.rows[row].contended is None]
    for number in range(len(blocks) // 4):
        four = [b.rows[row] for b in blocks[4 * number : 4 * number + 4]]
        taken = [list(one.seconds) for one in four]
        measured += [
            process_of(case, seconds, number, replicate=number, turns=four[0].turns)
            for case, seconds in zip([cases[0], *cases[1:]], [taken[0], *taken[2:]], strict=True)
        ]
        copies.append(process_of(cases[0], taken[1], number, replicate=number, turns=four[0].turns))
    return run_of_rounds(cases, measured, copies)


def of_row(*slow: bool, seconds: float = 0.01, ratio: float = 1.25) -> Run:
    """A row whose processes are slow or not, beside another row, a reference and its copy that are not."""
    cases = group_cases(rows=2)
    measured = [
        process_of(case, [seconds * (ratio if case == cases[1] and level else 1.0) * (1 + number / 1000)] * 4, number)
        for number, level in enumerate(slow)
        for case in cases
    ]
    copies = [m for m in measured if m.case == cases[0]]
    return run_of_rounds(cases, measured, copies)


ROW = group_cases(rows=2)[1].id


def test_levels_have_a_share_with_its_interval_and_both_medians() -> None:
    found = speed_levels(of_row(*[True] * 3, *[False] * 5))
    levels = found[ROW]
    assert set(found) == {ROW}
    assert (levels.processes, levels.slow, levels.share) == (8, 3, 0.375)
    assert levels.fast_s == pytest.approx(0.01, rel=0.01)
    assert levels.slow_s == pytest.approx(0.0125, rel=0.01)
    assert levels.share_interval == pytest.approx((0.1368, 0.6943), abs=1e-3)
    assert isinstance(levels, SpeedLevels)


@pytest.mark.parametrize(
    ("slow", "ratio"),
    [
        ([True] * 2 + [False] * 6, 1.25),
        ([True] * 3 + [False] * 2, 1.25),
        ([True] * 3 + [False] * 13, 1.25),
        ([True] * 4 + [False] * 4, 1.08),
    ],
    ids=["two slow ones", "five processes", "a share of a sixth", "8 % apart"],
)
def test_what_is_not_two_levels(slow: list[bool], ratio: float) -> None:
    assert not speed_levels(of_row(*slow, ratio=ratio))


def test_contended_processes_do_not_count() -> None:
    run = of_row(*[True] * 3, *[False] * 5)
    contended = [
        replace(m, warnings=(CONTENDED,)) if m.case.id == ROW and m.round == 0 else m for m in run.measurements
    ]
    assert not speed_levels(replace(run, measurements=tuple(contended)))


def test_levels_of_one_of_two_players_are_attributed_to_none() -> None:
    run = of_row(*[True] * 4, *[False] * 4)
    two = tuple(m for m in run.measurements if m.case.backend in ("eager", "backend0"))
    assert not speed_levels(replace(run, measurements=two, controls=()))


def test_a_run_without_rounds_has_no_levels() -> None:
    assert not speed_levels(rounds_run(rounds=0))


def test_spread_values_are_not_two_levels() -> None:
    """The upper cluster of values that spread evenly is not tight."""
    values = np.linspace(0, 0.4, 12)
    assert not two_levels(values, split(values))
    apart = np.array([0.0, 0.01, 0.02, 0.01, 0.2, 0.21, 0.22, 0.2])
    assert two_levels(apart, split(apart))
    assert split(apart).tolist() == [False] * 4 + [True] * 4
    assert math.isclose(float(np.median(apart[split(apart)])), 0.205)
