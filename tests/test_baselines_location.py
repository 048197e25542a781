"""Where baselines are kept: with the project that is measured, never in the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines.stored import location, store
from baselines.stored.location import SHIPPED


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with no store named by the environment."""
    monkeypatch.delenv(location.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("marker", [".git", "pyproject.toml"])
def test_the_store_is_the_folder_baselines_of_the_nearest_project(
    marker: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, inside = nowhere / "project", nowhere / "project" / "src" / "models"
    inside.mkdir(parents=True)
    (nowhere / ".git").mkdir()
    (project / marker).touch()  # .git is a file in a work tree of a repository
    monkeypatch.chdir(inside)
    assert location.chosen(None) == project / "baselines"


def test_outside_of_a_project_it_is_below_the_working_directory(nowhere: Path) -> None:
    assert not any((f / m).exists() for f in (nowhere, *nowhere.parents) for m in location.MARKERS)
    assert location.chosen(None) == nowhere / "baselines"


def test_the_option_counts_more_than_the_variable_and_that_more_than_the_project(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGBENCH_BASELINES", str(nowhere / "named"))
    assert location.chosen(None) == nowhere / "named"
    assert location.chosen(nowhere / "given") == nowhere / "given"


def test_a_project_sees_the_shipped_reference_until_it_has_one_of_its_own(nowhere: Path) -> None:
    root = location.chosen(None)
    shipped = store.reference(root, "digits")
    assert shipped is not None
    assert shipped.path == SHIPPED / "digits.json"
    assert [entry.path for entry in store.listing(root)] == [SHIPPED / "digits.json"]
    own = store.save_reference(shipped.run, "ours", root, force=True)
    assert own.path == nowhere / "baselines" / "reference" / "digits.json"
    assert store.reference(root, "digits") == own


def test_a_store_that_is_named_holds_what_was_put_there_and_nothing_else(nowhere: Path) -> None:
    assert store.reference(nowhere / "elsewhere", "digits") is None
    assert store.listing(nowhere / "elsewhere") == []


def test_the_checkout_of_imgbench_is_its_own_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(location.VARIABLE, raising=False)
    monkeypatch.chdir(SHIPPED.parents[1] / "benches")
    assert location.chosen(None) == SHIPPED.parent
    assert location.reference_folders(SHIPPED.parent) == (SHIPPED,)
