"""`imgbench run --resume` as its user meets it: after a full disk, in another folder, with another umask."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benches.cli import main
from harness import storage
from harness.causes import Cause

HERE = Path(__file__).parent
PROTOCOL = (
    "{replicates: 2, ratio_interval: null, warmup_min_s: 0.0, warmup_max_s: 0.0, min_samples: 400, "
    "min_sample_time_s: 0.0, target_interval: null, contended_retries: 0, stages: false, timeout_s: 60}"
)


def imgbench(
    *arguments: str, cwd: Path, before: Callable[[], None] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join((str(HERE / "fixtures"), str(HERE.parent)))
    command = [sys.executable, "-m", "benches.cli", "run", "--plugin", "planted", "--no-report", *arguments]
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"} | variables
    return subprocess.run(
        command, env=environment, cwd=cwd, preexec_fn=before, capture_output=True, text=True, check=False
    )


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    """A suite of three rows; its folder of weights is named as seen from `tmp_path`."""
    (tmp_path / "w").mkdir()
    path = tmp_path / "s.yaml"
    path.write_text(
        f"name: s\nprotocol: {PROTOCOL}\ncases:\n - {{model: planted_ok, batch_size: [1, 2]}}\n"
        " - {model: planted_until_mended, weights: ./w, seed: 24}\n"
    )
    return path


def only_run(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_resume_measures_every_row(suite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "w/mended").touch()

    def nearly_full() -> None:  # the header has room, and two of the six measurements of 400 samples
        resource.setrlimit(resource.RLIMIT_FSIZE, (36_000, 36_000))

    out = str(tmp_path / "runs")
    stopped = imgbench(str(suite_file), "--out", out, cwd=tmp_path, before=nearly_full)
    folder = only_run(tmp_path)
    assert stopped.returncode == 20, stopped.stdout
    assert stopped.stderr.count("\n") == 1
    assert f"{folder}/measurements.jsonl: File too large" in stopped.stderr
    assert f"Resume with: imgbench run --resume {folder}" in stopped.stderr
    before = storage.load(folder)
    assert 0 < len(before.measurements) < 6
    assert before.problems == ()
    done = imgbench("--resume", str(folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = storage.load(folder)
    assert after.measurements[: len(before.measurements)] == before.measurements
    assert ([m.status for m in after.measurements], after.problems) == (["ok"] * 6, ())
    assert after.finished is not None


@pytest.mark.slow
def test_what_the_environment_failed_is_said_and_measured_again_from_another_folder(
    suite_file: Path, tmp_path: Path
) -> None:
    first = imgbench(str(suite_file), "--out", str(tmp_path / "runs"), cwd=tmp_path)
    folder = only_run(tmp_path)
    assert first.returncode == 20
    (told,) = [line for line in first.stdout.splitlines() if "failed because of the environment" in line]
    assert told.startswith("1 row failed because of the environment, not the code under test (too many files are open")
    assert told.endswith(f"imgbench run --resume {folder}")
    assert [m.cause for m in storage.load(folder).measurements if m.cause] == [Cause.TOO_MANY_FILES]
    (tmp_path / "w").rename(tmp_path / "away")
    refused = imgbench("--resume", str(folder), cwd=tmp_path)
    assert refused.returncode == 12
    assert f"weights: 'w': the folder {tmp_path}/w does not exist any more" in refused.stderr
    assert refused.stderr.count("\n") == 1
    (tmp_path / "away").rename(tmp_path / "w")
    (tmp_path / "w/mended").touch()
    (tmp_path / "elsewhere").mkdir()
    done = imgbench("--resume", str(folder), cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    run = storage.load(folder)
    assert [m.status for m in run.measurements] == ["ok"] * 6
    assert [m.cause for m in run.superseded] == [Cause.TOO_MANY_FILES]
    again = imgbench("--resume", str(folder), cwd=tmp_path / "elsewhere")
    assert "nothing is missing from this run" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_a_run_is_its_owner_s_to_read_and_write_under_any_umask(mask: int, suite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "w/mended").touch()
    out = str(tmp_path / "runs")
    one = ("--replicates", "1", "--only", "batch_size=2")
    done = imgbench(str(suite_file), "--out", out, *one, cwd=tmp_path, before=lambda: _umask(mask))
    assert done.returncode == 0, done.stderr
    written = list((tmp_path / "runs").rglob("*"))
    assert len(written) > 3
    for path in written:
        wanted = stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR
        assert path.stat().st_mode & wanted == wanted, path


def _umask(mask: int) -> None:
    os.umask(mask)


@pytest.mark.slow
def test_a_long_folder_for_temporary_files_is_no_obstacle(suite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "w/mended").touch()
    long = tmp_path / ("x" * 100)
    long.mkdir()
    out = str(tmp_path / "runs")
    one = ("--replicates", "1", "--only", "batch_size=2")
    done = imgbench(str(suite_file), "--out", out, *one, cwd=tmp_path, TMPDIR=str(long))
    assert done.returncode == 0, done.stderr
    assert [m.status for m in storage.load(only_run(tmp_path)).measurements] == ["ok"]


def test_retry_failed_belongs_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "smoke", "--retry-failed"]) == 64
    assert "it needs --resume RUN" in capsys.readouterr().err
