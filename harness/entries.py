"""What an entry of a registry must have, checked when the entry is added.

demand("backend 'mine'", entry, {"label": LINE, "build": FUNCTION})
# BadEntry: backend 'mine': 'build' is missing; it must be a function
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.quoting import quoted
from harness.reasons import Reason, ReasonedError

BREAKING: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories that would break a line of a table
_ABSENT: Final = object()


class BadEntry(ReasonedError, ValueError):
    """An entry of a registry, or what it gives when it is used, does not fit the harness; `str()` is one line for the
    user."""


@dataclass(frozen=True)
class Rule:
    """`holds(value)` says whether a field is valid; `words` complete "it must be ..."."""

    holds: Callable[[Any], bool]
    words: str


def is_line(value: Any) -> bool:
    """Whether a value is text that stays on one line of a table."""
    return isinstance(value, str) and bool(value) and not any(unicodedata.category(c) in BREAKING for c in value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def one_of(*values: Any) -> Rule:
    """A field with one of these values; None among them is worded as None."""
    *others, last = [repr(value) for value in values]
    return Rule(lambda value: any(value is v or value == v for v in values), f"{', '.join(others)} or {last}")


def instance_of(kind: type) -> Rule:
    return Rule(lambda value: isinstance(value, kind), f"a {kind.__module__}.{kind.__qualname__}")


def optional(rule: Rule) -> Rule:
    """A field that may also be None."""
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.words}, or None")


def _is_group(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes) and all(map(holds, value))


LINE: Final = Rule(is_line, "text on one line")
TEXT: Final = Rule(lambda value: isinstance(value, str), "text")
FUNCTION: Final = Rule(callable, "a function")
NAMES: Final = Rule(lambda value: _is_group(value, is_line), "a tuple of names")
NUMBER: Final = Rule(is_number, "a number")
POSITIVE: Final = Rule(lambda value: is_number(value) and value > 0, "a number above 0")
BOOLEAN: Final = one_of(True, False)
MAPPING: Final = Rule(lambda value: isinstance(value, Mapping), "a mapping")
REASON: Final = Rule(lambda value: isinstance(value, Reason | str), "a harness.reasons.Reason or text")


def demand(subject: str, entry: Any, needed: Mapping[str, Rule], may: Mapping[str, Rule] | None = None) -> None:
    """Raises BadEntry, which begins with `subject`, for the first field of `entry` that is missing or not valid. The
    fields of `may` are checked where they are there."""
    for name, rule in needed.items():
        value = getattr(entry, name, _ABSENT)
        if value is _ABSENT:
            raise BadEntry(f"{subject}: {name!r} is missing; it must be {rule.words}")
        _check(subject, name, value, rule)
    for name, rule in (may or {}).items():
        if (value := getattr(entry, name, _ABSENT)) is not _ABSENT:
            _check(subject, name, value, rule)


def demand_kind(subject: str, entry: Any, kind: type) -> None:
    """Raises BadEntry where the entry is no record of `kind`."""
    if not isinstance(entry, kind):
        what = f"{kind.__module__}.{kind.__qualname__}"
        raise BadEntry(f"{subject}: the entry must be a {what}, not {quoted(entry)}")


def demand_name(subject: str, entry: Any, name: str) -> None:
    """Raises BadEntry where the record has another name than the one under which it is registered."""
    if entry.name != name:
        raise BadEntry(f"{subject}: the record has the name {quoted(entry.name)}; the two must be equal")


def _check(subject: str, name: str, value: Any, rule: Rule) -> None:
    if not rule.holds(value):
        raise BadEntry(f"{subject}: {name}: {quoted(value)} must be {rule.words}")
