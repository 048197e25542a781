"""Rules for the tests themselves: none imports another one, and each can fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.rglob("*.py"))}
FAILS = {"raises", "warns", "fail"}  # of pytest
FROM_A_TEST = re.compile(r"^\s*(?:from|import) ((?:tests\.)?(?:test_\w+|conftest))\b", re.MULTILINE)


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports, and those that a script in one of its texts does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from FROM_A_TEST.findall(node.value)


def functions(tree: ast.AST) -> dict[str, frozenset[str]]:
    """The functions of a file, and what each of them names; an assertion counts as the name `assert_`."""
    return {node.name: frozenset(named(node)) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def named(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Assert):
            yield "assert_"


def can_fail(name: str, known: Mapping[str, frozenset[str]], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a function asserts something, itself or in one of the functions of `known` that it names."""
    if any(word.startswith("assert_") or word in FAILS for word in known[name]):
        return True
    further = (known[name] & known.keys()) - seen
    return any(can_fail(other, known, seen | further) for other in further)


def test_no_test_imports_another() -> None:
    named = {path.stem for path in TREES if path.parent == FOLDER}
    assert {"conftest", "test_test_files"} <= named
    found = {path.name: sorted({m.split(".")[-1] for m in imported(tree)} & named) for path, tree in TREES.items()}
    assert {name: modules for name, modules in found.items() if modules} == {}


@pytest.mark.parametrize("text", ["from test_a import b", "import test_a", "X = '''\nfrom test_a import b\n'''"])
def test_an_import_is_found_wherever_it_stands(text: str) -> None:
    assert set(imported(ast.parse(text))) == {"test_a"}


def test_every_test_asserts_something() -> None:
    files = {path: functions(tree) for path, tree in TREES.items()}
    shared = {name: names for path, found in files.items() if path.parent != FOLDER for name, names in found.items()}
    idle = []
    for path, found in files.items():
        known = shared | found
        idle += [f"{path.name}: {name}" for name in found if name.startswith("test_") and not can_fail(name, known)]
    assert idle == []


def test_a_test_without_an_assertion_is_found() -> None:
    known = functions(
        ast.parse("def held(x):\n    assert x\ndef test_a():\n    held(1)\ndef test_b():\n    print(1)\n")
    )
    assert [can_fail(name, known) for name in ("test_a", "test_b")] == [True, False]
