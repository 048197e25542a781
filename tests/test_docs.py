"""The documentation cannot drift: every command, model, backend and metric is in the README, and its examples run."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from benches.cli import parser
from harness.registry import BACKENDS, MODELS, SCHEDULERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    action = next(a for a in parser()._actions if a.dest == "command")
    return list(action.choices or ())


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_and_is_in_the_readme(command: str) -> None:
    assert f"imgbench {command}" in README
    assert command in parser().format_help()


def test_every_registered_name_is_in_the_readme() -> None:
    names = [n for n in (*MODELS, *BACKENDS, *SCHEDULERS) if not n.startswith("planted")]
    assert [n for n in names if f"`{n}`" not in README] == []


def test_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"\]\((?!http|#)([^)#]+)\)", README)
    assert [n for n in named if not (ROOT / n).exists()] == []
    assert named


@pytest.mark.parametrize(
    "module",
    [
        "harness.types",
        "harness.labels",
        "harness.units",
        "harness.timing",
        "harness.reasons",
        "harness.stats",
        "harness.processes.threads",
    ],
)
def test_docstring_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


def test_no_python_file_says_nothing_by_its_name() -> None:
    """A file holds one idea, whatever its length."""
    files = [p for room in ("benches", "harness", "baselines", "reports") for p in (ROOT / room).rglob("*.py")]
    assert [str(p) for p in files if p.stem in {"utils", "util", "helpers", "common", "misc"}] == []
