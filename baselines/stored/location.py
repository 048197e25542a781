"""Where baselines are kept: in the folder `baselines` of the project that is measured, or where the user says.

A project is the nearest folder upwards from the working directory that holds `.git` or `pyproject.toml`; where there
is none, it is the working directory itself. The reference runs that imgbench ships are read from the package, into
which nothing is ever written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "IMGBENCH_BASELINES"
MARKERS: Final = (".git", "pyproject.toml")
REFERENCE: Final = "reference"
SHIPPED: Final = Path(__file__).parents[1] / REFERENCE


def chosen(given: Path | None) -> Path:
    """The store that is `given`, else that of the environment variable IMGBENCH_BASELINES, else the project's own."""
    return given or Path(os.environ.get(VARIABLE) or project_store())


def project_store() -> Path:
    """The folder of baselines of the project that holds the working directory."""
    here = Path.cwd()
    project = next((f for f in (here, *here.parents) if any((f / marker).exists() for marker in MARKERS)), here)
    return project / "baselines"


def reference_folders(root: Path) -> tuple[Path, ...]:
    """The folders with the reference runs of the store `root`: its own, and for a project's own store the shipped."""
    own = root / REFERENCE
    if root.resolve() != project_store().resolve() or own.resolve() == SHIPPED.resolve():
        return (own,)
    return (own, SHIPPED)
