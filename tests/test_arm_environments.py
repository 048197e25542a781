"""Arms where something else would stand before their own code, and arms that cannot be asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from project_fixture import commit, git, loaded

from benches.ab import arm_environments, arms
from benches.ab.arm_environments import own_packages
from benches.failures import UsageError
from harness.paired.arms import Arm
from harness.paired.hosts import ArmFailed
from harness.types import Case

FINDER = """
import sys
from importlib.util import spec_from_file_location
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "tinyproject":
            return spec_from_file_location(name, {init!r}, submodule_search_locations=[{package!r}])
{install}
"""
APPENDED = "sys.meta_path.append(Finder)"  # what setuptools does
INSERTED = "sys.meta_path.insert(0, Finder)"  # what scikit-build-core and meson-python do


def silent(_text: str) -> None: ...


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository whose working tree is not what is committed."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "1.0")
    (folder / "tinyproject" / "__init__.py").write_text("SPEED = 'working tree'\n")
    return folder


@pytest.fixture
def parent(tmp_path: Path) -> Callable[[str], Path]:
    """Makes an environment with the packages of this one and a .pth file of the given text; gives its site-packages."""

    def make(text: str) -> Path:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "parent")], check=True)
        own = next((tmp_path / "parent").glob("lib/python3*/site-packages"))
        library = sysconfig.get_path("purelib")
        (own / "aa_library.pth").write_text(f"import site; site.addsitedir({library!r})\n")
        (own / "__editable__.tinyproject.pth").write_text(text + "\n")
        return own

    return make


def hooked(own: Path, project: Path, install: str) -> str:
    """Writes the finder of an editable install."""
    package = project / "tinyproject"
    text = FINDER.format(init=str(package / "__init__.py"), package=str(package), install=install)
    (own / "tiny_finder.py").write_text(text)
    python = str(own.parents[2] / "bin" / "python")
    code = "import tinyproject; print(tinyproject.SPEED)"
    seen = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "working tree"
    return python


def prepared(python: str, project: Path, tmp_path: Path) -> Arm:
    return arms.prepare(arms.parse("head", f"ref=HEAD,python={python}"), project, tmp_path / "cache", silent)


@pytest.mark.slow
def test_the_ref_wins_over_an_editable_install_by_path(
    project: Path, parent: Callable[[str], Path], tmp_path: Path
) -> None:
    own = parent(str(project))
    arm = prepared(str(own.parents[2] / "bin" / "python"), project, tmp_path)
    found = loaded(arm, project)
    assert found["speed"] == "1.0"
    assert arms.refusal(arm, arm, found, found) is None


@pytest.mark.slow
def test_the_ref_wins_over_an_editable_install_by_a_finder(
    project: Path, parent: Callable[[str], Path], tmp_path: Path
) -> None:
    own = parent("import tiny_finder")
    arm = prepared(hooked(own, project, APPENDED), project, tmp_path)
    found = loaded(arm, project)
    assert found["speed"] == "1.0"
    assert arms.refusal(arm, arm, found, found) is None


@pytest.mark.slow
def test_an_editable_install_that_stands_before_everything_is_refused(
    project: Path, parent: Callable[[str], Path], tmp_path: Path
) -> None:
    """One ref against things as they are: there is no second commit to compare its source with."""
    own = parent("import tiny_finder")
    arm = prepared(hooked(own, project, INSERTED), project, tmp_path)
    found = loaded(arm, project)
    assert found["speed"] == "working tree"
    plain = arms.prepare(arms.parse("base", ""), project, tmp_path, silent)
    there = {"python": plain.python, "variables": {}, "packages": {}}
    assert f"loaded tinyproject from {project / 'tinyproject'}" in str(arms.refusal(plain, arm, there, found))


@pytest.mark.slow
def test_an_installed_imgbench_does_not_bring_its_neighbours(
    parent: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that imgbench is installed in holds all packages of its environment, torch among them."""
    ours = tmp_path / "installed"
    ours.mkdir()
    for name in arms.OURS:
        (ours / name).symlink_to(arms.OUR_ROOT / name)
    (ours / "neighbour.py").write_text("SIDE = 'ours'\n")
    monkeypatch.setattr(arms, "OUR_ROOT", ours)
    own = parent("")
    (own / "neighbour.py").write_text("SIDE = 'theirs'\n")
    arm = arms.prepare(arms.parse("head", f"python={own.parents[2] / 'bin' / 'python'}"), tmp_path, tmp_path, silent)
    code = "import neighbour, harness.arm_host, benches; print(neighbour.SIDE)"
    environment = arms.launch_environment(arm, tmp_path / "none", tmp_path / "links")
    done = subprocess.run([arm.python, "-c", code], env=environment, cwd="/", capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("theirs", "")


def test_a_project_without_build_files_comes_by_its_folder(project: Path, tmp_path: Path) -> None:
    git(project, "rm", "-q", "--cached", "pyproject.toml")
    git(project, "commit", "-qm", "no build files")
    arm = prepared(sys.executable, project, tmp_path)
    found = loaded(arm, project)
    assert found["speed"] == "1.0"
    assert arms.refusal(arm, arm, found, found) is None


def test_names_that_clash_with_ours_are_refused(project: Path, tmp_path: Path) -> None:
    (project / "pyproject.toml").unlink()
    (project / "harness").mkdir()
    (project / "harness" / "__init__.py").touch()
    git(project, "add", "-A")
    git(project, "commit", "-qm", "a harness of its own")
    with pytest.raises(UsageError, match="package harness has the same name as a package of imgbench"):
        prepared(sys.executable, project, tmp_path)
    for name in ("harness/types.py", "benches/__init__.py", "benches/cli.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    git(project, "add", "-A")
    git(project, "commit", "-qm", "an old imgbench")
    with pytest.raises(UsageError, match="older imgbench without `imgbench ab`"):
        prepared(sys.executable, project, tmp_path)
    (project / "harness" / "arm_host.py").touch()
    git(project, "add", "-A")
    git(project, "commit", "-qm", "an imgbench")
    arm = prepared(sys.executable, project, tmp_path)
    path = arms.launch_environment(arm, project, tmp_path / "links")["PYTHONPATH"].split(os.pathsep)
    assert path[0] == arm.folder
    assert not (tmp_path / "links").exists()


def test_this_version_is_an_imgbench() -> None:
    assert arms._is_imgbench(arms.OUR_ROOT)


def test_packages_that_the_tree_does_not_show_are_found_where_they_are_installed(tmp_path: Path) -> None:
    """A namespace package, an extension whose sources are in src/, and nothing of the installer's own."""
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    for file in ("space/inner/__init__.py", "space/data/a.txt", "tests/test_a.py", "tiny-1.0.dist-info/RECORD"):
        (site / file).parent.mkdir(parents=True)
        (site / file).touch()
    for file in ("fast.cpython-311-x86_64-linux-gnu.so", "zz_parent.pth"):
        (site / file).touch()
    tree = tmp_path / "source"
    for file in ("src/fast.cpp", "plain/__init__.py", "notebooks/look.py", "setup.py"):
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).touch()
    assert own_packages(tree) == ("plain", "fast", "space.inner"), "others may share the namespace"
    (tree / "src" / "below.py").touch()
    assert own_packages(tree) == ("below", "fast", "space.inner")


def test_a_failed_installation_is_one_line_and_leaves_nothing(project: Path, tmp_path: Path) -> None:
    (project / "pyproject.toml").write_text("not TOML")
    git(project, "commit", "-qam", "broken")
    with pytest.raises(ArmFailed, match="--head: ref=HEAD: cannot install it: "):
        prepared(sys.executable, project, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_shallow_clone_gets_a_hint(project: Path, tmp_path: Path) -> None:
    git(project, "commit", "-qam", "later")
    first = git(project, "rev-parse", "HEAD~1")
    git(tmp_path, "clone", "-q", "--depth", "1", project.as_uri(), "shallow")
    with pytest.raises(UsageError, match="fetch-depth: 0"):
        arms.prepare(arms.parse("base", f"ref={first}"), tmp_path / "shallow", tmp_path, silent)


@pytest.mark.parametrize(
    ("version", "torch", "message"),
    [("3 9", "False", "is Python 3.9; imgbench needs 3.11"), ("3 12", "True", "has no torch")],
)
def test_an_interpreter_that_cannot_measure_is_one_line(tmp_path: Path, version: str, torch: str, message: str) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\ncase \"$2\" in *torch*) echo {torch};; *) echo '{version}'; echo /x; echo []; esac\n"
    )
    python.chmod(0o755)
    with pytest.raises(UsageError, match=message):
        arm_environments.interpreter(str(python), "head")


def test_all_items_in_one_text() -> None:
    text = r"ref=main,python=/p/python,env:A=x=y\,z,env:EMPTY=,batch_size=2,guidance_scale=3,inject:busy=0.05@vit*"
    found = arms.parse("head", text)
    assert (found.ref, found.python) == ("main", "/p/python")
    assert found.environment == {"A": "x=y,z", "EMPTY": ""}
    assert found.overrides == {"batch_size": 2, "guidance_scale": 3.0}
    assert type(found.overrides["guidance_scale"]) is float
    assert found.injections == ("busy=0.05@vit*",)
    assert arms.parse("base", "") == arms.ArmRequest(name="base", text="")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("busy", "'busy' must be name=value"),
        ("precision=", "'precision=' must be name=value"),
        ("backnd=eager", "did you mean 'backend'"),
        ("model=digits_dit", "an arm cannot change the model"),
        ("ref=a,ref=b", "ref is given twice"),
        ("env:A=1,env:A=2", "env:A is given twice"),
        ("inject:busy=0.1,inject:busy=0.1", "inject:busy=0.1 is given twice"),
        ("inject:bsy=0.1", "unknown injection 'bsy'"),
        ("env:=1", "a variable's name is letters"),
        ("env:PYTHONPATH=/x", "imgbench sets it itself"),
        ("env:OMP_NUM_THREADS=1", "imgbench sets it itself, so that --threads N holds for both"),
        ("env:MKL_NUM_THREADS=1", "imgbench sets it itself, so that --threads N holds for both"),
        ("batch_size={a", "not valid YAML"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        arms.parse("head", text)
    assert str(caught.value).startswith("--head: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backend=eagr", "did you mean 'eager'"),
        ("batch_size=abc", "must be a whole number"),
        ("precision=null", "precision: no value"),
        ("num_steps=3", "has no such axis"),
    ],
)
def test_an_axis_that_does_not_fit_the_suite_is_one_line(text: str, message: str) -> None:
    case = Case(model="digits_vit", weights="digits", image_size=32)
    with pytest.raises(UsageError, match=message):
        arms.checked(arms.parse("head", text), (case,))


@pytest.mark.parametrize(
    ("requires", "here"),
    [
        (None, True),
        ('["setuptools>=40.8.0"]', True),
        ('["setuptools>=99999"]', False),
        ('["no_such_backend"]', False),
        ("[\"no_such_backend; python_version < '3'\"]", True),
        ('["torch", "setuptools"]', True),
        ("not toml", False),
    ],
)
def test_a_project_is_built_here_only_where_all_that_its_build_asks_for_is_installed(
    requires: str | None, here: bool, tmp_path: Path
) -> None:
    if requires is not None:
        (tmp_path / "pyproject.toml").write_text(f"[build-system]\nrequires = {requires}\n")
    assert arm_environments._can_build_here(sys.executable, tmp_path) is here


def test_a_link_out_of_the_repository_is_the_arms_failure_in_one_line(project: Path, tmp_path: Path) -> None:
    (project / "data").symlink_to("/mnt/data")
    commit(project, "2.0")
    with pytest.raises(ArmFailed, match=r"cannot unpack .*link"):
        arm_environments.ref_environment(project, "HEAD", sys.executable, tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").glob("*/complete"))


def test_the_project_of_a_folder_below_is_its_repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive of a folder alone would hold no project, and both arms the same code."""
    below = project / "bench"
    below.mkdir()
    monkeypatch.chdir(below)
    assert arms.project_here() == project.resolve()
    (below / "pyproject.toml").touch()
    assert arms.project_here() == below.resolve()
