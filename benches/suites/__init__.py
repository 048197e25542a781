"""The built-in suites: one YAML file each in this folder, found by its name."""

from __future__ import annotations

from pathlib import Path

from harness import strict_yaml, suite
from harness.registry import nearest
from harness.types import Suite

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the built-in suites, the default one first."""
    found = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(found, key=lambda name: name != "digits")


def find(name: str) -> Suite:
    """The built-in suite of that name, or the suite in the file of that path. Raises SuiteError."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or "/" in name or path.is_file():
        return suite.read(path)
    if name in names():
        return suite.read(FOLDER / f"{name}.yaml", strict_yaml.load_shipped)
    raise suite.SuiteError(f"unknown suite {name!r}; {nearest(name, names())} (a file's name ends in .yaml)")
