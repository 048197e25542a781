"""Which code this process loads: versions, and a digest of the source of each package."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from harness.processes import environment

SOURCE_SUFFIXES: Final = frozenset({".py", ".pyi", ".so", ".pyd", ".json", ".yaml", ".yml", ".toml"})


def loaded_code(packages: Sequence[str], variables: Sequence[str]) -> dict[str, Any]:
    """What this process would import and run: interpreter, versions, variables read back, and each package's source.

    The `sha256` of a package covers the relative paths and bytes of its source files. An absent package is None.
    """
    return {
        "python": sys.executable,
        "python_version": platform.python_version(),
        "versions": environment.versions(),
        "variables": {name: os.environ.get(name) for name in variables},
        "packages": {name: _package(name) for name in packages},
    }


def imported_code(packages: Sequence[str]) -> dict[str, str]:
    """The packages that this process has already imported: name -> file or folder. Unlike `loaded_code`, this shows
    what the measured work used, not what an import would find now."""
    found = {}
    for name in packages:
        module = sys.modules.get(name)
        if module is not None:
            places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]  # a namespace has no file
            found[name] = next((str(place) for place in places if place), "")
    return found


def source_digests(modules: Sequence[str]) -> dict[str, str | None]:
    """Digest of the source of each top package among `modules`; None for what cannot be found."""
    names = dict.fromkeys(module.split(".")[0] for module in modules)
    return {name: found["sha256"] if (found := _package(name)) else None for name in names}


def _package(name: str) -> dict[str, str] | None:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    places = list(found.submodule_search_locations or [])
    root = Path(places[0]) if places else Path(str(found.origin))
    return {"path": str(root), "sha256": tree_digest(root)}


def tree_digest(root: Path) -> str:
    """Short SHA-256 of a package's folder, or of a module's file: relative paths and bytes of its source files."""
    digest = hashlib.sha256()
    for relative, path in _sources(root):
        digest.update(relative.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    if root.is_file():
        yield root.name, root
        return
    for path in sorted(root.rglob("*")):
        if path.suffix in SOURCE_SUFFIXES and "__pycache__" not in path.parts and path.is_file():
            yield path.relative_to(root).as_posix(), path
