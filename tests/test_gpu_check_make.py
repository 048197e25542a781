"""`make gpu-check` uses the interpreter that has torch, whatever its name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def fake(folder: Path, name: str, has_torch: bool) -> None:
    """A Python that only prints its name, and says whether it has torch."""
    (folder / name).write_text(
        f'#!/bin/sh\ncase "$*" in *find_spec*) exit {0 if has_torch else 1};; esac\necho "{name} ran $*"\n'
    )
    (folder / name).chmod(0o755)


def make(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return subprocess.run(
        ["make", "-s", "gpu-check", *arguments],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("has_torch", ["python3", "python", "python3.12", "python3.11"])
def test_the_first_python_that_has_torch_runs_the_check(has_torch: str, tmp_path: Path) -> None:
    """The former Makefile took python3.11 wherever there was one."""
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python", "python3.14", "python3.13", "python3.12", "python3.11"):
        fake(tmp_path / "bin", name, name == has_torch)
    done = make(tmp_path, "OUT=kept")
    assert (done.returncode, done.stdout) == (0, f"{has_torch} ran -m benches.gpu_check --out kept\n")


def test_without_torch_it_says_so_and_a_record_is_judged_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python", "python3.14", "python3.13", "python3.12", "python3.11"):
        fake(tmp_path / "bin", name, has_torch=False)
    done = make(tmp_path)
    assert done.returncode == 2
    assert "has torch" in done.stdout
    done = make(tmp_path, "VERIFY=record.json.gz")
    assert (done.returncode, done.stdout) == (0, "python3 ran -m benches.gpu_check --verify record.json.gz\n")


def test_a_python_that_is_named_is_the_one_that_runs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake(tmp_path / "bin", "python3", has_torch=True)
    fake(tmp_path / "bin", "conda-python", has_torch=False)
    assert make(tmp_path, "PYTHON=conda-python").stdout == "conda-python ran -m benches.gpu_check\n"
