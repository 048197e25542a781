"""Why something is as it is, as a value: a kind, by which code decides, and the data of which its sentence is made.

    Reason("contended_cpu", {"share": 0.34})
    str(reason)                              # "contended: other processes used 34 % of a core"

A room declares its kinds, each with its sentence, in one file (`sentences`). Nothing decides by a sentence: a test
replaces every one of them and no verdict, exit code or stored state changes. Text from outside (an exception, a plugin,
a run that an older version stored) is data of a kind: its sentence is the text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Sentence = Callable[..., str]

STATED: Final = "stated"  # the kind of a reason of which only the text is known, and the key of that text
SENTENCES: Final[dict[str, Sentence]] = {}


@dataclass(frozen=True)
class Reason:
    """A kind and its data (JSON values, or further reasons). `str()` is the sentence for people.

    Data with the key "stated" hold the sentence itself: an older version stored the reason as text."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if STATED in self.data:
            return str(self.data[STATED])
        sentence = SENTENCES.get(self.kind)
        if sentence is None:  # stored by a newer version, or by a plugin that is not loaded
            told = ", ".join(f"{name} {value}" for name, value in self.data.items())
            return f"{self.kind.replace('_', ' ')}{f' ({told})' if told else ''}"
        return sentence(**self.data)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "data": {name: _plain(value) for name, value in self.data.items()}}


def stated(text: str, kind: str = STATED) -> Reason:
    """The reason of which only the text is known: an exception's, a plugin's, an older version's."""
    return Reason(kind, {STATED: text})


def of(given: Reason | str) -> Reason:
    """A reason as it is; a plugin may give text instead."""
    return given if isinstance(given, Reason) else stated(given)


def from_json(value: Any) -> Reason:
    """The reason that `Reason.to_json` wrote. Raises ValueError where it is none."""
    if not _is_reason(value):
        raise ValueError(f"{value!r} is no reason: a mapping of kind and data")
    return Reason(value["kind"], {name: _value(each) for name, each in value["data"].items()})


def sentences(given: Mapping[str, Sentence]) -> None:
    """Declares kinds with their sentences. Raises ValueError where a kind is declared twice."""
    if twice := sorted(SENTENCES.keys() & given.keys()):
        raise ValueError(f"the reason {twice[0]!r} is declared twice")
    SENTENCES.update(given)


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
    return value


def _value(value: Any) -> Any:
    if _is_reason(value):
        return from_json(value)
    return [_value(each) for each in value] if isinstance(value, list) else value
