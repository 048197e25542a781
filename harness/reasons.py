"""Why something is as it is, as a value: a kind, by which code decides, and the data of which its sentence is made.

    Reason("contended_steal", {"share": 0.34})
    str(reason)                              # "contended: the hypervisor took 34 % of a core during the measurement"

A package declares its kinds, each with its sentence, in one file (`sentences`). Code never decides by a sentence: a
test replaces all of them, and no verdict, exit code or stored state changes. Text from outside (an exception, a plugin,
a run that an older version stored) becomes the data of a reason, whose sentence is the text itself. Its kind is STATED,
whatever it says, so that no code decides by it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

Sentence = Callable[..., str]

STATED: Final = "stated"  # the kind of a reason of which only the text is known, and the key of that text
SENTENCES: Final[dict[str, Sentence]] = {}
NAMES: Final[dict[str, str]] = {}  # of kinds whose short name is not the kind itself with spaces
NOT_FINITE: Final = "not_finite"  # the key of a number that JSON cannot write
_OWN_NAME: Final = re.compile(r"([a-z][a-z0-9 _-]{0,39}): ", re.IGNORECASE)  # at the start of a text


@dataclass(frozen=True)
class Reason:
    """A kind and its data (JSON values, or further reasons). `str()` is the sentence for people.

    Data with the key "stated" hold the sentence itself: an older version stored the reason as text."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.kind)

    def __str__(self) -> str:
        if STATED in self.data:
            return str(self.data[STATED])
        if sentence := SENTENCES.get(self.kind):
            with suppress(TypeError, ValueError, LookupError, ArithmeticError, AttributeError):  # other data
                return sentence(**self.data)
        told = ", ".join(f"{name} {value}" for name, value in self.data.items())
        return f"{self.kind.replace('_', ' ')}{f' ({told})' if told else ''}"

    @property
    def name(self) -> str:
        """The short name of a warning, which a row shows after its status: "contended", "partly quantised". Of a
        plugin's text it is what stands before the first ": ", unless a declared kind has that name."""
        return _stated_name(str(self)) if self.kind == STATED else _name(self.kind)

    @property
    def detail(self) -> str:
        """The sentence without the short name before it."""
        return str(self).removeprefix(f"{self.name}: ")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "data": {name: _plain(value) for name, value in self.data.items()}}


class ReasonedError(Exception):
    """An error that holds its reason as a value; `str()` is the sentence. A plugin may give text."""

    def __init__(self, reason: Reason | str) -> None:
        super().__init__(str(reason))
        self.reason = of(reason)

    def __reduce__(self) -> tuple[type[ReasonedError], tuple[Reason]]:
        """An error that another process raised keeps its reason."""
        return type(self), (self.reason,)


def _name(kind: str) -> str:
    return NAMES.get(kind, kind.replace("_", " "))


def _stated_name(text: str) -> str:
    named = _OWN_NAME.match(text)
    return named[1] if named and named[1].lower() not in map(_name, SENTENCES) else text


def stated(text: str, kind: str = STATED) -> Reason:
    """The reason of which only the text is known: an exception's, a plugin's, an older version's."""
    return Reason(kind, {STATED: text})


def of(given: Reason | str) -> Reason:
    """A reason as it is; a plugin may give text instead, which no code decides by.

    >>> of("my queue: it was long").kind, of("my queue: it was long").name, of("contended: it was long").name
    ('stated', 'my queue', 'contended: it was long')
    """
    return given if isinstance(given, Reason) else stated(given)


def from_json(value: Any) -> Reason:
    """The reason that `Reason.to_json` wrote. Raises ValueError where it is none."""
    if not _is_reason(value):
        raise ValueError(f"{value!r} is not a reason (a mapping of kind and data)")
    return Reason(value["kind"], {name: _value(each) for name, each in value["data"].items()})


def sentences(given: Mapping[str, Sentence], name: str | None = None) -> None:
    """Declares kinds with their sentences, and the short name that they share if it is not the kind itself. Raises
    ValueError where a kind is declared twice."""
    if twice := sorted(SENTENCES.keys() & given.keys()):
        raise ValueError(f"the reason {twice[0]!r} is declared twice")
    SENTENCES.update(given)
    if name is not None:
        NAMES.update(dict.fromkeys(given, name))


def _is_reason(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {"kind", "data"}
        and isinstance(value["kind"], str)
        and isinstance(value["data"], Mapping)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Reason):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {NOT_FINITE: str(value)}
    return value


def _value(value: Any) -> Any:
    if _is_reason(value):
        return from_json(value)
    if isinstance(value, Mapping) and value.keys() == {NOT_FINITE}:
        return float(value[NOT_FINITE])
    return [_value(each) for each in value] if isinstance(value, list) else value
