"""`compare`, `explain` and `replay` of a run against stored sessions, on runs that are measured here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from baseline_fixture import B, latency, measured, run_of
from suite_fixture import PLUGINS, Silent

import benches
from baselines.stored import store
from baselines.stored.suspects import EXTRA, EXTRA_ROUNDS
from baselines.wording import ReasonKind, because
from benches.ab.arms import OURS
from benches.cli import compare, main
from harness import storage, suite
from harness.measuring.contention import is_contention
from harness.processes.loaded_code import source_digests
from harness.processes.worker import Workers
from harness.reasons import Reason, stated
from harness.sweeping.sweep import new_run, sweep
from harness.types import Measurement, Run

CASES = " - {model: planted_ok, batch_size: [64, 256]}\n"
SOURCES = source_digests((*OURS, *benches.PLUGINS, "planted"))
PROTOCOL = (
    "{replicates: 2, rounds: false, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, "
    "min_sample_time_s: 0.01, target_interval: 1.0, timeout_s: 60}"
)


def scaled(measurement: Measurement, factor: float) -> Measurement:
    samples = measurement.samples | {"latency_s": [v * factor for v in measurement.samples["latency_s"]]}
    quiet = tuple(w for w in measurement.warnings if not is_contention(w))
    return replace(measurement, samples=samples, warnings=quiet)


def rewritten(run: Run, folder: Path, change: Callable[[Measurement], Measurement]) -> Path:
    """The run in another folder, with changed measurements; its state stays as it was measured."""
    storage.create(folder, replace(run, id=folder.name))
    for measurement in run.measurements:
        storage.append(folder, change(measurement))
    storage.write_header(folder, replace(run, id=folder.name))
    return folder


@pytest.fixture(scope="module")
def swept(workers: Workers, machine: dict, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that all tests of this file change copies of."""
    chosen = suite.parse(f"name: planted\nprotocol: {PROTOCOL}\ncases:\n{CASES}")
    started = new_run(chosen, tmp_path_factory.mktemp("swept") / "run", machine)
    return sweep(started, workers, PLUGINS, Silent())


@pytest.fixture
def swept_in_rounds(workers: Workers, machine: dict, tmp_path: Path) -> Run:
    protocol = PROTOCOL.replace("rounds: false", "ratio_interval: null")
    chosen = suite.parse(f"name: planted\nprotocol: {protocol}\ncases:\n{CASES}")
    return sweep(new_run(chosen, tmp_path / "swept" / "run", machine), workers, PLUGINS, Silent())


@pytest.fixture
def disturbed(swept: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return with_sessions(swept, tmp_path, monkeypatch)


def with_sessions(swept: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores six sessions of a run. Returns the run's folder, with each process of one row nine times as slow."""
    run = replace(swept, environment=swept.environment | {"plugins": ["planted"], "sources": SOURCES}, controls=())
    for number, factor in enumerate((0.9, 1.0, 1.1, 1.0, 0.95, 1.05)):
        calm = replace(run, measurements=tuple(scaled(m, factor) for m in run.measurements))
        store.save(replace(calm, id=f"s{number}"), "as ever", tmp_path / "store")
    monkeypatch.setenv("IMGBENCH_BASELINES", str(tmp_path / "store"))
    return rewritten(run, tmp_path / "now", lambda m: scaled(m, 9.0 if m.case.batch_size == 256 else 1.0))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    return code, capsys.readouterr().out


@pytest.mark.quiet
def test_a_false_suspicion_is_taken_back_and_nothing_is_thrown_away(
    disturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both first processes of the row were disturbed (here: by us); its additional ones are not."""
    code, out = told(capsys, "compare", str(disturbed), "--budget", "0")
    assert code == 10, out
    assert "not measured again: --budget is 0" in out
    before = storage.load(disturbed)
    code, out = told(capsys, "compare", str(disturbed), "--budget", "100s")
    assert f"measured again in {EXTRA} additional processes" in out, out
    after = storage.load(disturbed)
    kept = {(m.case.id, m.replicate): m.samples for m in after.measurements}
    assert all(kept[(m.case.id, m.replicate)] == m.samples for m in before.measurements)
    assert len(after.measurements) + len(after.superseded) == len(before.measurements) + EXTRA
    decided = json.loads((disturbed / "comparison.json").read_text())
    assert "regressed" not in {verdict["outcome"] for verdict in decided["verdicts"]}
    assert code in {0, 14}  # 14 where this machine was busy meanwhile: then the words say what it would have read


@pytest.mark.quiet
def test_a_suspect_of_a_run_with_rounds_is_measured_again_in_further_rounds(
    swept_in_rounds: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the second copy of its group's reference, since the row is alone in its group."""
    folder = with_sessions(swept_in_rounds, tmp_path, monkeypatch)
    before = storage.load(folder)
    code, out = told(capsys, "compare", str(folder), "--budget", "100s")
    assert f"measured again in {EXTRA_ROUNDS} additional rounds" in out, out
    after = storage.load(folder)
    assert after.measurements[: len(before.measurements)] == before.measurements
    added = after.measurements[len(before.measurements) :]
    assert [(m.case.batch_size, m.status) for m in added] == [(256, "ok")] * EXTRA_ROUNDS
    assert [c.measurement.round for c in after.controls if c.side == "copy"] == [m.round for m in added]
    decided = json.loads((folder / "comparison.json").read_text())  # by measured times, so that no outcome is certain
    assert {verdict["case_id"] for verdict in decided["verdicts"]} == {case.id for case in after.cases}
    assert code in {0, 10, 14}


@pytest.mark.quiet
def test_a_suspect_is_measured_again_by_a_command_of_its_own(disturbed: Path, tmp_path: Path) -> None:
    """As a user types it: a process that has read no registry, in the folder where the run's own plugin lies."""
    here = Path(__file__).parent / "fixtures"
    environment = os.environ | {"IMGBENCH_BASELINES": str(tmp_path / "store"), "PYTHONPATH": str(here.parents[1])}

    def compared(folder: Path) -> tuple[int, str]:
        command = [sys.executable, "-P", "-m", "benches.cli", "compare", str(disturbed), "--json"]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
        assert found.stderr == ""
        return found.returncode, " ".join(json.loads(found.stdout)["notes"])

    code, notes = compared(tmp_path)
    assert code == 10, notes
    assert "not measured again: plugin planted: ModuleNotFoundError" in notes
    code, notes = compared(here)
    assert code in {0, 14}, notes
    assert f"measured again in {EXTRA} additional processes" in notes


def test_replay_gives_the_same_decision_and_sees_an_edited_value(
    disturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "compare", str(disturbed), "--budget", "0")
    code, out = told(capsys, "replay", str(disturbed))
    assert (code, "bit for bit the same" in out) == (0, True), out
    path = disturbed / storage.MEASUREMENTS_FILE
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    entries[0]["samples"]["latency_s"] = [v * 2 for v in entries[0]["samples"]["latency_s"]]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    code, out = told(capsys, "replay", str(disturbed))
    assert (code, "another decision" in out) == (12, True), out


def test_replay_uses_the_sessions_that_were_used_then(disturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "compare", str(disturbed), "--budget", "0")
    root = disturbed.parent / "store"
    newest = store.find(storage.load(disturbed), root)[-1].run
    later = replace(newest, id="s9", measurements=tuple(scaled(m, 5.0) for m in newest.measurements))
    store.save(later, "a later session", root)
    code, out = told(capsys, "replay", str(disturbed))
    assert (code, "bit for bit the same" in out) == (0, True), out


@pytest.mark.parametrize("when", ["stale", "itself", "nothing stored yet"])
def test_replay_of_odd_comparisons_is_the_same(when: str, disturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = disturbed.parent / "store"
    run = storage.load(disturbed)
    if when == "stale":
        path = next(root.glob("*/*/s0.json"))
        document = json.loads(path.read_text()) | {"saved": "2020-01-01T00:00:00+00:00"}
        path.write_text(json.dumps(document | {"hash": store.seal(document)}))
    if when == "itself":
        store.save(run, "it is one of them", root)
    if when == "nothing stored yet":
        root.rename(root.with_name("away"))
    code, out = told(capsys, "compare", str(disturbed), "--budget", "0")
    assert {"stale": "stale sessions are left out: 1", "itself": "itself a stored session"}.get(
        when, "no baseline"
    ) in out
    if when == "nothing stored yet":
        store.save(replace(run, id="later"), "later", root)
    code, out = told(capsys, "replay", str(disturbed))
    assert (code, "bit for bit the same" in out) == (0, True), out


def test_other_code_is_not_measured_into_the_run(disturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = storage.load(disturbed)
    sources = header.environment["sources"] | {"planted": "another"}
    storage.write_header(disturbed, replace(header, environment=header.environment | {"sources": sources}))
    code, out = told(capsys, "compare", str(disturbed), "--budget", "100s")
    assert code == 10
    assert "the code differs from that of the run, or its version is unknown" in out


def test_explain_has_words_for_rows_that_no_rule_was_asked_for(
    disturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = disturbed / storage.MEASUREMENTS_FILE
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        entry["samples"]["latency_s"] = [0.0] if entry["case"]["batch_size"] == 64 else []
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    told(capsys, "compare", str(disturbed), "--budget", "0")
    for row, words in (("batch 64", "not_comparable"), ("batch 256", "missing")):
        code, out = told(capsys, "explain", str(disturbed), row)
        assert (code, words in out) == (0, True), out


@pytest.mark.parametrize("arguments", [("--budget", "5x"), ("--max-age", "nan"), ("--max-age", "-1")])
def test_a_bad_option_is_told_before_anything_is_judged(
    arguments: tuple[str, str], disturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) if arguments[0] == "--max-age" else nullcontext():
        assert main(["compare", str(disturbed), *arguments]) == 64
    assert not (disturbed / "comparison.json").exists()


def test_explain_says_every_step(disturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "compare", str(disturbed), "--budget", "0")
    code, out = told(capsys, "explain", str(disturbed), "batch 256")
    assert code == 0
    for words in ("session 1 of 6: ", "session 6 of 6: ", "this run: ", "threshold 1 % + ", "p before the correction"):
        assert words in out
    code = main(["explain", str(disturbed), "batch"])
    assert code == 64


def test_a_run_of_another_host_is_not_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, seconds in enumerate((1.0, 1.001, 0.999, 1.0, 1.002)):
        session = run_of(measured(latency(seconds, seconds, seconds)), run_id=f"s{number}")
        store.save(session, "as ever", tmp_path / "store")
    rewritten(run_of(measured(latency(1.3, 1.3, 1.3))), tmp_path / "now", lambda m: m)
    monkeypatch.setenv("IMGBENCH_BASELINES", str(tmp_path / "store"))
    code, out = told(capsys, "compare", str(tmp_path / "now"))
    assert code == 10
    assert "not measured again: the run was made on another host" in out
    assert "imgbench ab digits --base ref=COMMIT" in out


@pytest.mark.parametrize(
    ("told", "loads"),
    [
        (because(ReasonKind.MEASURED_AGAIN, rows=1, processes=2, planned=2, suite="s"), 2),
        (because(ReasonKind.ROUNDS_MEASURED_AGAIN, rows=1, rounds=2, planned=2, suite="s"), 2),
        (because(ReasonKind.NOT_MEASURED_AGAIN, rows=1, reason=stated("the disk is full"), suite="s"), 2),  # half-way
        (because(ReasonKind.NOT_MEASURED_AGAIN, rows=1, reason=because(ReasonKind.NO_BUDGET), suite="s"), 1),
    ],
)
def test_a_run_is_read_again_only_where_it_was_measured_again(
    told: Reason, loads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, seconds in enumerate((1.0, 1.001, 0.999, 1.0, 1.002)):
        session = run_of(measured(latency(seconds, seconds, seconds)), run_id=f"s{number}")
        store.save(session, "as ever", tmp_path / "store")
    now = rewritten(run_of(measured(latency(1.3, 1.3, 1.3))), tmp_path / "now", lambda m: m)
    read, load = [], storage.load
    monkeypatch.setattr(storage, "load", lambda folder: (read.append(folder), load(folder))[1])
    monkeypatch.setattr(compare, "_measured_again", lambda *_given, **_options: told)
    assert main(["compare", str(now), "--store", str(tmp_path / "store")]) == 10
    assert [folder for folder in read if folder == now] == [now] * loads


def test_a_new_row_is_red_until_it_is_allowed_or_accepted_and_replays_as_it_was_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGBENCH_BASELINES", str(tmp_path / "store"))
    times = latency(1.0, 1.001, 0.999)
    store.save(run_of(measured(times), run_id="s0"), "as ever", tmp_path / "store")
    now = rewritten(run_of([*measured(times), *measured(times, B)]), tmp_path / "t1", lambda m: m)
    for options, expected in ((), 12), (("--allow-new",), 0), (("--allow-new", "--strict"), 0):
        code, out = told(capsys, "compare", str(now), *options)
        assert code == expected, out
        assert "imgbench baseline save" in " ".join(out.split())
        code, out = told(capsys, "replay", str(now))
        assert (code, "bit for bit the same" in out) == (0, True), out
    assert main(["baseline", "save", str(now), "--reason", "a row more"]) == 0
    again = rewritten(run_of([*measured(times), *measured(times, B)]), tmp_path / "t2", lambda m: m)
    assert main(["compare", str(again)]) == 0


def test_a_broken_pipe_elsewhere_than_to_a_reader_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """One to a worker would have ended a run half-way with exit code 0."""

    def broken(_options: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(compare, "run", broken)
    assert main(["compare", "runs"]) == 20


def test_explain_says_why_nothing_was_compared(
    disturbed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMGBENCH_BASELINES", str(tmp_path / "empty"))
    assert told(capsys, "compare", str(disturbed))[0] == 12
    assert main(["explain", str(disturbed), "planted_ok"]) == 64
    assert "'planted_ok' names 2 rows" in capsys.readouterr().err
    code, out = told(capsys, "explain", str(disturbed), "batch 256")
    assert code == 12
    assert out.startswith("not compared:\n  no baseline of suite")


def test_a_comparison_that_cannot_be_read_is_one_line(disturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (disturbed / "comparison.json").write_text("{")
    for command in (["replay", str(disturbed)], ["explain", str(disturbed), "planted_ok"]):
        assert main(command) == 64
        assert capsys.readouterr().err.count("\n") == 1


def test_a_recording_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no recording")
    assert main(["selftest", "--recorded", str(tmp_path / "file")]) == 64
    assert capsys.readouterr().err.count("\n") == 1
