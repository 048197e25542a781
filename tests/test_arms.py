"""Git refs as arms: installed into an environment of their own, and proven to run their own code."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project_fixture import commit, git, loaded

from benches.ab import arms
from benches.ab import driver as ab
from benches.failures import NotComparable, UsageError
from harness.paired.arms import Arm, other_sampling
from harness.processes.endings import Reply
from harness.processes.loaded_code import tree_digest
from harness.types import Case, Protocol


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of a package with two tagged commits."""
    folder = tmp_path_factory.mktemp("project")
    git(folder, "init", "-q")
    for version in ("1.0", "2.0"):
        commit(folder, version)
        git(folder, "tag", f"v{version}")
    return folder


@pytest.fixture(scope="module")
def prepared(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Arm, Arm, Path]:
    cache = tmp_path_factory.mktemp("cache")
    said: list[str] = []
    base, head = (
        arms.prepare(arms.parse(name, f"ref={ref}"), project, cache, said.append)
        for name, ref in (("base", "v1.0"), ("head", "v2.0"))
    )
    assert len(said) == 2
    return base, head, cache


@pytest.mark.slow
def test_each_ref_runs_its_own_code_beside_our_packages(prepared: tuple[Arm, Arm, Path], project: Path) -> None:
    base, head, _ = prepared
    there, here = loaded(base, project), loaded(head, project)
    assert (there["speed"], here["speed"]) == ("1.0", "2.0")
    assert there["versions"]["torch"] == here["versions"]["torch"]
    assert arms.refusal(base, head, there, here) is None
    assert any("source of tinyproject" in line for line in arms.differences(base, head, there, here))
    assert not base.shares_server_with(head)


@pytest.mark.slow
def test_an_arm_that_did_not_load_its_own_code_is_refused(prepared: tuple[Arm, Arm, Path], project: Path) -> None:
    base, head, _ = prepared
    there = loaded(base, project)
    same = there | {"python": head.python}
    assert "the head arm loaded tinyproject from" in str(arms.refusal(base, head, there, same))
    absent = loaded(head, project) | {"packages": {}}
    assert "cannot import the project" in str(arms.refusal(base, head, there, absent))
    assert "runs" in str(arms.refusal(base, head, there | {"python": "/usr/bin/other"}, loaded(head, project)))


@pytest.mark.slow
def test_an_environment_is_made_once_and_a_half_made_one_is_made_again(
    prepared: tuple[Arm, Arm, Path], project: Path
) -> None:
    base, _, cache = prepared
    said: list[str] = []
    again = arms.prepare(arms.parse("base", "ref=v1.0"), project, cache, said.append)
    assert said == []
    assert again.python == base.python
    Path(base.python).parent.parent.parent.joinpath("complete").unlink()
    arms.prepare(arms.parse("base", "ref=v1.0"), project, cache, said.append)
    assert len(said) == 1
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "worktree", "list").count("\n") == 0


def test_a_variable_that_did_not_arrive_is_refused(tmp_path: Path) -> None:
    arm = arms.prepare(arms.parse("head", "env:SPEED=2"), Path("/"), Path("/"), lambda _text: None)
    seen = {"python": arm.python, "variables": {"SPEED": "1"}, "packages": {}}
    plain = arms.prepare(arms.parse("base", ""), Path("/"), Path("/"), lambda _text: None)
    assert "sees SPEED='1', not '2'" in str(arms.refusal(plain, arm, seen | {"variables": {}}, seen))
    assert arms.launch_environment(arm, Path("/nowhere"), tmp_path)["SPEED"] == "2"


OLD: dict[str, Any] = {"device": "cuda"}
NEW: dict[str, Any] = {"device": "cuda", "shortest_sample_s": 4e-3}
ON_A_CPU: dict[str, Any] = {"device": "cpu", "shortest_sample_s": 2e-4}


class Telling:
    """An arm's host that tells of itself only its environment and its code."""

    def __init__(self, environment: dict[str, Any]) -> None:
        self.told = {
            "environment": environment,
            "loaded": {"python": sys.executable, "variables": {}, "packages": {}, "versions": {}, "python_version": ""},
        }

    def call(self, command: str, _argument: Any, _timeout_s: float) -> Reply:
        return Reply(status="ok", value=self.told[command])


@pytest.mark.parametrize(
    ("base", "head", "cold_cache", "words"),
    [
        (OLD, NEW, False, "a sample lasts at least 0.2 ms in the base and 4 ms in the head"),
        (NEW, OLD, False, "a sample lasts at least 4 ms in the base and 0.2 ms in the head"),
        ({"device": "cpu"}, ON_A_CPU, True, "the base's imgbench is older and does not flush the caches (cold_cache)"),
        (ON_A_CPU, {"device": "cpu"}, True, "the head's imgbench is older and does not flush the caches (cold_cache)"),
    ],
)
def test_arms_whose_own_imgbench_measures_differently_are_refused(
    base: dict[str, Any], head: dict[str, Any], cold_cache: bool, words: str, tmp_path: Path
) -> None:
    plain = [Arm(name=name, text="", python=sys.executable) for name in ("base", "head")]
    asked: Any = SimpleNamespace(
        device=None,
        threads=SimpleNamespace(count=1),
        base=plain[0],
        head=plain[1],
        plugins=(),
        suite=SimpleNamespace(protocol=Protocol(cold_cache=cold_cache)),
    )
    hosts: Any = SimpleNamespace(base=Telling(base), head=Telling(head))
    with pytest.raises(NotComparable, match=re.escape(f"the arms measure differently: {words}")):
        ab._header(asked, tmp_path, hosts)


@pytest.mark.parametrize(
    ("base", "head", "cold_cache"),
    [
        (OLD, OLD, False),
        (NEW, NEW, True),
        ({"device": "cpu"}, ON_A_CPU, False),  # a sample on a CPU is as long as ever
        (ON_A_CPU, ON_A_CPU, True),
    ],
)
def test_arms_that_measure_alike_are_compared(base: dict[str, Any], head: dict[str, Any], cold_cache: bool) -> None:
    assert other_sampling(base, head, cold_cache=cold_cache) is None


def test_what_is_relative_is_so_to_the_folder_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm's processes have a working directory of their own: PYTHONPATH and folders of weights are made absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"python{os.pathsep}")
    plain = arms.prepare(arms.parse("base", ""), tmp_path / "project", tmp_path, lambda _text: None)
    path = arms.launch_environment(plain, tmp_path / "project", tmp_path / "ours")["PYTHONPATH"].split(os.pathsep)
    assert path == [str(tmp_path / "ours"), str(tmp_path / "python")]
    (tmp_path / "trained").mkdir()
    case = Case(model="vit_base_patch16_224", weights="trained", image_size=224)
    request = arms.parse("head", "weights=trained")
    arms.checked(request, (case,))
    assert arms.in_full("trained", [case]) == str(tmp_path / "trained")
    assert [r.overrides["weights"] for r in arms.all_in_full([request], [case])] == [str(tmp_path / "trained")]
    assert [arms.in_full(keyword, [case]) for keyword in ("random", "pretrained")] == ["random", "pretrained"]
    (tmp_path / "folder").mkdir()  # a name like any other
    assert arms.in_full("folder", [case]) == str(tmp_path / "folder")


def test_a_slow_down_that_is_meant_for_no_row_is_a_wrong_command_line() -> None:
    case = Case(model="digits_vit", weights="digits", image_size=32)
    arms.checked(arms.parse("head", f"inject:busy=0.05@{case.id}"), (case,))
    arms.checked(arms.parse("head", "inject:busy=0.05"), (case,))
    with pytest.raises(UsageError, match="no row of the suite has the id digits_vti"):
        arms.checked(arms.parse("head", "inject:busy=0.05@digits_vti*"), (case,))


def test_the_projects_own_folder_is_taken_off_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, inside, other = tmp_path / "project", tmp_path / "project" / "python", tmp_path / "other"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (project, inside, other))))
    plain = arms.prepare(arms.parse("base", ""), project, tmp_path, lambda _text: None)
    folder = replace(plain, folder=str(tmp_path / "tree"))
    found = [
        arms.launch_environment(arm, project, tmp_path / "ours")["PYTHONPATH"].split(os.pathsep)
        for arm in (plain, folder)
    ]
    assert found[0] == [str(tmp_path / "ours"), str(project), str(inside), str(other)]  # as things are
    assert found[1] == [str(tmp_path / "ours"), str(tmp_path / "tree"), str(other)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("ref=nothing", "no such commit"), ("python=/no/python", "no such interpreter")],
)
def test_what_is_not_there_is_one_line(project: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arms.prepare(arms.parse("base", text), project, tmp_path, lambda _text: None)


def test_no_repository_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a git repository"):
        arms.prepare(arms.parse("base", "ref=main"), tmp_path, tmp_path, lambda _text: None)


def test_a_packages_digest_is_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = tree_digest(tmp_path)
    (tmp_path / "note.txt").write_text("no source")
    assert tree_digest(tmp_path) == before
    (tmp_path / "a.py").write_text("x = 2\n")
    assert tree_digest(tmp_path) != before
