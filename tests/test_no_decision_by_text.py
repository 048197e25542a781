"""No code decides by the text of an error or of a reason: causes, reasons and warnings are values.

The texts of other libraries are read in the places of NAMED, each for one purpose, because those libraries give no
value.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parents[1]
PACKAGES = ("harness", "baselines", "reports", "benches")
# File -> the function that reads a text, and whose text it is.
NAMED = {
    "harness/causes.py": {"of_error"},  # the operating system's, where an error has no errno
    "harness/measuring/out_of_memory.py": {"is_out_of_memory"},  # torch's, ONNX Runtime's and TensorRT's
    "harness/numerics/optimizations.py": {"kernels_or_unavailable"},  # torch's, of attention kernels
    "harness/backends/onnx/export.py": {"_write"},  # torch.export's, of constant dimensions
    "harness/devices/nvml_calls.py": {"failure"},  # nvidia-ml-py's, of an error without a name
}
# Names that hold an error, a reason or a warning.
HOLDERS = {"error", "each", "reason", "refused", "raised", "warning", "note", "exception", "e", "contention", "cause"}
TESTS = {"startswith", "endswith", "find", "index", "count", "partition", "rpartition", "removeprefix", "removesuffix"}
PATTERNS = {"search", "match", "fullmatch", "findall", "finditer"}


def is_text(node: ast.AST, texts: set[str]) -> bool:
    """Whether an expression is the text of a reason or an error, perhaps in other case or without white space."""
    if isinstance(node, ast.Name):
        return node.id in texts
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        held = node.args[0]
        name = held.id if isinstance(held, ast.Name) else held.attr if isinstance(held, ast.Attribute) else ""
        return name in HOLDERS
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"lower", "strip"}:
        return is_text(node.func.value, texts)
    return False


def decisions(function: ast.AST) -> Iterator[int]:
    """The lines in which a function compares or searches such a text."""
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign) and is_text(node.value, set())]
    texts = {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and any(is_text(each, texts) for each in (node.left, *node.comparators)):
            yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in TESTS and is_text(node.func.value, texts):
                yield node.lineno
            if node.func.attr in PATTERNS and any(is_text(each, texts) for each in node.args):
                yield node.lineno


def found(source: str) -> Iterator[tuple[str, int]]:
    """(function, line) of every such decision."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ((node.name, line) for line in decisions(node))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_decides_by_the_text_of_an_error_or_a_reason(package: str) -> None:
    read: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        place = str(path.relative_to(ROOT))
        for function, line in found(path.read_text(encoding="utf-8")):
            assert function in NAMED.get(place, set()), f"{place}:{line}: {function} decides by a text"
            read.setdefault(place, set()).add(function)
    assert read == {place: functions for place, functions in NAMED.items() if place.startswith(f"{package}/")}


@pytest.mark.parametrize(
    "line",
    [
        'return "memory" in str(error)',
        'return str(row.reason).startswith("contended")',
        "return str(error).lower() == 'busy'",
        'text = str(reason)\n    return text.partition(": ")[0]',
        "return re.search('busy', str(warning))",
    ],
)
def test_a_decision_by_a_text_is_found(line: str) -> None:
    assert [name for name, _ in found(f"def f(error):\n    {line}\n")] == ["f"]


def test_a_text_that_is_only_shown_is_no_decision() -> None:
    assert list(found("def f(error):\n    return ' '.join(str(error).split())[:80]\n")) == []
