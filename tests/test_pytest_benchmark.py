"""A suite as benchmarks of pytest-benchmark, and a run as its JSON: measured by the harness, stored to the last bit."""

from __future__ import annotations

import doctest
import json
import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import benches
from baselines.stored.location import SHIPPED
from benches.ab.arms import OURS
from benches.cli import main
from benches.pytest_plugin.suite_run import SuiteRun, row_of
from harness import storage, suite
from harness.processes.loaded_code import source_digests
from harness.processes.worker import Workers
from harness.reasons import Reason
from harness.stored_types import State
from harness.sweeping import sweep as sweeping
from harness.sweeping.remaining_time import PlannedProcess
from harness.sweeping.sweep import Site, new_run, sweep
from harness.types import Case, Measurement, Run
from reports.formats import benchmark_json

HERE = Path(__file__).parent
ROOT = HERE.parent
PROTOCOL = (
    "{replicates: 2, ratio_interval: null, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, "
    "min_sample_time_s: 0.01, target_interval: null, contended_retries: 0, timeout_s: 60}"
)
CASES = """
 - {model: planted_judged, batch_size: [1, 2]}
 - {model: planted_ok, backend: tensorrt}
 - {model: planted_error}
 - {model: planted_constant}
"""
GOOD = tuple(f"test_latency[planted_judged_random-eager-fp32-batch_{size}-8_px]" for size in (1, 2))


@dataclass(frozen=True, kw_only=True)
class Session:
    """What one `pytest benches --benchmark-only` left behind."""

    folder: Path
    done: subprocess.CompletedProcess[str]
    document: dict[str, Any]
    saved: Path
    run: Run


def pytest_benches(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In the repository, with the suite and the plugin from the environment, and all its files in `folder`."""
    variables = {
        "IMGBENCH_SUITE": str(folder / "planted.yaml"),
        "IMGBENCH_PLUGINS": "planted",
        "PYTHONPATH": str(HERE / "fixtures"),
    }
    options = [f"--imgbench-out={folder / 'runs'}", f"--benchmark-storage={folder / 'storage'}"]
    command = [sys.executable, "-m", "pytest", "benches", "--benchmark-only", "-p", "no:cacheprovider", *options]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    return subprocess.run(
        [*command, *arguments], env=ours | variables, capture_output=True, text=True, check=False, cwd=ROOT
    )


def doctored(document: dict[str, Any], factor: float, path: Path) -> None:
    """The document with every duration multiplied, as a stored baseline."""
    changed = json.loads(json.dumps(document))
    for entry in changed["benchmarks"]:
        entry["stats"] = benchmark_json.statistics([value * factor for value in entry["stats"]["data"]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(changed))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, workers: Workers, machine: dict) -> Session:
    """One session, compared with an exported run that was a thousand times slower."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "planted.yaml").write_text(f"name: planted\nprotocol: {PROTOCOL}\ncases:{CASES}")
    doctored(_exported(folder, workers, machine), 1000.0, folder / "storage" / "0001_slow.json")
    compare = ("--benchmark-compare=0001", "--benchmark-compare-fail=median:5%")
    kept = ("--benchmark-json", str(folder / "out.json"), "--benchmark-save=now", "--benchmark-save-data")
    done = pytest_benches(folder, *compare, *kept, f"--junitxml={folder / 'junit.xml'}")
    document = json.loads((folder / "out.json").read_text())
    (saved,) = (folder / "storage").rglob("*_now.json")
    (stored,) = (folder / "runs").iterdir()
    return Session(folder=folder, done=done, document=document, saved=saved, run=storage.load(stored))


def _exported(folder: Path, workers: Workers, machine: dict) -> dict[str, Any]:
    """A run of the same suite by `sweep`, through `imgbench export`."""
    from suite_fixture import PLUGINS, Silent

    started = new_run(suite.read(folder / "planted.yaml"), folder / "swept", machine)
    sweep(started, workers, PLUGINS, Silent())
    assert main(["export", str(folder / "swept"), "--format", "pytest-benchmark", "--out", str(folder / "e.json")]) == 0
    return json.loads((folder / "e.json").read_text())


def test_the_stored_data_are_the_harness_samples_to_the_last_bit(session: Session) -> None:
    stored = {entry["name"]: entry["stats"]["data"] for entry in session.document["benchmarks"]}
    assert tuple(stored) == GOOD, session.done.stdout + session.done.stderr
    for entry in session.document["benchmarks"]:
        own = [m for m in session.run.measurements if m.case.id == entry["extra_info"]["case_id"]]
        assert [m.replicate for m in own] == [0, 1]
        assert entry["stats"]["data"] == [value for m in own for value in m.samples["latency_s"]]
        assert entry["stats"]["rounds"] == sum(process["rounds"] for process in entry["extra_info"]["processes"])
        assert entry["params"] == own[0].case.axes()
    saved = json.loads(session.saved.read_text())
    assert {entry["name"]: entry["stats"]["data"] for entry in saved["benchmarks"]} == stored


def test_a_contended_control_workload_has_its_sentence_in_the_machine_state() -> None:
    case = Case(model="m")
    state: State = {"elapsed_s": 1.0, "control_workload_contended": Reason("contended_cpu", {"used": 0.5})}
    found = benchmark_json._process(Measurement(case=case, replicate=0, status="ok", state=state))
    told = "contended: other processes used 50 % of a core during the measurement"
    assert json.loads(json.dumps(found))["machine_state"] == {"elapsed_s": 1.0, "control_workload_contended": told}


def test_the_run_has_its_control_and_knows_its_code_like_any_other(session: Session) -> None:
    """So `compare` sees a machine that moved, and may measure suspects again."""
    controls = sorted((c.side, c.measurement.case.model, c.measurement.case.batch_size) for c in session.run.controls)
    assert controls == [("copy", "planted_judged", 1), ("copy", "planted_judged", 2), ("overhead", "null", 1)]
    good = [m for m in session.run.measurements if m.status == "ok"]
    assert [m.replicate for m in good] == [0, 0, 1, 1], "each row is measured once before its round"
    assert [m.round is None for m in good] == [True, True, False, False]
    assert "\n5 measurements\n" in session.done.stdout, "the sweep is told while pytest captures"
    expected = source_digests((*OURS, *benches.PLUGINS, "planted"))
    sources = session.run.environment["sources"]
    assert sources.keys() == expected.keys()
    assert sources["planted"] == expected["planted"]
    assert "sources" not in session.document["machine_info"]["imgbench"], "another commit is no other machine"


@pytest.mark.parametrize(("busy", "attempts", "told"), [({0}, 8, 2.0), ({0, 1, 2}, 7, 1.0)])
def test_a_process_that_met_a_busy_machine_is_measured_again_before_its_figures_are_told(
    busy: set[int], attempts: int, told: float, tmp_path: Path, machine: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts in `busy` are; three of those in a row, and the machine is taken to stay so. Without rounds, whose
    processes are not measured again."""
    from suite_fixture import Silent

    made: list[Measurement] = []

    def measured(block: PlannedProcess, run: Run, _site: Site, attempt: int = 0) -> tuple[Run, Measurement]:
        warnings = (Reason("contended_cpu", {"used": 0.6}),) if attempt in busy else ()
        found = Measurement(
            case=block.case, replicate=block.replicate, status="ok", samples={"latency_s": [1.0 + attempt]}
        )
        found = replace(found, warnings=warnings, attempt=attempt)
        storage.append(Path(str(run.folder)), found)
        made.append(found)
        return run, found

    controls: list[int] = []
    monkeypatch.setattr(sweeping, "measure_process", measured)
    monkeypatch.setattr(sweeping, "control", lambda number, run, _site: controls.append(number) or run)
    protocol = PROTOCOL.replace("contended_retries: 0", "contended_retries: 2, rounds: false")
    chosen = suite.parse(f"name: planted\nprotocol: {protocol}\ncases: [{{model: planted_ok, batch_size: [1, 2]}}]")
    asked = SuiteRun(chosen, ("planted",), tmp_path, "cpu", None)
    asked.__dict__["environment"] = machine  # read once for all tests
    run = asked.measured(Silent())
    assert [benchmark_json.samples(row_of(run, case), case) for case in chosen.cases] == [[told, told]] * 2
    assert asked.measured(Silent()) is run
    assert len(made) == attempts
    assert [m.replicate for m in made[:4]] == [0, 0, 1, 1], "each row is measured once before any is again"
    assert sorted(set(controls)) == [0, 1]
    assert run.finished


def test_extra_info_holds_metrics_reasons_and_proof(session: Session) -> None:
    info = session.document["benchmarks"][1]["extra_info"]
    assert info["metrics"]["top1"]["value"] == 0.75
    assert {"throughput", "peak_host_bytes", "first_call_s", "latency_s"} <= info["metrics"].keys()
    assert info["metrics"]["throughput"]["unit"] == "image/s"
    assert info["missing"]["peak_allocated_bytes"]
    assert not info["missing"].keys() & info["metrics"].keys()
    own = next(m for m in session.run.measurements if m.case.id == info["case_id"])
    assert info["work_hash"] == own.facts["work_hash"]
    assert info["facts"]["elements_by_dtype"] == {"float32": 1930}
    assert info["weights_hash"] == own.facts["weights_hash"]
    assert info["facts"]["weights_source"] == "planted"
    assert info["versions"]["torch"]
    assert session.document["machine_info"]["imgbench"]["fingerprint"] == info["fingerprint"]


def test_a_skipped_case_is_a_skipped_test_and_a_broken_one_a_failed_test(session: Session) -> None:
    tests = ElementTree.parse(session.folder / "junit.xml").getroot().findall(".//testcase")
    outcomes = {test.get("name", ""): (child.tag, child.get("message", "")) for test in tests for child in test}
    said = {name.partition("[")[2].partition("_random")[0]: outcome for name, outcome in outcomes.items()}
    assert len(tests) == 5
    assert said.keys() == {"planted_ok", "planted_error", "planted_constant"}
    assert said["planted_ok"][0] == "skipped"
    assert "TensorRT needs an NVIDIA GPU" in said["planted_ok"][1]
    assert said["planted_error"] == ("failure", "Failed: failed: ValueError: the planted error")
    assert said["planted_constant"][0] == "failure"
    assert said["planted_constant"][1].startswith("Failed: invalid: ")
    reasons = {entry["status"]: entry["reason"] for entry in session.document["imgbench"]["not_measured"]}
    assert reasons.keys() == {"skipped", "failed", "invalid"}
    assert session.done.returncode == 1


def test_the_run_exports_equal(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert session.run.finished
    assert main(["export", str(session.run.folder), "--format", "pytest-benchmark"]) == 0
    exported = json.loads(capsys.readouterr().out)
    for key in ("benchmarks", "machine_info", "imgbench", "version"):
        assert exported[key] == session.document[key]
    assert exported.keys() == session.document.keys()
    assert exported["commit_info"].keys() == session.document["commit_info"].keys()


def test_faster_than_the_baseline_is_green(session: Session) -> None:
    assert "Comparing against benchmarks from: 0001_slow.json" in session.done.stderr
    assert "machine_info is different" not in session.done.stderr + session.done.stdout
    assert "Performance has regressed" not in session.done.stderr + session.done.stdout


def test_compare_fail_is_red_on_a_regression(session: Session) -> None:
    doctored(session.document, 1e-3, session.folder / "storage" / "0003_fast.json")
    case = ("-k", "planted_judged and batch_1")
    done = pytest_benches(session.folder, "--benchmark-compare=0003", "--benchmark-compare-fail=median:5%", *case)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Performance has regressed" in said
    assert "Field 'median' has failed PercentageRegressionCheck" in said
    newest = max((session.folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    part = storage.load(newest)
    assert (len(part.cases), part.selection) == (1, "pytest: 1 of 5 cases")


def test_the_plugin_s_own_command_reads_both_files(session: Session, tmp_path: Path) -> None:
    command = ["-m", "pytest_benchmark", "compare", str(session.folder / "e.json"), str(session.saved), "--sort=name"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, cwd=tmp_path)
    rows = [line for line in done.stdout.splitlines() if line.startswith("test_latency[")]
    assert len(rows) == 4, done.stdout + done.stderr


def test_statistics_are_those_that_other_tools_read() -> None:
    stats = benchmark_json.statistics([0.1, 0.2, 0.3, 0.4])
    assert stats["data"] == [0.1, 0.2, 0.3, 0.4]
    assert (stats["rounds"], stats["iterations"], stats["min"], stats["max"]) == (4, 1, 0.1, 0.4)
    assert stats["mean"] == stats["median"] == pytest.approx(0.25)
    assert stats["ops"] == pytest.approx(4.0)
    assert stats["stddev"] == pytest.approx(math.sqrt(0.05 / 3))


def test_names_are_stable_and_free_text_is_told_apart() -> None:
    plain = Case(model="digits_vit", weights="digits", batch_size=8, image_size=32)
    assert benchmark_json.name(plain) == "digits_vit-eager-fp32-batch_8-32_px"
    assert (
        benchmark_json.group(plain.with_(backend="onnxruntime", precision="int8_dynamic"))
        == "digits_vit, batch 8, 32 px"
    )
    prompts = [Case(model="sd15", prompt=prompt) for prompt in ("a cat", "a cat!")]
    names = [benchmark_json.name(case) for case in prompts]
    assert names == [f"sd15_random-eager-fp32-batch_1-a_cat-{case.id[-8:]}" for case in prompts]
    assert names[0] != names[1]


def test_export_says_what_it_needs(
    run_suite: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(run_suite(" - {model: planted_ok}\n").folder), "--format", "pytest-benchmark"]
    assert main([*export, "--samples"]) == 64
    monkeypatch.setitem(sys.modules, "pytest_benchmark", None)
    assert main(export) == 64
    assert "pip install 'imgbench[pytest-benchmark]'" in capsys.readouterr().err


def test_plain_pytest_measures_nothing() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert list(HERE.rglob("bench_*.py")) == []


def test_the_recorded_clock_plays_durations_exactly() -> None:
    from benches.pytest_plugin import bench_suite

    assert doctest.testmod(bench_suite).attempted
    clock = bench_suite.RecordedClock()
    durations = [0.1, 1e-9, 3.3e5, 0.1 + 0.2]
    clock.load(durations)
    readings = [(clock(), clock()) for _ in durations]
    assert [end - begin for begin, end in readings] == durations


def _unequal(samples: tuple[list[float], ...]) -> Run:
    """A stored run of one row whose processes took these samples."""
    import baselines.stored.store

    run = baselines.stored.store.load(SHIPPED / "digits.json").run
    case = run.cases[0]
    first = next(m for m in run.measurements if m.case == case)
    measured = tuple(
        replace(first, replicate=n, samples={**first.samples, "latency_s": values}) for n, values in enumerate(samples)
    )
    return replace(run, cases=(case,), measurements=measured)


def test_a_pooled_median_that_is_not_the_p50_says_so() -> None:
    """10 samples of 1 s and 30 of 2 s: the pooled median is 2 s, and the median of the processes' medians 1.5 s."""
    document = benchmark_json.document(_unequal(([1.0] * 10, [2.0] * 30)))
    (entry,) = document["benchmarks"]
    told = entry["extra_info"]["pooled_median"]
    assert told == {"median_s": 2.0, "p50_s": 1.5, "difference": 2.0 / 1.5 - 1, "rounds": [10, 30]}
    assert told["median_s"] == entry["stats"]["median"]
    assert told["p50_s"] == entry["extra_info"]["metrics"]["latency_s"]["value"]
    line = benchmark_json.pooled_medians_apart(document["benchmarks"])
    assert line is not None
    assert "1 of 1 benchmarks" in line
    assert "+33.3 %" in line
    assert entry["name"] in line


def test_medians_that_agree_need_no_line() -> None:
    document = benchmark_json.document(_unequal(([1.0] * 10, [1.0] * 30)))
    assert benchmark_json.pooled_medians_apart(document["benchmarks"]) is None


def test_the_export_says_it_beside_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _unequal(([1.0] * 10, [2.0] * 30))
    storage.create(tmp_path / "run", run)
    for measurement in run.measurements:
        storage.append(tmp_path / "run", measurement)
    assert main(["export", str(tmp_path / "run"), "--format", "pytest-benchmark"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["benchmarks"][0]["stats"]["median"] == 2.0
    assert said.err.startswith("imgbench: stats.median differs")
    assert said.err.count("\n") == 1
