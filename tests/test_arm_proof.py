"""Arms that are not what they seem: the same one twice, one whose project the suite never runs, one that breaks."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import planted
import pytest
import torch
from paired_fixture import new_paired_run
from project_fixture import commit, git

from baselines.verdict import BENCHMARK_ERROR, NOT_COMPARABLE, USAGE
from benches import cli
from benches.ab import arm_proof, arms, driver
from benches.failures import NotComparable
from harness.paired.arms import Arm
from harness.paired.paired_process import ProcessJob, measure_rows
from harness.processes.loaded_code import imported_code
from harness.processes.measure import Job
from harness.types import Case, Measurement, Protocol

PLACE = Path("/cache/1/source")
ARM = Arm(name="head", text="ref=x", python="/cache/1/venv/bin/python", folder=str(PLACE), packages=("tiny", "extra"))


def measured(imported: dict[str, str] | None, status: str = "ok", side: str = "head") -> tuple[str, str, Measurement]:
    facts = {} if imported is None else {"imported": imported}
    reason = None if status == "ok" else "it broke"
    given = Measurement(case=Case(model="m"), replicate=0, status=status, reason=reason, facts=facts)  # type: ignore[arg-type]
    return "row", side, given


def test_a_suite_that_never_imports_the_project_is_refused() -> None:
    told = arm_proof.refusal(ARM, [measured({}), measured({})])
    assert told == "no row of the suite uses tiny, extra, so this gate cannot detect a change in it"
    assert arm_proof.proof(ARM, [measured({})]) == []


def test_one_row_that_imports_it_is_enough_and_is_shown() -> None:
    place = str(PLACE / "tiny" / "__init__.py")
    found = [measured({}), measured({"tiny": place})]
    assert arm_proof.refusal(ARM, found) is None
    assert arm_proof.proof(ARM, found) == [f"head used while measuring: tiny ({place})"]


def test_code_that_came_from_elsewhere_is_refused() -> None:
    told = arm_proof.refusal(ARM, [measured({"tiny": "/site-packages/tiny/__init__.py"})])
    assert "the head arm loaded tiny from /site-packages/tiny/__init__.py" in str(told)


@pytest.mark.parametrize(
    "found",
    [[], [measured(None)], [measured({}, status="failed")], [measured({}, side="base")]],
    ids=["nothing measured", "an imgbench that does not tell", "a row that broke", "the other arm"],
)
def test_what_is_not_known_refuses_nothing(found: list[tuple[str, str, Measurement]]) -> None:
    assert arm_proof.refusal(ARM, found) is None


def test_things_as_they_are_have_no_project_to_prove() -> None:
    assert arm_proof.refusal(replace(ARM, folder=None, packages=()), [measured({})]) is None


def test_a_block_tells_what_its_process_had_imported(tmp_path: Path) -> None:
    job = Job(
        case=Case(model="planted_ok", batch_size=2, image_size=8),
        replicate=0,
        protocol=Protocol(
            warmup_min_s=0.0, warmup_max_s=0.01, min_samples=2, min_sample_time_s=0.0, target_interval=None
        ),
        device="cpu",
        folder=tmp_path,
        cache=tmp_path / "cache",
        threads=torch.get_num_threads(),
        only=("startup", "latency"),
    )
    block = ProcessJob(jobs=(job,), control_workload=False, packages=("planted", "never_imported"))
    (found,) = measure_rows(block, lambda _phase: None).measurements
    assert (found.status, found.facts["imported"]) == ("ok", {"planted": planted.__file__})
    (plain,) = measure_rows(replace(block, packages=()), lambda _phase: None).measurements
    assert "imported" not in plain.facts


def test_a_package_without_a_file_is_told_by_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = ModuleType("namespace")
    namespace.__path__ = ["/somewhere/namespace"]
    monkeypatch.setitem(sys.modules, "namespace", namespace)
    assert imported_code(("namespace", "absent")) == {"namespace": "/somewhere/namespace"}


def same(base: str, head: str, *prepared: Arm) -> str | None:
    return arms.same_code((arms.parse("base", base), arms.parse("head", head)), *prepared)


def test_two_names_of_one_commit_are_refused_and_things_as_they_are_are_not() -> None:
    one = replace(ARM, commit="0123456789abcdef")
    base = replace(one, name="base", text="ref=y")
    assert same("ref=y", "ref=x", base, one) == ("both arms are the same commit (0123456789), and nothing else differs")
    assert same("ref=y", "ref=x,env:A=1", base, replace(one, environment={"A": "1"})) is None
    assert same("ref=y", "ref=x", base, replace(one, commit="f" * 16)) is None
    plain = Arm(name="base", text="", python=sys.executable)
    assert same("", "", plain, replace(plain, name="head")) is None
    assert same("env:A=1", "env:A=1", plain, replace(plain, name="head")) is None
    told = same("python=/p", "python=/p", plain, replace(plain, name="head"))
    assert told == f"both arms are the same interpreter ({sys.executable}), and nothing else differs"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository of two commits, the second of which cannot be installed; the working directory is beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "1.0")
    git(folder, "tag", "sound")
    (folder / "pyproject.toml").write_text("not TOML")
    git(folder, "commit", "-qam", "broken")
    monkeypatch.setenv("IMGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


def ab(project: Path, *arguments: str) -> int:
    """The exit code of `imgbench ab gate` with every artefact asked for."""
    files = ["--junit", "junit.xml", "--json-file", "ab.json", "--markdown", "ab.md", "--badge", "badge.json"]
    return cli.main(["ab", "gate", "--project", str(project), *files, *arguments])


def test_an_arm_that_cannot_be_installed_is_a_benchmark_error_with_every_artefact(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ab(project, "--head", "ref=HEAD") == BENCHMARK_ERROR
    assert "imgbench: --head: ref=HEAD: cannot install it: " in capsys.readouterr().err
    document = json.loads(Path("ab.json").read_text())
    assert document["exit_code"] == BENCHMARK_ERROR
    assert "cannot install it" in document["refused"][0]
    root = ElementTree.parse("junit.xml").getroot()
    assert "cannot install it" in root.findall(".//error")[0].get("message", "")
    assert "cannot install it" in Path("ab.md").read_text()
    assert json.loads(Path("badge.json").read_text())["color"] != "brightgreen"


def test_whatever_ends_a_run_every_artefact_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/ab.json")

    monkeypatch.setattr(driver, "run", full)
    assert ab(project) == BENCHMARK_ERROR
    document = json.loads(Path("ab.json").read_text())
    assert (document["exit_code"], document["refused"]) == (BENCHMARK_ERROR, ["runs/ab.json: No space left on device"])
    assert "No space left on device" in Path("junit.xml").read_text()


@pytest.mark.slow
def test_a_device_that_is_not_here_is_a_wrong_command_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ab(project, "--device", "cuda") == USAGE
    assert capsys.readouterr().err.startswith("imgbench: device cuda: ")
    assert not Path("ab.json").exists()


@pytest.mark.slow
def test_the_same_commit_twice_is_refused_with_every_artefact(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = git(project, "rev-parse", "sound")
    assert ab(project, "--base", "ref=sound", "--head", f"ref={name}") == NOT_COMPARABLE
    assert f"both arms are the same commit ({name[:10]})" in capsys.readouterr().err
    assert json.loads(Path("ab.json").read_text())["exit_code"] == NOT_COMPARABLE
    assert "both arms are the same commit" in Path("junit.xml").read_text()
    assert not Path("runs").exists()


def test_the_proof_of_a_run_says_what_was_imported_and_a_run_of_other_work_stops() -> None:
    place = str(PLACE / "tiny" / "__init__.py")
    run = SimpleNamespace(run=new_paired_run(proof=("head: its own code",)))
    asked = SimpleNamespace(base=replace(ARM, name="base", folder=None, packages=()), head=ARM)
    driver._prove_use(run, asked, [measured({"tiny": place})])  # type: ignore[arg-type]
    assert run.run.proof == ("head: its own code", f"head used while measuring: tiny ({place})")
    with pytest.raises(NotComparable, match="no row of the suite uses tiny, extra"):
        driver._prove_use(run, asked, [measured({})])  # type: ignore[arg-type]
