"""`compare` measures further rounds of the rows that may have become slower than their group, and decides again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from suite_fixture import PLUGINS, Silent

from harness import storage, suite
from harness.processes.worker import Workers
from harness.ratios import ratios
from harness.sweeping import planning
from harness.sweeping.sweep import collect_environment, extend_rounds, new_run, sweep
from harness.types import Run

PROTOCOL = (
    "{replicates: 2, ratio_interval: null, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, "
    "min_sample_time_s: 0.01, target_interval: null, stages: false, timeout_s: 60}"
)
CASES = " - {model: planted_ok, precision: [fp32, bf16, fp16], batch_size: [2, 4]}\n"


@pytest.fixture(scope="module")
def measured(workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the suite, which the tests copy. Its measurement takes seconds."""
    found = collect_environment(workers, "cpu")
    chosen = suite.parse(f"name: further\nprotocol: {PROTOCOL}\ncases:\n{CASES}")
    started = new_run(chosen, tmp_path_factory.mktemp("measured") / "run", found)
    return sweep(started, workers, PLUGINS, Silent())


@pytest.fixture
def swept(measured: Run, tmp_path: Path) -> Run:
    return storage.load(Path(shutil.copytree(str(measured.folder), tmp_path / "run")))


def members(run: Run, numbers: set[int]) -> set[tuple[str, int]]:
    return {(m.case.precision, m.case.batch_size) for m in run.measurements if m.round in numbers}


def round_numbers(run: Run) -> set[int]:
    return {m.round for m in run.measurements if m.round is not None}


@pytest.mark.slow
def test_further_rounds_have_the_row_its_reference_and_the_copy(swept: Run, workers: Workers) -> None:
    row = next(c for c in swept.cases if (c.precision, c.batch_size) == ("bf16", 2))
    done = extend_rounds(swept, {row: 2}, workers, PLUGINS, 60.0)
    after = storage.load(Path(str(swept.folder)))
    fresh = round_numbers(after) - round_numbers(swept)
    assert (done, len(fresh)) == (2, 2)
    assert members(after, fresh) == {("fp32", 2), ("bf16", 2)}
    copies = [c.measurement for c in after.controls if c.measurement.round in fresh]
    assert {(m.case.precision, m.case.batch_size) for m in copies} == {("fp32", 2)}
    assert ratios(after).of[row.id].rounds == ratios(swept).of[row.id].rounds + 2
    assert all(m.started >= str(swept.finished) for m in after.measurements if m.round in fresh)
    kept = {(m.case.id, m.replicate): m for m in after.measurements}
    assert all(kept[m.case.id, m.replicate] == m for m in swept.measurements)


@pytest.mark.slow
def test_nothing_is_measured_that_does_not_fit_into_the_time(swept: Run, workers: Workers) -> None:
    assert extend_rounds(swept, {swept.cases[1]: 2}, workers, PLUGINS, 0.0) == 0
    assert storage.load(Path(str(swept.folder))).measurements == swept.measurements


@pytest.mark.slow
def test_a_reference_takes_turns_with_all_rows_of_its_group(swept: Run) -> None:
    reference = next(c for c in swept.cases if (c.precision, c.batch_size) == ("fp32", 4))
    (planned,) = planning.rounds_of(planning.plan(swept, free_bytes=2**40), {reference.id})
    assert {(m.case.precision, m.copy) for m in planned.members} == {
        ("fp32", False), ("fp32", True), ("bf16", False), ("fp16", False),
    }  # fmt: skip
    assert planned.number > max(round_numbers(swept))
    taken = {(m.case.id, m.replicate) for m in swept.measurements}
    assert not taken & {(m.case.id, m.replicate) for m in planned.members if not m.copy}


@pytest.mark.slow
def test_a_row_that_is_alone_in_its_group_takes_turns_with_its_copy(swept: Run) -> None:
    row = swept.cases[0]
    alone = replace(swept, cases=(row,), measurements=tuple(m for m in swept.measurements if m.case == row))
    (planned,) = planning.rounds_of(planning.plan(alone, free_bytes=2**40), {row.id})
    assert [(m.case, m.copy) for m in sorted(planned.members, key=lambda m: m.copy)] == [(row, False), (row, True)]


@pytest.mark.slow
def test_a_case_that_is_not_valid_gets_no_round(swept: Run) -> None:
    row = swept.cases[1]
    failed = tuple(
        replace(m, status="failed", reason="boom", samples={}) if m.case == row else m for m in swept.measurements
    )
    found = planning.plan(replace(swept, measurements=failed), free_bytes=2**40)
    assert planning.rounds_of(found, {row.id}) == []
