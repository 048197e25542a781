"""The documentation cannot drift: every command, model and backend is in it, and every command that it shows exists."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from benches.cli import parser
from harness.registry import BACKENDS, MODELS, SCHEDULERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```$|^\n((?:    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    action = next(a for a in parser()._actions if a.dest == "command")
    return list(action.choices or ())


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_and_is_in_the_readme(command: str) -> None:
    assert f"imgbench {command}" in README
    assert command in parser().format_help()


def shown(program: str) -> Iterator[str]:
    """The arguments of each call of `program` in the documentation: a line of a code block, or a span of code."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\|", "|")
        blocks = "\n".join(fenced or indented for fenced, indented in CODE_BLOCK.findall(text)).replace("\\\n", " ")
        yield from re.findall(rf"^ *{program} (.+)$", blocks, re.MULTILINE)
        yield from re.findall(rf"`{program} ([^`\n]+)`", text)


def written_out(arguments: str) -> Iterator[list[str]]:
    """The calls that a line of the documentation stands for: `a|b` is either, and `...` is whatever comes."""
    words = [word for word in shlex.split(arguments, comments=True) if word != "..."]
    if arguments.split("#")[0].rstrip().endswith("..."):
        words.append("whatever")
    yield from map(list, product(*(word.split("|") for word in words)))


def test_every_command_that_is_shown_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    calls = [call for arguments in shown("imgbench") for call in written_out(arguments)]
    assert len(calls) > 20
    refused = {}
    for call in (call for call in calls if call not in [[name] for name in commands()]):  # a mere name is no call
        try:
            parser().parse_args(call)
        except SystemExit as ended:
            if ended.code:
                refused[" ".join(call)] = capsys.readouterr().err
    assert refused == {}


def test_every_target_that_is_shown_is_in_the_makefile() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {word for arguments in shown("make") for word in arguments.split("#")[0].split() if "=" not in word}
    assert named
    assert named - set(targets) == set()


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
