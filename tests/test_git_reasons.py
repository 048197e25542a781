"""git that is not there, or that does not read a repository: its own words, in the run and in the message."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benches.ab import arm_environments
from benches.failures import UsageError
from harness.processes import environment
from harness.sweeping.sweep import new_run
from harness.types import Protocol, Suite
from reports.formats import benchmark_json

DUBIOUS = "fatal: detected dubious ownership in repository at '/x'\nTo add an exception for this directory, call: ..."


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code of the harness as if it stood in this folder, which has a repository."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "harness").mkdir()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "processes" / "environment.py"))
    return tmp_path


def refusing(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """The first git on the PATH is this script."""
    (folder / "bin").mkdir()
    git = folder / "bin" / "git"
    git.write_text(f"#!/bin/sh\n{script}\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_a_commit_that_git_does_not_tell_is_stored_with_its_reason(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, checkout, f'echo "{DUBIOUS}" >&2; exit 128')
    found = environment.git_state()
    assert found is not None
    assert (found["commit"], found["dirty"]) == (None, None)
    assert found["reason"].startswith(
        "git: fatal: detected dubious ownership in repository at '/x' To add an exception"
    )


def test_a_machine_without_git_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout / "nowhere"))
    assert environment.git_state() == {"commit": None, "dirty": None, "reason": environment.NO_GIT}
    with pytest.raises(UsageError, match=f"^ref=HEAD: {environment.NO_GIT}$"):
        arm_environments._commit(checkout, "HEAD")


def test_code_outside_a_checkout_has_no_commit_and_needs_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "processes" / "environment.py"))
    assert environment.git_state() is None


def test_the_reason_goes_into_the_run_and_the_export(tmp_path: Path) -> None:
    git: dict[str, Any] = {"commit": None, "dirty": None, "reason": "git: fatal: detected dubious ownership"}
    suite = Suite(name="s", description="", protocol=Protocol(), cases=())
    run = new_run(suite, tmp_path / "run", {"git": git, "versions": {}})
    assert run.environment["git"] == git
    told = benchmark_json.commit_info(run.environment)
    assert (told["id"], told["reason"]) == ("unversioned", git["reason"])


def test_a_ref_of_a_repository_that_git_refuses_is_told_in_gits_words(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, checkout, f'echo "{DUBIOUS}" >&2; exit 128')
    inside = checkout / "package"
    inside.mkdir()
    for project in (checkout, inside):
        with pytest.raises(UsageError, match=r"git does not read .*: fatal: detected dubious ownership") as caught:
            arm_environments._commit(project, "HEAD")
        assert "\n" not in str(caught.value)


def test_a_folder_without_a_repository_is_named_as_one(tmp_path: Path) -> None:
    if subprocess.run(["git", "-C", str(tmp_path), "rev-parse"], capture_output=True, check=False).returncode == 0:
        pytest.skip("the folder for temporary files lies in a repository")
    with pytest.raises(UsageError, match=r"is not a git repository \(name it with --project\)"):
        arm_environments._commit(tmp_path, "HEAD")
