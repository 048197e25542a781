"""Which run a folder of runs stands for, and new folders that two commands never share."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from reports_fixture import make_run

from benches.cli import run_folders
from benches.failures import UsageError
from harness import storage
from harness.paired import paired_run


def header(folder: Path, created: str | None, name: str = storage.RUN_FILE, mtime_s: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text("{" if created is None else json.dumps({"created": created}))
    os.utime(folder / name, (mtime_s, mtime_s))
    return folder


def test_the_newest_run_is_the_one_that_began_last_and_not_the_one_copied_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = header(tmp_path / "b", "2026-01-01T00:00:00+00:00", mtime_s=2e9)
    newer = header(tmp_path / "a", "2026-01-02T00:00:00+00:00", mtime_s=1e9)
    monkeypatch.setattr(storage, "load", lambda path: replace(make_run(), folder=str(path), problems=()))
    assert run_folders.load_run(tmp_path).folder == str(newer)
    assert run_folders.load_run(older).folder == str(older)
    header(tmp_path / "c", None, mtime_s=2e9)
    assert run_folders.load_run(tmp_path).folder == str(tmp_path / "c"), (
        "a newest one that cannot be read is not passed over"
    )


def test_a_folder_of_both_kinds_stands_for_the_newest_of_either(tmp_path: Path) -> None:
    header(tmp_path / "run", "2026-01-01T00:00:00+00:00")
    assert not run_folders.is_paired(tmp_path)
    with pytest.raises(UsageError, match="holds no paired run"):
        run_folders.paired_folder(tmp_path)
    newest = header(tmp_path / "ab", "2026-01-02T00:00:00+00:00", paired_run.HEADER_FILE)
    assert run_folders.is_paired(tmp_path)
    assert run_folders.paired_folder(tmp_path) == newest == run_folders.paired_folder(newest)


def test_two_commands_of_one_second_have_a_folder_each(tmp_path: Path) -> None:
    folders = [run_folders.new_folder(tmp_path / "runs", "gate") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["export", "--format", "csv"], ["compare"], ["baseline", "save", "--reason", "x"]],
)
def test_a_paired_run_names_the_commands_that_show_it(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benches.cli import main

    folder = header(tmp_path / "ab", "2026-01-02T00:00:00+00:00", paired_run.HEADER_FILE)
    for given in (folder, folder.parent):
        assert main([*arguments, str(given)]) == 64
        said = capsys.readouterr().err
        assert said.startswith(f"imgbench: {folder} is a paired run")
        assert "imgbench report" in said
        assert "imgbench explain" in said
        assert said.count("\n") == 1
