"""Damaged suites, runs, folders of weights and environments: a documented exit code and one line that names the place.

Every input is made from its number, so that a failure is repeated by its number alone. What is asked of all of them: no
traceback, no "defect of imgbench", an exit code of the README, and where it fails, one line that names the file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import fuzz_fixture
import pytest

from benches.cli import main
from benches.models.folders import FolderError
from harness import records, storage
from harness import suite as suite_room
from harness.registry import MODELS
from harness.suite import SuiteError

REPOSITORY = Path(__file__).parent.parent
WEIGHTS = REPOSITORY / "benches" / "digits" / "weights"
DOCUMENTED = {0, 10, 11, 12, 13, 14, 15, 20, 64, 130}
LONGEST_LINE = 500  # beside the list of all models, which is as long as the registry
SUITES, RUNS, FOLDERS = 110, 70, 36
HANGS_AFTER_S = 60


@contextmanager
def ends() -> Iterator[None]:
    """A command that waits for something that never comes fails the test, and does not keep all tests waiting."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"no end after {HANGS_AFTER_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a command, both as they are documented."""
    with ends():
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    told = capsys.readouterr().err
    assert code in DOCUMENTED
    check_told(told)
    return code, told


def check_told(told: str) -> None:
    assert "Traceback" not in told
    assert "defect" not in told
    for line in told.splitlines():
        assert line.startswith("imgbench: ") or line.startswith("usage: "), line
        assert len(line.replace(", ".join(sorted(MODELS)), "")) <= LONGEST_LINE, line


@pytest.mark.parametrize("seed", range(SUITES))
def test_a_suite_is_listed_or_refused_in_one_line(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(fuzz_fixture.suite(seed))
    code, told = called(capsys, "run", path, "--dry-run")
    if code == 0:
        assert told == ""
        assert suite_room.read(path).cases
    else:
        assert code == 64
        assert told.count("\n") == 1
        assert told.startswith(f"imgbench: {path}: ")


@pytest.mark.parametrize("make", ["mkdir", "fifo", "loop", "missing"])
def test_what_is_no_suite_at_all_is_refused_in_one_line(
    make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.yaml"
    if make == "fifo":
        os.mkfifo(path)
    elif make != "missing":
        path.mkdir() if make == "mkdir" else path.symlink_to(path.name)
    code, told = called(capsys, "run", path, "--dry-run")
    assert (code, told.count("\n")) == (64, 1)
    assert str(path) in told


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound run, `run`, that was compared with the one session of `store`."""
    root = tmp_path_factory.mktemp("sound")
    accepted = fuzz_fixture.sound_run(root / "accepted", "accepted")
    run = fuzz_fixture.sound_run(root / "run", "run")
    store = ("--store", str(root / "store"))
    assert main(["baseline", "save", str(accepted), "--reason", "a test", "--force", *store]) == 0
    assert main(["compare", str(run), "--budget", "0", *store]) == 0
    return root


def session_of(root: Path) -> Path:
    (found,) = (root / "store").glob("*/*/accepted.json")
    return found


def commands(seed: int, root: Path) -> list[list[object]]:
    """Those that read the stored decision before it is written again, and two of the others, in turn."""
    run, store, out = root / "run", ("--store", root / "store"), root / "out"
    others: list[list[object]] = [
        ["report", run, "--out", out / "report.html", *store],
        ["compare", run, "--budget", "0", "--json", *store],
        ["export", run, "--format", "json"],
        ["export", run, "--format", "csv"],
        ["export", run, "--format", "csv", "--samples"],
        ["export", run, "--format", "parquet", "--out", out / "table.parquet"],
        ["export", run, "--format", "pytest-benchmark"],
        ["baseline", "save", run, "--reason", "a test", "--force", "--store", root / "other"],
        ["baseline", "list", *store],
    ]
    chosen = [others[(2 * seed + i) % len(others)] for i in range(2)]
    return [["replay", run, *store], ["explain", run, "int8_dynamic", *store], ["show", run], *chosen]


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_damaged_run_is_read_with_its_damage_named_or_refused(
    seed: int, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left out is told by every command that reads the run, and no baseline is made of it."""
    root = tmp_path / "now"
    shutil.copytree(sound, root)
    (root / "out").mkdir()
    what = fuzz_fixture.damaged_run(seed, root / "run", session_of(root))
    capsys.readouterr()
    for arguments in commands(seed, root):
        code, told = called(capsys, *arguments)
        assert code == 0 or told or arguments[0] in {"compare", "replay", "explain"}, what
        if arguments[0] == "show" and code == 0:
            assert (storage.load(root / "run").problems != ()) == (told != ""), what
        if arguments[:2] == ["baseline", "save"] and storage_problems(root / "run"):
            assert code != 0, what


def storage_problems(folder: Path) -> bool:
    try:
        return storage.load(folder).problems != ()
    except storage.UnreadableRun:
        return True


def numbered(lines: list[str]) -> list[dict]:
    return [json.loads(line) for line in lines]


WRONG = {
    "a number where text belongs": (("case", "backend"), 3.5, "case.backend: 3.5 must be text"),
    "text where a number belongs": (("case", "batch_size"), "x", "case.batch_size: 'x' must be a whole number"),
    "true where a number belongs": (("replicate",), True, "measurement.replicate: True must be a whole number"),
    "a negative process": (("replicate",), -1, "measurement.replicate: -1 must be 0 or more"),
    "a status of its own": (("status",), "fine", "measurement.status: 'fine' must be one of ok, skipped"),
    "a list in a hash": (("facts", "work_hash"), ["x"], "facts.work_hash: ['x'] must be text"),
    "text in the samples": (("samples", "load_s", 0), "x", "measurement.samples.load_s: 'x' must be a finite number"),
    "no number in the samples": (("samples", "load_s", 0), float("nan"), "NaN is not a JSON number"),
    "text in the machine's state": (("state", "steal_s"), "x", "state.steal_s: 'x' must be a finite number"),
    "a case of another run": (("case", "seed"), 7, "is not a case of the run, and is left out"),
    "half a character": (("warnings",), ["\ud800"], "half of a character"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_line_of_wrong_types_is_left_out_and_named(name: str, sound: Path, tmp_path: Path) -> None:
    path, value, words = WRONG[name]
    shutil.copytree(sound / "run", tmp_path / "run")
    file = tmp_path / "run" / storage.MEASUREMENTS_FILE
    entries = numbered(file.read_text().splitlines())
    at = entries[0]
    for key in path[:-1]:
        at = at[key]  # type: ignore[index]
    at[path[-1]] = value  # type: ignore[index]
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    run = storage.load(tmp_path / "run")
    assert len(run.measurements) == len(entries) - 1
    (problem,) = run.problems
    assert problem.startswith(f"{storage.MEASUREMENTS_FILE} line 1 ")
    assert words in problem


@pytest.mark.parametrize("field", records.WRITTEN)
def test_a_line_without_one_of_its_fields_is_left_out_and_named(field: str, sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "run", tmp_path / "run")
    file = tmp_path / "run" / storage.MEASUREMENTS_FILE
    entries = numbered(file.read_text().splitlines())
    del entries[0][field]
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    (problem,) = storage.load(tmp_path / "run").problems
    assert problem == f"{storage.MEASUREMENTS_FILE} line 1 is left out: the field {field!r} is missing"


@pytest.fixture
def quiet_libraries() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet_libraries")
@pytest.mark.parametrize("seed", range(FOLDERS))
def test_a_damaged_folder_of_weights_is_refused_in_one_line_that_names_it(seed: int, tmp_path: Path) -> None:
    """A change that the network does not depend on is no damage, and the workload is built."""
    name = ("sd", "dit", "vit")[seed % 3]
    folder = tmp_path / name
    shutil.copytree(WEIGHTS / name, folder)
    what = fuzz_fixture.damaged_weights(seed, folder)
    try:
        with ends():
            (case,) = suite_room.parse(f"cases: [{{model: digits_{name}, weights: {folder}}}]").cases
            MODELS[case.model].build(case)
    except (FolderError, SuiteError) as error:
        told = str(error)
        assert str(folder) in told, what
        assert "\n" not in told, what
        assert "object at 0x" not in told, what


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no variable but the path": {"*": None},
    "no home": {"HOME": None},
    "a home that is not there": {"HOME": "/nowhere"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "a locale that is not there": {"LC_ALL": "xx_XX.KOI8-R", "LANG": "nonsense"},
    "ASCII streams": {"PYTHONIOENCODING": "ascii"},
    "UTF-16 streams": {"PYTHONIOENCODING": "utf-16"},
    "one column": {"COLUMNS": "1", "LINES": "1"},
    "columns of nonsense": {"COLUMNS": "-5", "TERM": "dumb"},
    "a terminal that is not known": {"TERM": "nonsense", "FORCE_COLOR": "1"},
    "no folder for temporary files": {"TMPDIR": "/nowhere"},
    "a file for temporary files": {"TMPDIR": "/etc/passwd"},
    "a long folder for temporary files": {"TMPDIR": "/tmp/" + "x" * 300},
    "no path": {"PATH": ""},
    "threads of nonsense": {"OMP_NUM_THREADS": "many"},
    "no threads": {"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "-3"},
    "more threads than a number holds": {"OMP_NUM_THREADS": "9" * 30},
    "a store that is no folder": {"IMGBENCH_BASELINES": "/etc/passwd"},
    "an empty cache folder": {"IMGBENCH_CACHE": "", "XDG_CACHE_HOME": ""},
}
COMMANDS = (["show"], ["export", "--format", "json"], ["compare", "--budget", "0"])


@pytest.mark.parametrize("number", range(len(ENVIRONMENTS)), ids=list(ENVIRONMENTS))
def test_an_odd_environment_ends_in_no_traceback(number: int, sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound / "run", run)
    changes = list(ENVIRONMENTS.values())[number]
    base = {} if "*" in changes else {k: v for k, v in os.environ.items() if k not in changes}
    given = {**base, "PYTHONPATH": str(REPOSITORY), **{k: v for k, v in changes.items() if k != "*" and v is not None}}
    command, *options = COMMANDS[number % len(COMMANDS)]
    line = [sys.executable, "-m", "benches.cli", command, str(run), *options]
    done = subprocess.run(
        line, env=given, cwd=tmp_path, capture_output=True, check=False, timeout=HANGS_AFTER_S, stdin=subprocess.DEVNULL
    )
    told = done.stderr.decode("utf-8", "replace")
    assert done.returncode in DOCUMENTED, told
    assert "Traceback" not in told
    assert "defect" not in told
    assert done.stdout or told
