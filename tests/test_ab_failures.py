"""`imgbench ab` when something breaks while pairs are measured: the row says so, the others go on, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted import LATE

from baselines.verdict import BENCHMARK_ERROR, CONTAMINATED, NOT_COMPARABLE, REGRESSED
from harness.paired import paired_run as paired

HERE = Path(__file__).parent
SUITE = (
    "name: late\nprotocol: {replicates: 1, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, "
    "min_sample_time_s: 0.01, timeout_s: 30}\ncases:\n"
    " - {model: planted_ok, batch_size: 64}\n - {model: planted_late, batch_size: 64}\n"
)
INTERRUPTED = 130
TOKEN = "IMGBENCH_TEST_FOLDER"


def started(folder: Path, *arguments: str, budget: str = "150s", before: str = "") -> subprocess.Popen[str]:
    """`imgbench ab` on the suite in `folder`, in a session of its own."""
    (folder / "late.yaml").write_text(SUITE)
    command = f"{sys.executable} -m benches.cli ab late.yaml --plugin planted --budget {budget} {' '.join(arguments)}"
    environment = os.environ | {"PYTHONPATH": f"{HERE / 'fixtures'}{os.pathsep}{HERE.parent}", TOKEN: str(folder)}
    environment["PLANTED_MARK"] = str(folder / "mark")
    return subprocess.Popen(
        ["sh", "-c", f"{before} exec {command}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI may have it ignored
    )


def broken(folder: Path, arm: str, how: str, *arguments: str) -> tuple[int, str, dict[str, list[tuple[str, str]]]]:
    """(exit code, output, {model: [(metric, outcome)]}) of a run whose `arm` breaks in the pairs of one row."""
    seed = next(seed for seed, name in LATE.items() if name == how)
    process = started(folder, f"--{arm} seed={seed}", "--json-file ab.json", *arguments)
    output, _ = process.communicate(timeout=200)
    found: dict[str, list[tuple[str, str]]] = {}
    for verdict in json.loads((folder / "ab.json").read_text())["verdicts"]:
        model = verdict["case_id"].split("-")[0]
        found.setdefault(model, []).append((verdict["metric"], verdict["outcome"]))
    assert (folder / "mark").stat().st_size > 2, f"nothing broke: the row was never built a third time\n{output}"
    return process.returncode, output, found


@pytest.mark.parametrize("how", ["kill", "nan"])
def test_a_head_that_breaks_in_a_pair_is_a_regression_and_the_other_row_goes_on(how: str, tmp_path: Path) -> None:
    code, output, found = broken(tmp_path, "head", how)
    assert code == REGRESSED, output
    assert ("row", "regressed") in found["planted_late"]
    assert "latency_s" not in dict(found["planted_late"])
    assert dict(found["planted_ok"])["latency_s"] in {"unchanged", "inconclusive"}


def test_a_base_that_breaks_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    code, output, found = broken(tmp_path, "base", "error")
    assert code in {NOT_COMPARABLE, CONTAMINATED}, output
    assert ("row", "not_comparable") in found["planted_late"]


def test_a_hang_costs_one_time_out_and_its_server(tmp_path: Path) -> None:
    code, output, found = broken(tmp_path, "head", "hang", "--budget 100s")
    assert code == REGRESSED, output
    assert ("row", "regressed") in found["planted_late"]
    assert "timeout" in output
    assert dict(found["planted_ok"])["latency_s"] in {"unchanged", "inconclusive"}


def test_an_interrupted_run_keeps_its_pairs_and_leaves_no_process(tmp_path: Path) -> None:
    process = started(tmp_path, budget="300s")
    stored = wait_for_blocks(tmp_path, process)
    assert not all_gone(tmp_path, within_s=0.5)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, output
    assert "imgbench replay" in output
    assert "Traceback" not in output
    assert all_gone(tmp_path)
    folder = stored.parent
    assert len(list(paired.processes(folder))) >= 2
    again = subprocess.run(
        [sys.executable, "-m", "benches.cli", "replay", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent,
    )
    assert again.returncode == 0, again.stderr
    assert '"verdicts"' in again.stdout


def test_a_killed_run_leaves_no_process_and_readable_blocks(tmp_path: Path) -> None:
    process = started(tmp_path, budget="300s")
    stored = wait_for_blocks(tmp_path, process)
    assert not all_gone(tmp_path, within_s=0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert all_gone(tmp_path)
    assert len(list(paired.processes(stored.parent))) >= 2


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    process = started(tmp_path, before="ulimit -f 100;")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == BENCHMARK_ERROR, output
    assert "Traceback" not in output
    assert "too large" in output.lower()


def wait_for_blocks(folder: Path, process: subprocess.Popen[str]) -> Path:
    """The file of blocks, once it holds a pair."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        for path in folder.glob(f"runs/*/{paired.PROCESSES_FILE}"):
            if path.read_text().count("\n") >= 2:
                return path
        time.sleep(0.2)
    raise AssertionError(f"no pair was measured: {process.stdout.read() if process.stdout else ''}")


def all_gone(folder: Path, within_s: float = 20.0) -> bool:
    """Whether every process that was started with TOKEN naming `folder` has ended."""
    token = f"{TOKEN}={folder}".encode()
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(token in _environment(process) for process in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.2)
    return False


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
