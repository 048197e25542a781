"""Registries refuse an entry that the harness cannot use when it is added, in one plain line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import benches
from benches.failures import UsageError
from harness import records
from harness.registry import BadEntry
from harness.types import Metric

METRIC: dict[str, Any] = {
    "name": "foo_s", "unit": "s", "label": "Foo", "better": "lower", "kind": "noisy", "description": "d",
}  # fmt: skip


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Loads a plugin of this text, which must be refused, and gives what is said after the plugin's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    number = iter(range(100))

    def refused(text: str) -> str:
        path = tmp_path / f"bad_entry_{tmp_path.name}_{next(number)}.py"
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            benches.load_plugins(str(path))
        said = str(caught.value)
        assert said.startswith(f"plugin {path}: ")
        assert "\n" not in said
        return said.removeprefix(f"plugin {path}: ")

    return refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "fuzzy", "metric 'foo_s': kind: 'fuzzy' must be 'noisy', 'exact', "),
        ("better", "faster", "metric 'foo_s': better: 'faster' must be 'lower', 'higher' or None"),
        ("summary", "total", "metric 'foo_s': summary: 'total' must be 'median', 'mean', 'max' or 'last'"),
        ("unit", None, "metric 'foo_s': unit: None must be text"),
        ("name", "two\nlines", r"metric 'two\nlines': name: 'two\nlines' must be text on one line"),
    ],
)
def test_a_metric_that_nothing_can_show_or_compare_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(BadEntry) as caught:
        Metric(**METRIC | {field: value})
    assert str(caught.value).startswith(message)
    with pytest.raises(ValueError, match=field):
        records.metrics_from_dict({"foo_s": METRIC | {field: value}})


def test_a_metric_of_an_undeclared_kind_is_refused_before_anything_is_measured(refusal: Callable[[str], str]) -> None:
    said = refusal(
        "from harness.types import Metric\n"
        "Metric(name='foo', unit='s', label='L', better='lower', kind='fuzzy', description='d')\n"
    )
    assert said.startswith("metric 'foo': kind: 'fuzzy' must be ")
