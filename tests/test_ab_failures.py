"""`imgbench ab` when something breaks while pairs are measured: the row says so, the others go on, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from planted import BREAKS, QUIET

from baselines.paired.decider import PairedDecider
from baselines.verdict import BENCHMARK_ERROR, NOT_COMPARABLE, REGRESSED, Comparison, exit_code
from benches.ab import driver
from benches.cli import main, parser
from benches.cli.ab import asked_of, suite_of
from harness.measuring import turns
from harness.paired import paired_run
from harness.paired.paired_run import PairedProcess, PairedRun

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
LATE = ("kill", "nan", "hang", "base")
PROTOCOL = "protocol: {warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, min_sample_time_s: 0.01, timeout_s: 20}"
SUITE = f"{PROTOCOL}\ncases: [{{model: planted_ok, batch_size: 64}}]\n"
INTERRUPTED = 130
TOKEN = "IMGBENCH_TEST_FOLDER"
ROUNDS = 2


def started(folder: Path, before: str = "") -> subprocess.Popen[str]:
    """`imgbench ab` on the suite in `folder`, in a session of its own."""
    (folder / "suite.yaml").write_text(SUITE)
    command = f"{sys.executable} -m benches.cli ab suite.yaml --plugin planted --budget 1h"
    environment = os.environ | {"PYTHONPATH": f"{HERE / 'fixtures'}{os.pathsep}{HERE.parent}", TOKEN: str(folder)}
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


class Brief(PairedDecider):
    """Lets the rows break now that each has been measured alone, and ends after ROUNDS pairs of the sound one."""

    def __init__(self, run: PairedRun) -> None:
        super().__init__(run)
        Path(os.environ[BREAKS]).touch()
        self.pairs: Counter[str] = Counter()

    def wanted(self) -> set[str]:
        return {row.id for row in self.run.rows if self.pairs["planted_ok"] < ROUNDS} - self.broken.keys()

    def add(self, first: PairedProcess, second: PairedProcess) -> None:
        super().add(first, second)
        if first.group != paired_run.CONTROL_GROUP:
            self.pairs.update({row.split("-")[0] for row in first.measurements | second.measurements})


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """A paired run on a quiet machine of a sound row, and of one that breaks in each way of LATE in its first pair."""
    folder = tmp_path_factory.mktemp("broken")
    models = ", ".join(["planted_ok", *(f"planted_late_{name}" for name in LATE)])
    (folder / "late.yaml").write_text(f"{PROTOCOL}\ncases: [{{model: [{models}], batch_size: 64}}]\n")
    options = parser().parse_args(["ab", str(folder / "late.yaml"), "--plugin", "planted", "--budget", "1h"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE / "fixtures"))
        patch.setenv(BREAKS, str(folder / "breaks"))
        patch.setattr(turns, "host_difference", lambda _before, _after: QUIET)
        asked = asked_of(options, suite_of(options), ("", "seed=1"), 0, folder)
        driver.measure(asked, folder / "run", lambda _text: None, Brief)
    return folder / "run", driver.decide(folder / "run").comparison


def of_rows(found: Comparison, *names: str) -> Comparison:
    """The comparison of these rows alone."""
    return replace(found, verdicts=tuple(v for v in found.verdicts if v.case_id.split("-")[0] in names))


def outcomes(found: Comparison, name: str) -> dict[str, str]:
    return {v.metric: v.outcome for v in of_rows(found, name).verdicts}


@pytest.mark.parametrize("how", ["kill", "nan", "hang"])
def test_a_head_that_breaks_in_a_pair_is_a_regression(how: str, broken: tuple[Path, Comparison]) -> None:
    _, found = broken
    row = f"planted_late_{how}"
    assert outcomes(found, row)["row"] == "regressed"
    assert "latency_s" not in outcomes(found, row)
    assert exit_code(of_rows(found, "planted_ok", row)) == REGRESSED


def test_the_other_rows_go_on(broken: tuple[Path, Comparison]) -> None:
    folder, found = broken
    measured = [
        m.status
        for block in paired_run.processes(folder)
        for row, m in block.measurements.items()
        if row.startswith("planted_ok-") and block.group != paired_run.CONTROL_GROUP
    ]
    assert measured == ["ok"] * 2 * ROUNDS
    (latency,) = [v for v in of_rows(found, "planted_ok").verdicts if v.metric == "latency_s"]
    assert (latency.pairs, latency.dropped) == (ROUNDS, 0)


def test_a_base_that_breaks_leaves_nothing_to_compare_with(broken: tuple[Path, Comparison]) -> None:
    _, found = broken
    assert outcomes(found, "planted_late_base")["row"] == "not_comparable"
    assert exit_code(of_rows(found, "planted_ok", "planted_late_base")) == NOT_COMPARABLE


def test_a_hang_costs_one_time_out_and_its_server(broken: tuple[Path, Comparison]) -> None:
    folder, found = broken
    blocks = list(paired_run.processes(folder))
    hung = [m for b in blocks for row, m in b.measurements.items() if "hang" in row and m.status != "ok"]
    assert [m.status for m in hung] == ["timeout"]
    assert {b.server for b in blocks} > {0}
    assert "timed out" in next(str(v.reason) for v in of_rows(found, "planted_late_hang").verdicts if v.metric == "row")


def test_an_interrupted_run_keeps_its_pairs_and_leaves_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = started(tmp_path)
    stored = wait_for_blocks(tmp_path, process)
    assert not all_gone(tmp_path, within_s=0.5)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, output
    assert "imgbench replay" in output
    assert "Traceback" not in output
    assert all_gone(tmp_path)
    assert len(list(paired_run.processes(stored.parent))) >= 2
    assert main(["replay", str(stored.parent)]) == 0
    assert '"verdicts"' in capsys.readouterr().out


def test_a_killed_run_leaves_no_process_and_readable_blocks(tmp_path: Path) -> None:
    process = started(tmp_path)
    stored = wait_for_blocks(tmp_path, process)
    assert not all_gone(tmp_path, within_s=0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    assert all_gone(tmp_path)
    assert len(list(paired_run.processes(stored.parent))) >= 2


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    process = started(tmp_path, before="ulimit -f 100;")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == BENCHMARK_ERROR, output
    assert "Traceback" not in output
    assert "too large" in output.lower()


def wait_for_blocks(folder: Path, process: subprocess.Popen[str]) -> Path:
    """The file of blocks, once it holds a pair."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        for path in folder.glob(f"runs/*/{paired_run.PROCESSES_FILE}"):
            if path.read_text().count("\n") >= 2:
                return path
        time.sleep(0.2)
    raise AssertionError(f"no pair was measured: {process.stdout.read() if process.stdout else ''}")


def all_gone(folder: Path, within_s: float = 60.0) -> bool:
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
