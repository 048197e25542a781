"""stdout, stderr and stdin as schedulers, pipes and old locales give them: no command ends in a traceback."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import baselines.stored.store
from baselines.stored.location import SHIPPED
from harness import frames, storage, streams

REPOSITORY = Path(__file__).parent.parent
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped reference run as a run folder."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    run = baselines.stored.store.load(SHIPPED / "digits.json").run
    storage.create(folder, run)
    lines = (json.dumps(storage.measurement_to_dict(m), ensure_ascii=False) for m in run.measurements)
    (folder / storage.MEASUREMENTS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """`line` in a shell, with $IMGBENCH as the command and $RUN as the stored run."""
    command = f"{sys.executable} -m benches.cli"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RUN": str(folder), "IMGBENCH": command, **variables}
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("encoding", "variables"),
    [("ascii", {"PYTHONIOENCODING": "ascii"}), ("latin-1", {"PYTHONIOENCODING": "latin-1"}), ("ascii", C_LOCALE)],
)
def test_a_table_is_shown_in_every_encoding(encoding: str, variables: dict[str, str], stored: Path) -> None:
    plain = shell("$IMGBENCH show $RUN", stored, PYTHONIOENCODING="utf-8").stdout.decode("utf-8").splitlines()
    done = shell("$IMGBENCH show $RUN", stored, **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding).splitlines()
    assert [len(line) for line in shown] == [len(line) for line in plain], "its columns stay where they are"
    assert shown[1].split()[0] == plain[1].split()[0] == "digits_vit"


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_an_export_to_ascii_loses_nothing(format_: str, stored: Path) -> None:
    done = shell(f"$IMGBENCH export $RUN --format {format_}", stored, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"--out FILE writes UTF-8" in done.stderr
    assert done.stderr.count(b"\n") == 1
    text = done.stdout.decode("ascii")
    labels = list(frames.cases_frame(storage.load(stored))["label"])
    if format_ == "json":
        assert [row["label"] for row in json.loads(text)] == labels
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["label"].replace("\\u00b7", "·") for row in rows] == labels


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$IMGBENCH show $RUN >&-", 0, b""),
        ("$IMGBENCH show $RUN 2>&- >/dev/null", 0, b""),
        ("$IMGBENCH show $RUN <&- >/dev/null", 0, b""),
        ("$IMGBENCH list suites --json >&- 2>&- <&-", 0, b""),
        ("$IMGBENCH run nope 2>&-", 64, b""),
        ("$IMGBENCH show $RUN | head -1 >/dev/null", 0, b""),
        ("$IMGBENCH export $RUN --format csv --samples | head -1 >/dev/null", 0, b""),
        ("$IMGBENCH export $RUN --format csv >&-", 64, b"imgbench: export: stdout is closed"),
        pytest.param("$IMGBENCH show $RUN >/dev/full", 20, b"imgbench: stdout: No space left on device\n", marks=FULL),
        pytest.param(
            "$IMGBENCH export $RUN --format csv >/dev/full", 20, b"imgbench: stdout: No space left", marks=FULL
        ),
        pytest.param("$IMGBENCH run nope 2>/dev/full", 64, b"", marks=FULL),
    ],
)
def test_a_closed_broken_or_full_stream_is_no_defect(line: str, code: int, said: bytes, stored: Path) -> None:
    done = shell(line, stored)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count(b"\n") <= 1
    assert (done.stderr != b"") == (said != b"")


@FULL
def test_a_run_whose_log_has_no_room_is_measured_to_its_end(tmp_path: Path, stored: Path) -> None:
    """A full disk behind stdout is told at the end; the run folder, on another disk, is complete."""
    suite = tmp_path / "planted.yaml"
    suite.write_text(
        "name: planted\nprotocol: {replicates: 1, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 2, "
        "min_sample_time_s: 0.01, target_interval: null}\ncases: [{model: planted_ok}]\n"
    )
    line = f"$IMGBENCH run {suite} --plugin planted --no-report --out {tmp_path / 'runs'} >/dev/full"
    done = shell(line, stored, PYTHONPATH=f"{REPOSITORY}{os.pathsep}{Path(__file__).parent / 'fixtures'}")
    assert (done.returncode, done.stderr) == (20, b"imgbench: stdout: No space left on device\n")
    (folder,) = (tmp_path / "runs").iterdir()
    run = storage.load(folder)
    assert run.finished
    assert [m.status for m in run.measurements] == ["ok"]


def test_what_an_encoding_lacks_is_escaped_as_json_does(tmp_path: Path) -> None:
    with (tmp_path / "latin").open("w", encoding="latin-1") as latin:
        assert streams.escaped("é · 😀 –", latin) == "é · \\ud83d\\ude00 \\u2013"
    with (tmp_path / "utf").open("w", encoding="utf-8") as utf:
        assert streams.escaped("é · 😀 –", utf) == "é · 😀 –"
