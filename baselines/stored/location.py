"""The location of baselines: the folder `baselines` of the measured project, or a folder that the user chooses.

The project is the nearest parent folder of the working directory, or the directory itself, with `.git` or
`pyproject.toml`; without one, it is the working directory. The shipped reference runs are read from the package, to
which nothing is written.
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
    """The store `given`, otherwise that of the variable IMGBENCH_BASELINES, otherwise that of the project."""
    return given or Path(os.environ.get(VARIABLE) or project_store())


def project_store() -> Path:
    """The folder of baselines of the project of the working directory."""
    here = Path.cwd()
    project = next((f for f in (here, *here.parents) if any((f / marker).exists() for marker in MARKERS)), here)
    return project / "baselines"


def reference_folders(root: Path) -> tuple[Path, ...]:
    """The folders of reference runs of the store `root`: its own, and the shipped one for the project's store."""
    own = root / REFERENCE
    if root.resolve() != project_store().resolve() or own.resolve() == SHIPPED.resolve():
        return (own,)
    return (own, SHIPPED)
