"""The wheel: what it holds, and its main job where there is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("baselines", "benches", "harness", "reports")
SUITE = """
name: tiny
protocol: {replicates: 1, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 5, min_sample_time_s: 0.01,
           target_interval: null, contended_retries: 0}
cases: [{model: digits_vit, batch_size: 1}]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree in which a session of some machine is stored."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    session = source / "baselines" / "some_machine" / "digits" / "session.json"
    session.parent.mkdir(parents=True)
    session.write_text("{}")
    out = tmp_path_factory.mktemp("wheel")
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
          "--wheel-dir", str(out), str(source)], source)  # fmt: skip
    (built,) = out.glob("imgbench-*.whl")
    return built


def test_the_wheel_holds_what_is_needed_to_measure_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {
        "baselines/reference/digits.json", "baselines/stored/store.py", "benches/suites/digits.yaml",
        "benches/architectures/sd15.json", "benches/digits/weights/vit/model.safetensors", "reports/page/page.html",
    } <= set(names)  # fmt: skip
    unwanted = ("baselines/detector/", "baselines/recorded/", "baselines/some_machine/")
    assert [name for name in names if name.startswith(unwanted)] == []


@pytest.mark.slow
def test_an_installed_wheel_measures_and_compares_in_a_folder_that_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    environment, project = tmp_path / "environment", tmp_path / "project"
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], tmp_path)
    python = str(environment / "bin" / "python")
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps",
          "--no-compile", str(wheel)], tmp_path)  # fmt: skip
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")  # only what imgbench depends on
    installed = _files(packages)
    project.mkdir()
    (project / "pyproject.toml").touch()
    (project / "tiny.yaml").write_text(SUITE)

    def imgbench(*arguments: str, code: int = 0) -> str:
        return _run([str(environment / "bin" / "imgbench"), *arguments], project, code)

    where = _run([python, "-c", "import benches.cli; print(benches.cli.__file__)"], project)
    assert Path(where.strip()).is_relative_to(packages)
    told = imgbench("run", "tiny.yaml")
    assert "digits_vit" in told
    assert Path(project / told.splitlines()[-1]).read_text().startswith("<!DOCTYPE html>")
    assert "no baseline" in " ".join(imgbench("compare", "runs", code=12).split())
    session = Path(imgbench("baseline", "save", "runs", "--force", "--reason", "busy or not").strip())
    assert session.is_relative_to(project / "baselines")
    (run,) = (project / "runs").iterdir()
    again = shutil.copytree(run, project / "runs" / "again")
    header = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps({**header, "id": "again"}))
    assert "compared with" in imgbench("compare", str(again), "--budget", "0", "--exit-zero")
    assert "reference" in imgbench("baseline", "list")
    assert "need a checkout of imgbench" in imgbench("selftest", "--recorded", "noise.json.gz", code=64)
    assert _files(packages) == installed, "something was written into the installed package"


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file, Python's own caches left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def _run(command: list[str], folder: Path, code: int = 0) -> str:
    """What the command says, in an environment that knows no checkout and no store."""
    variables = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "IMGBENCH", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")
