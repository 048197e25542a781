"""A run folder survives a kill at any moment, and a sweep resumes without losing or repeating a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from suite_fixture import PLUGINS, QUICK, Silent

from harness import frames, storage
from harness.processes.worker import Workers
from harness.storage import RunBusy, UnreadableRun
from harness.sweeping.sweep import remaining, sweep
from harness.types import AXES, Case, Measurement, Metric, Protocol, Run

RunSuite = Callable[..., Run]
LATENCY = Metric(name="latency_s", unit="s", label="Latency", better="lower", kind="noisy", description="seconds")


def small_run(folder: Path) -> Run:
    case = Case(model="m", prompt="<script>ä")
    run = Run(
        id="r", suite="s", protocol=Protocol(), environment={"device": "cpu"}, metrics={"latency_s": LATENCY},
        cases=(case, case.with_(batch_size=2)), measurements=(), folder=str(folder),
    )  # fmt: skip
    storage.create(folder, run)
    return run


def measurement(run: Run, replicate: int = 0, **changes: object) -> Measurement:
    given = {"case": run.cases[0], "replicate": replicate, "status": "ok", "samples": {"latency_s": [0.1, 0.2]}}
    return Measurement(**{**given, **changes})  # type: ignore[arg-type]


def test_a_run_reads_back_equal(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    stored = (measurement(run), measurement(run, 1, status="failed", reason="x", samples={}))
    for one in stored:
        storage.append(tmp_path, one)
    back = storage.load(tmp_path)
    assert back == replace(run, measurements=stored)
    assert storage.run_from_dict(json.loads(json.dumps(storage.run_to_dict(back)))) == replace(back, folder=None)


def test_a_half_written_line_is_named_and_the_next_one_is_whole(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    storage.append(tmp_path, measurement(run))
    path = tmp_path / storage.MEASUREMENTS_FILE
    path.write_bytes(path.read_bytes() + path.read_bytes()[:70])
    storage.append(tmp_path, measurement(run, 1))
    back = storage.load(tmp_path)
    assert [m.replicate for m in back.measurements] == [0, 1]
    assert back.problems == ("measurements.jsonl line 2 was cut off or is unreadable, and is left out",)


@pytest.mark.parametrize("phase", ["samples", "warmup"])
@pytest.mark.parametrize("sample", ["0.1", None, [0.1], {}])
def test_a_sample_that_is_not_a_number_is_refused_wherever_it_stands(sample: object, phase: str) -> None:
    whole = storage.measurement_to_dict(Measurement(case=Case(model="m"), replicate=0, status="ok"))
    numbers = {"latency_s": [0.1, 2], "load_s": []}
    assert getattr(storage.measurement_from_dict({**whole, phase: numbers}), phase) == numbers
    for name in ("latency_s", "other_s"):
        with pytest.raises(ValueError, match=rf"^measurement.{phase}.{name}: .* must be "):
            storage.measurement_from_dict({**whole, phase: {**numbers, name: [*[0.1] * 50, sample, 0.1]}})


def test_a_repeated_line_counts_once(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    storage.append(tmp_path, measurement(run))
    storage.append(tmp_path, measurement(run))
    back = storage.load(tmp_path)
    assert len(back.measurements) == 1
    assert "repeats" in back.problems[0]


def test_a_sample_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    with pytest.raises(ValueError, match="recorded as missing"):
        storage.append(tmp_path, measurement(run, samples={"latency_s": [float("inf")]}))


def test_status_and_reason_belong_together() -> None:
    with pytest.raises(ValueError, match="exactly when"):
        Measurement(case=Case(model="m"), replicate=0, status="failed")
    with pytest.raises(ValueError, match="unknown status"):
        Measurement(case=Case(model="m"), replicate=0, status="fine")  # type: ignore[arg-type]


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRun, match="not a run folder"):
        storage.load(tmp_path)
    (tmp_path / storage.RUN_FILE).write_text('{"schema": 99}')
    with pytest.raises(UnreadableRun, match="it has schema 99; this version of imgbench reads the schemas 1 and 2"):
        storage.load(tmp_path)
    (tmp_path / storage.RUN_FILE).write_text("{")
    with pytest.raises(UnreadableRun):
        storage.load(tmp_path)


def test_one_writer_a_run(tmp_path: Path) -> None:
    with storage.locked(tmp_path), pytest.raises(RunBusy, match="another process"), storage.locked(tmp_path):
        pass


def test_the_frame_reads_every_axis_from_its_own_field(tmp_path: Path) -> None:
    values = {
        f.name: f"value of {f.name}" if f.type in ("str", "str | None") else i + 2 for i, f in enumerate(fields(Case))
    }
    case = Case(**values)
    run = replace(small_run(tmp_path), cases=(case,), models={case.model: {"family": "a family"}})
    row = frames.cases_frame(run).iloc[0]
    assert {axis: row[axis] for axis in AXES} == values
    assert (row.family, row.status, row.reason) == ("a family", "not_run", "not measured yet")


def test_the_frames_of_a_run(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    good = measurement(
        run,
        warmup={"latency_s": [9.0]},
        missing={"energy_per_image_j": "no counter"},
        warnings=("a kind: w; and more",),
    )
    run = replace(run, measurements=(good, measurement(run, 1, samples={"latency_s": [0.3, 0.4]})))
    row = frames.cases_frame(run).iloc[0]
    assert row.latency_s == pytest.approx(0.25)
    assert row.latency_s_low < 0.25 < row.latency_s_high
    assert row.missing["energy_per_image_j"] == "no counter"
    assert row.missing["latency_p90_s"] == "the metric needs 10 samples, and the row has 4"
    assert row.missing_kinds["latency_p90_s"] == "too_few_samples"
    assert (row.replicates, row.warnings, row.warning_texts) == (2, ["a kind"], ["a kind: w; and more"])
    samples = frames.samples_frame(run)
    assert samples[samples.phase == "warmup"].value.tolist() == [9.0]
    assert samples[samples.phase == "steady"].value.tolist() == [0.1, 0.2, 0.3, 0.4]
    rows = json.loads(frames.to_json(frames.cases_frame(run)))
    assert rows[0]["latency_s"] == pytest.approx(0.25)
    assert rows[1]["latency_s"] is None
    assert frames.flat(frames.cases_frame(run)).to_csv().count("no counter") == 1


def test_an_interrupted_sweep_resumes_and_repeats_nothing(
    run_suite: RunSuite, workers: Workers, tmp_path: Path
) -> None:
    class Stop(Silent):
        def end(self, measurement: Measurement) -> None:
            super().end(measurement)
            if len(self.heard) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(
            " - {model: planted_ok, batch_size: [1, 2, 4]}\n",
            QUICK.replace("replicates: 1", "replicates: 2, ratio_interval: null"),
            Stop(),
        )
    stopped = storage.load(tmp_path / "run")
    assert (len(stopped.measurements), stopped.finished) == (2, None)
    listener = Silent()
    whole = sweep(stopped, workers, PLUGINS, listener)
    assert (len(listener.heard), len(whole.measurements)) == (1, 6)
    assert len(storage.measured(whole)) == 6


@pytest.mark.slow
def test_kill_9_in_the_middle_then_resume(tmp_path: Path) -> None:
    suite_file = tmp_path / "s.yaml"
    suite_file.write_text(
        "name: s\nprotocol: {replicates: 2, ratio_interval: null, warmup_max_s: 0.05, warmup_min_s: 0.01, "
        "min_sample_time_s: 0.1, target_interval: null, contended_retries: 0}\n"
        "cases:\n - {model: planted_ok, batch_size: [1, 2, 3]}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent / "fixtures")}
    command = [sys.executable, "-m", "benches.cli", "run", "--plugin", "planted", "--no-report"]
    begun = subprocess.Popen(
        [*command, str(suite_file), "--out", str(tmp_path / "runs")], env=environment, stdout=subprocess.DEVNULL
    )
    lines = _wait_for_lines(tmp_path / "runs", 2)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    (folder,) = (tmp_path / "runs").iterdir()
    before = storage.load(folder)
    assert lines <= len(before.measurements) < 6
    assert before.finished is None
    done = subprocess.run(
        [*command, "--resume", str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    after = storage.load(folder)
    assert after.measurements[: len(before.measurements)] == before.measurements
    assert len(after.measurements) == 6
    assert not remaining(after)
    assert after.finished is not None


def _wait_for_lines(root: Path, count: int) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = sum(p.read_bytes().count(b"\n") for p in root.glob("*/measurements.jsonl"))
        if found >= count:
            return found
        time.sleep(0.02)
    raise AssertionError("the sweep measured nothing in two minutes")


def test_resume_measures_only_what_is_missing(run_suite: RunSuite, workers: Workers) -> None:
    run = run_suite(" - {model: planted_ok, batch_size: [1, 2]}\n")
    folder = Path(str(run.folder))
    lines = (folder / storage.MEASUREMENTS_FILE).read_text().splitlines(keepends=True)
    (folder / storage.MEASUREMENTS_FILE).write_text(lines[0])
    listener = Silent()
    again = sweep(storage.load(folder), workers, PLUGINS, listener)
    assert [m.case.batch_size for m in listener.heard] == [2]
    assert [m.case.batch_size for m in again.measurements] == [1, 2]
    assert not (folder / "references").exists()


def test_what_is_no_file_is_written_to_and_a_link_stays_one(tmp_path: Path) -> None:
    """As `--markdown /dev/stdout` is; replaced by a file, a device would be gone for everybody."""
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    storage.write_atomically(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    storage.write_atomically(pipe, "text")
    assert os.read(reader, 99) == b"text"
    os.close(reader)
    assert pipe.is_fifo()
