"""Names -> things. A registry says what it holds, and answers a typo with the nearest name.

@BACKENDS.add("eager")
class Eager: ...

MODELS["digits_vti"]   # UnknownName: unknown model 'digits_vti'; did you mean 'digits_vit'?
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from harness.types import Model

T = TypeVar("T")


class UnknownName(KeyError):
    """A name that a registry does not hold; `str()` is one line for the user, with the nearest name."""

    def __str__(self) -> str:
        return str(self.args[0])


class DuplicateName(ValueError):
    """Two things were registered under one name."""


def nearest(name: object, known: list[str]) -> str:
    """ "; did you mean 'x'?" for a near miss, else the list of known names."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


class Registry(Mapping[str, T], Generic[T]):
    """An insertion-ordered mapping that is filled by decorators and refuses duplicates."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        if name in self._entries:
            raise DuplicateName(f"{self.noun} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def add(self, name: str) -> Callable[[Any], Any]:
        """Class decorator: registers one instance under `name`. Function decorator: registers the function."""

        def decorate(thing: Any) -> Any:
            self.register(name, thing() if isinstance(thing, type) else thing)
            return thing

        return decorate

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise UnknownName(f"unknown {self.noun} {name!r}; {nearest(name, list(self._entries))}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class ModelRegistry(Registry[Model]):
    """Models by name: `@MODELS.add("name", family=..., axes=...)` on a function Case -> Workload."""

    def add(self, name: str, **description: Any) -> Callable[[Any], Any]:
        def decorate(build: Any) -> Any:
            self.register(name, Model(name=name, build=build, **description))
            return build

        return decorate


MODELS = ModelRegistry("model")
SCHEDULERS: Registry[Any] = Registry("scheduler")
BACKENDS: Registry[Any] = Registry("backend")
PROBES: Registry[Any] = Registry("probe")
