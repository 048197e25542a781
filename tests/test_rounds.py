"""The rounds of a run: what is measured side by side, and what remains of it after failures, kills and interrupts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from suite_fixture import PLUGINS, Silent

from harness import storage, suite
from harness.causes import Cause
from harness.processes.worker import Workers
from harness.ratios import ratios
from harness.reasons import Reason
from harness.sweeping import memory, rounds
from harness.sweeping.sweep import new_run, sweep
from harness.types import Measurement, Run

PROTOCOL = (
    "{replicates: 3, ratio_interval: null, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, "
    "min_sample_time_s: 0.01, target_interval: null, stages: false, timeout_s: 60}"
)
TWO = " - {model: planted_ok, precision: [fp32, bf16], batch_size: 2}\n"
LATER = " - {model: planted_later_NAME, weights: WEIGHTS, precision: [fp32, bf16], batch_size: 2}\n"

RunRounds = Callable[..., Run]


@pytest.fixture
def run_rounds(workers: Workers, machine: dict, tmp_path: Path) -> RunRounds:
    """Runs the `cases` of a suite in rounds; WEIGHTS in them is an empty folder."""

    def run(cases: str, protocol: str = PROTOCOL, listener: Silent | None = None) -> Run:
        weights = tmp_path / "weights"
        weights.mkdir()
        chosen = suite.parse(f"name: rounds\nprotocol: {protocol}\ncases:\n{cases.replace('WEIGHTS', str(weights))}")
        return sweep(new_run(chosen, tmp_path / "run", machine), workers, PLUGINS, listener or Silent())

    return run


def processes(run: Run, precision: str) -> list[Measurement]:
    return [m for m in run.measurements if m.case.precision == precision]


@pytest.mark.slow
def test_each_row_is_measured_once_alone_and_then_in_rounds_with_its_reference(run_rounds: RunRounds) -> None:
    cases = " - {model: planted_ok, precision: [fp32, bf16], batch_size: [1, 2]}\n"
    run = run_rounds(cases)
    assert run.finished is not None
    by_round: dict[int, list[Measurement]] = {}
    for m in run.measurements:
        if m.round is not None:
            by_round.setdefault(m.round, []).append(m)
    assert sorted(by_round) == [1, 2, 3, 4]
    for case in run.cases:
        mine = run.by_case[case.id]
        assert [(m.replicate, m.round is None) for m in mine] == [(0, True), (1, False), (2, False)]
        assert {m.status for m in mine} == {"ok"}
    for members in by_round.values():
        assert {m.case.precision for m in members} == {"fp32", "bf16"}
        assert len({m.case.batch_size for m in members}) == 1
        assert len({m.facts["turns"] for m in members}) == 1
        assert all(m.facts["alternates"] == "turns" for m in members)
        assert all(len(m.samples["latency_s"]) % m.facts["turns"] == 0 for m in members)
    visited = [members[0].case.batch_size for _, members in sorted(by_round.items())]
    assert sorted(visited[:2]) == sorted(visited[2:]) == [1, 2]  # each cycle visits every group
    copies = [c.measurement for c in run.controls if c.side == "copy"]
    assert sorted(m.round for m in copies) == [1, 2, 3, 4]
    assert {m.case.precision for m in copies} == {"fp32"}
    found = ratios(run)
    assert {case_id: r.rounds for case_id, r in found.of.items()} == {
        case.id: 2 for case in run.cases if case.precision == "bf16"
    }
    assert all(r.rounds == 2 and r.low is not None for r in found.controls.values())
    assert storage.load(Path(str(run.folder))) == run


@pytest.mark.slow
@pytest.mark.parametrize(("model", "status"), [("fails", "failed"), ("exits", "failed"), ("hangs", "timeout")])
def test_a_row_that_fails_in_a_round_is_a_failed_row_and_the_others_get_all_their_rounds(
    model: str, status: str, run_rounds: RunRounds
) -> None:
    cases = LATER.replace("NAME", model) + " - {model: planted_ok}\n"
    run = run_rounds(cases, PROTOCOL.replace("timeout_s: 60", "timeout_s: 12"))
    failed = processes(run, "bf16")
    assert [m.status for m in failed] == ["ok", status]
    assert failed[1].round is not None
    sound = [m for m in run.measurements if m.case.precision == "fp32"]
    assert {m.status for m in sound} == {"ok"}
    assert all(len(run.by_case[c.id]) >= 3 for c in run.cases if c.precision == "fp32")
    assert all(r.rounds >= 2 for r in ratios(run).controls.values())
    assert not ratios(run).of
    assert run.finished is not None


@pytest.mark.slow
def test_a_row_that_is_out_of_memory_beside_others_is_measured_one_process_at_a_time(
    run_rounds: RunRounds,
) -> None:
    run = run_rounds(LATER.replace("NAME", "memory_once"))
    assert {m.status for m in run.measurements} == {"ok"}
    (ratio,) = ratios(run).of.values()
    assert not ratio.simultaneous
    alone = [m for m in processes(run, "bf16") if m.round is not None]
    assert {m.facts["alternates"] for m in alone} == {"processes"}


@pytest.mark.slow
def test_where_two_models_do_not_fit_one_process_at_a_time_is_measured_in_the_order_abba(
    run_rounds: RunRounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _environment: 1)
    run = run_rounds(TWO, PROTOCOL.replace("replicates: 3", "replicates: 2"))
    members = [m for m in run.measurements if m.round is not None]
    copies = [c.measurement for c in run.controls if c.side == "copy"]
    by_round: dict[int, list[Measurement]] = {}
    for m in sorted((*members, *copies), key=lambda m: (m.started, m.replicate)):
        by_round.setdefault(m.round, []).append(m)
    assert {number: len(members) for number, members in by_round.items()} == {1: 4, 2: 4}
    assert all(r.rounds == 1 and not r.simultaneous for r in ratios(run).of.values())


@pytest.mark.slow
def test_a_process_with_another_output_makes_its_row_invalid(
    run_rounds: RunRounds,
) -> None:
    run = run_rounds(LATER.replace("NAME", "other_output"))
    assert [m.status for m in processes(run, "bf16")] == ["ok", "invalid"]


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_processes_of_rounds_build_anew_only_on_request(fresh: bool, run_rounds: RunRounds) -> None:
    wanted = PROTOCOL.replace("{", f"{{fresh_builds: {str(fresh).lower()}, ").replace("replicates: 3", "replicates: 2")
    run = run_rounds(" - {model: planted_ok, backend: [eager, torch_compile]}\n", wanted)
    (compiled,) = [m for m in run.measurements if m.case.backend == "torch_compile" and m.round is not None]
    assert ("build_s" in compiled.samples, "build_cached_s" in compiled.samples) == (fresh, not fresh)


@pytest.mark.slow
def test_a_spent_budget_leaves_every_row_measured_once_and_in_one_round(run_rounds: RunRounds) -> None:
    run = run_rounds(TWO, PROTOCOL.replace("{", "{budget_s: 0.001, "))
    assert [(m.replicate, m.status, m.round) for m in run.measurements[:2]] == [(0, "ok", None)] * 2
    assert sorted((m.case.precision, m.round) for m in run.measurements[2:]) == [("bf16", 1), ("fp32", 1)]
    assert run.finished is not None
    (ratio,) = ratios(run).of.values()
    assert ratio.rounds == 1


class Interrupting(Silent):
    """Presses Ctrl-C after a number of rounds."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def round_end(self, measurements, open_rows, seconds_left) -> None:
        super().round_end(measurements, open_rows, seconds_left)
        if len(self.rounds) == self.after:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(run_rounds: RunRounds, workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_rounds(TWO, listener=Interrupting(1))
    stopped = storage.load(tmp_path / "run")
    assert stopped.finished is None
    assert len([m for m in stopped.measurements if m.round == 1]) == 2
    run = sweep(stopped, workers, PLUGINS, Silent())
    assert [m.replicate for m in processes(run, "bf16")] == [0, 1, 2]
    assert run.measurements[: len(stopped.measurements)] == stopped.measurements
    assert run.finished is not None


@pytest.mark.slow
def test_what_a_kill_leaves_of_a_round_is_kept_and_the_rest_measured(
    run_rounds: RunRounds, workers: Workers, tmp_path: Path
) -> None:
    whole = run_rounds(TWO)
    folder = tmp_path / "run"
    lines = (folder / storage.MEASUREMENTS_FILE).read_bytes().splitlines(keepends=True)
    controls = (folder / storage.CONTROLS_FILE).read_bytes()
    for kept in range(1, len(lines)):
        cut = b"".join(lines[:kept]) + lines[kept][:20]
        (folder / storage.MEASUREMENTS_FILE).write_bytes(cut)
        (folder / storage.CONTROLS_FILE).write_bytes(controls)
        storage.write_header(folder, replace(whole, finished=None))
        run = sweep(storage.load(folder), workers, PLUGINS, Silent())
        numbers = [(m.case.id, m.replicate) for m in run.measurements]
        assert len(numbers) == len(set(numbers))
        assert run.finished is not None
        (ratio,) = ratios(run).of.values()
        assert ratio.rounds >= 2


@pytest.mark.slow
def test_a_process_that_the_environment_ended_is_measured_again_when_the_run_is_resumed(
    run_rounds: RunRounds, workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, broken = rounds.measure_round, []

    def breaks_once(planned, run, site):
        found = original(planned, run, site)
        if broken:
            return found
        broken.append(planned)
        reason = Reason(Cause.KILLED.value)
        return [
            (member, replace(m, status="failed", reason=reason, samples={}) if m.case.precision == "bf16" else m)
            for member, m in found
        ]

    monkeypatch.setattr(rounds, "measure_round", breaks_once)
    stopped = run_rounds(TWO)
    assert stopped.finished is None
    failed = next(m for m in stopped.measurements if m.status != "ok")
    run = sweep(storage.load(tmp_path / "run"), workers, PLUGINS, Silent())
    assert run.finished is not None
    assert {m.status for m in run.measurements} == {"ok"}
    again = next(m for m in run.measurements if (m.case.id, m.replicate) == (failed.case.id, failed.replicate))
    assert again.attempt == 1
    assert failed in run.superseded
