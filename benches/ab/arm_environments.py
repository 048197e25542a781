"""Environments for arms: a git ref of the project under test, installed into a virtual environment of its own.

The environment sees the packages of the interpreter from which it was made, so torch is not installed twice. The
project of the ref comes before these packages, even if they include the same project in editable mode. Environments are
cached by commit, interpreter and installed versions. An incomplete environment is never used. The user's repository is
only read.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benches.failures import UsageError
from harness.paired.hosts import ArmFailed
from harness.processes.environment import NO_GIT
from harness.processes.threads import ASKING

VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED: Final = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
MINIMUM_PYTHON: Final = (3, 11)
BUILD_FILES: Final = ("pyproject.toml", "setup.py", "setup.cfg")
NOT_PACKAGES: Final = frozenset(
    {"tests", "test", "docs", "doc", "examples", "scripts", "setup", "conftest", "build", "__pycache__"}
)
MODULES: Final = (".py", ".so")
SITE: Final = "venv/lib/python3*/site-packages"
INSTALL_TIMEOUT_S: Final = 900.0
PROBE: Final = (
    "import sys, sysconfig, importlib.metadata as m;"
    "print(sys.version_info[0], sys.version_info[1]);"
    "print(sysconfig.get_path('purelib'));"
    "print(sorted((d.name, d.version) for d in m.distributions()))"
)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RefEnvironment:
    """An installed git ref. `folder` is its source tree, and `python` is the interpreter of its environment."""

    python: str
    folder: Path
    commit: str


def interpreter(path: str, arm: str) -> str:
    """The absolute path of an interpreter that can measure. Symbolic links are not resolved, because the interpreter of
    a virtual environment is one. Raises UsageError."""
    found = Path(os.path.abspath(Path(path).expanduser())) if os.sep in path else Path(shutil.which(path) or path)  # noqa: PTH100
    if not found.is_file() or not os.access(found, os.X_OK):
        raise UsageError(f"--{arm}: python={path}: no such interpreter")
    version = tuple(int(part) for part in _probe(str(found), arm)[0].split())
    if version < MINIMUM_PYTHON:
        shown = ".".join(map(str, version))
        raise UsageError(f"--{arm}: python={path} is Python {shown}; imgbench needs 3.11 or newer")
    missing = _run([str(found), "-c", "import importlib.util as u; print(u.find_spec('torch') is None)"])
    if missing.stdout.strip() != "False":
        raise UsageError(f"--{arm}: python={path} has no torch")
    return str(found)


INSTALLED: Final = """
import importlib.metadata, sys
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
for text in sys.argv[1:]:
    asked = Requirement(text)
    if asked.marker is None or asked.marker.evaluate():
        found = importlib.metadata.version(asked.name)
        if not asked.specifier.contains(found, prereleases=True):
            sys.exit(f"{text}: {found} is installed")
"""


def ref_environment(project: Path, ref: str, python: str, cache: Path, say: Say) -> RefEnvironment:
    """The environment of the git ref `ref` of the repository `project`. It is made if the cache lacks it. Raises
    UsageError if there is no such commit, and ArmFailed if it cannot be installed."""
    commit = _commit(project, ref)
    _, library, versions = _probe(python, ref)
    key = hashlib.sha256("\n".join([str(project.resolve()), commit, python, versions]).encode()).hexdigest()[:16]
    final = cache / f"{commit[:12]}-{key}"
    if not (final / "complete").exists():
        say(f"installing {ref} ({commit[:10]}) into its own virtual environment")
        partial = cache / f".{final.name}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _make(partial, project, commit, python, library)
            (partial / "complete").touch()
            if not (final / "complete").exists():  # another run may have made it in the meantime
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return RefEnvironment(python=str(final / "venv/bin/python"), folder=final / "source", commit=commit)


def installable(folder: Path) -> bool:
    return any((folder / name).exists() for name in BUILD_FILES)


def own_packages(folder: Path) -> tuple[str, ...]:
    """The top-level packages and modules of a project: those of its tree (in the folder itself or below src/), and
    those of its installation, which may have more (a namespace, an extension, another layout)."""
    found = _packages(folder / "src") or _packages(folder)
    installed = (name for place in folder.parent.glob(SITE) for name in _installed(place))
    return tuple(dict.fromkeys((*found, *installed)))


def _packages(root: Path) -> tuple[str, ...]:
    """The names that can be imported from a tree. Folders that are no packages are left out."""
    packages = [p.parent.name for p in sorted(root.glob("*/__init__.py"))]
    modules = [p.stem for p in sorted(root.glob("*.py"))]
    return tuple(name for name in (*packages, *modules) if _is_package(name))


def _installed(root: Path, namespace: str = "") -> Iterator[str]:
    """The names that an installation put into `root`. A folder that is no package is a namespace that other
    projects may share, so the names inside it count ("google.mine")."""
    for path in sorted(root.iterdir()):
        name = path.name.split(".")[0]
        if not _is_package(path.name if path.is_dir() else name):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            yield from _installed(path, f"{namespace}{name}.")
        elif path.is_dir() or path.suffix in MODULES:
            yield f"{namespace}{name}"


def _is_package(name: str) -> bool:
    return name.isidentifier() and name not in NOT_PACKAGES


def _make(place: Path, project: Path, commit: str, python: str, library: str) -> None:
    source = place / "source"
    archive = subprocess.run(["git", "-C", str(project), "archive", commit], capture_output=True, check=False)
    if archive.returncode != 0:
        raise UsageError(f"cannot read {commit[:10]} of {project}: {' '.join(archive.stderr.decode().split())[-400:]}")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(source, filter="data")
    except tarfile.TarError as error:  # for example a link out of the tree
        raise ArmFailed(f"cannot unpack {commit[:10]} of {project}: {error}") from None
    _checked([python, "-m", "venv", "--without-pip", str(place / "venv")], "create its environment")
    own = next(place.glob(SITE))
    # addsitedir also runs the .pth files of the parent environment. Their entries come after the project of the ref.
    (own / "zz_parent.pth").write_text(f"import site; site.addsitedir({library!r})\n", encoding="utf-8")
    if not installable(source):
        return
    target = str(place / "venv/bin/python")
    isolated = ["--no-build-isolation"] if _can_build_here(target, source) else []
    _checked(
        [python, "-m", "pip", "--python", target, "install", "--quiet", "--no-deps", "--force-reinstall",
         "--disable-pip-version-check", "--no-input", *isolated, str(source)],
        "install it",
        # A project that reads its version from git finds no repository here.
        SETUPTOOLS_SCM_PRETEND_VERSION=f"0.0.0+{commit[:10]}",
    )  # fmt: skip


def _can_build_here(python: str, source: Path) -> bool:
    """Whether all build requirements of the project are installed, so that nothing must be downloaded."""
    file = source / "pyproject.toml"
    try:
        asked = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        required = asked.get("build-system", {}).get("requires", ["setuptools"])
    except (ValueError, AttributeError):
        return False  # pip reports the error
    return _run([python, "-c", INSTALLED, *map(str, required)]).returncode == 0


def _commit(project: Path, ref: str) -> str:
    done = _run(["git", "-C", str(project), "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"])
    if done.returncode == 0:
        return done.stdout.strip()
    if shutil.which("git") is None:
        raise UsageError(f"ref={ref}: {NO_GIT}")
    found = _run(["git", "-C", str(project), "rev-parse", "--git-dir"])
    if found.returncode != 0 and not _has_repository(project):
        raise UsageError(f"ref={ref}: {project} is not a git repository (name it with --project)")
    if found.returncode != 0:
        raise UsageError(f"ref={ref}: git does not read {project}: {' '.join(found.stderr.split())[:400]}")
    shallow = _run(["git", "-C", str(project), "rev-parse", "--is-shallow-repository"]).stdout.strip() == "true"
    hint = "; the clone is shallow: fetch the whole history (fetch-depth: 0)" if shallow else ""
    raise UsageError(f"ref={ref}: {project} has no such commit{hint}")


def _has_repository(project: Path) -> bool:
    """Whether the folder or a folder above it has a .git. git may still refuse to read it."""
    folder = project.resolve()
    return any((place / ".git").exists() for place in (folder, *folder.parents))


def _probe(python: str, what: str) -> tuple[str, str, str]:
    """(version, site-packages, installed versions) of an interpreter."""
    done = _run([python, "-c", PROBE])
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or len(lines) < 3:
        raise UsageError(f"{what}: {python} does not run: {' '.join(done.stderr.split())[-200:]}")
    return lines[-3], lines[-2], lines[-1]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _checked(command: Sequence[str], what: str, **variables: str) -> None:
    environment = {**os.environ, **variables, "PYTHONPATH": ""}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ArmFailed(f"cannot {what}: it took more than {INSTALL_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise ArmFailed(f"cannot {what}: {' '.join(done.stderr.split())[-400:]}")


def check_variable(variable: str) -> None:
    """Raises UsageError for a variable that an arm cannot set."""
    if not VARIABLE.fullmatch(variable):
        raise UsageError(f"env:{variable}: a variable's name is letters, digits and '_'")
    if variable in RESERVED:
        raise UsageError(f"env:{variable}: imgbench sets it itself, so that each arm runs its own code (ref=, python=)")
    if variable in ASKING:
        raise UsageError(f"env:{variable}: imgbench sets it itself, so that --threads N holds for both arms")
