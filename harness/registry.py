"""Registries: mappings from names to models, backends and the like. An unknown name is refused with the nearest one.

@BACKENDS.add("eager")
class Eager: ...

MODELS["digits_vti"]   # UnknownName: unknown model 'digits_vti'; did you mean 'digits_vit'?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar

from harness import entries
from harness.entries import BadEntry, is_line
from harness.quoting import quoted
from harness.types import AXES, Case, Component, Model, Quality, Workload

T = TypeVar("T")
Check = Callable[[str, str, Any], None]  # (noun and name, name, entry); raises BadEntry


class UnknownName(KeyError):
    """A name that a registry does not hold; `str()` is one line for the user, with the nearest name."""

    def __str__(self) -> str:
        return str(self.args[0])


class DuplicateName(ValueError):
    """A name was registered twice."""


def nearest(name: object, known: list[str]) -> str:
    """ "; did you mean 'x'?" for a near miss, else the list of known names."""
    import difflib  # only an error needs it

    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


class Registry(Mapping[str, T], Generic[T]):
    """An insertion-ordered mapping that is filled by decorators and refuses duplicates, and entries that do not fit."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}
        self._check: Check | None = None

    def checked_by(self, check: Check) -> Check:
        """Decorator of the function that checks each entry, in the file that says what an entry is. It gets the noun
        with the name, for its message, and raises BadEntry."""
        self._check = check
        for name, entry in self._entries.items():
            check(f"{self.noun} {quoted(name)}", name, entry)
        return check

    def register(self, name: str, entry: T) -> T:
        """Adds `entry`. Raises DuplicateName, and BadEntry for an entry that the harness cannot use."""
        if not is_line(name):
            article = "an" if self.noun[0] in "aeio" else "a"
            raise BadEntry(f"{article} {self.noun}'s name must be text on one line, not {quoted(name)}")
        if name in self._entries:
            raise DuplicateName(f"{self.noun} {name!r} is registered twice")
        if self._check is not None:
            self._check(f"{self.noun} {quoted(name)}", name, entry)
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
            near = nearest(name, list(self._entries))
            raise UnknownName(f"unknown {self.noun} {quoted(name)}; {near}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class ModelRegistry(Registry[Model]):
    """Models by name: `@MODELS.add("name", family=..., axes=...)` on a function Case -> Workload."""

    def add(self, name: str, **description: Any) -> Callable[[Any], Any]:
        """Registers the decorated function. Raises BadEntry if a suite cannot use the description."""

        def decorate(build: Any) -> Any:
            _check(name, description)
            self.register(name, Model(name=name, build=build, **description))
            return build

        return decorate


def _check(name: Any, description: Mapping[str, Any]) -> None:
    if not is_line(name):
        raise BadEntry(f"a model's name must be text on one line, not {name!r}")
    wanted = {f.name: f for f in fields(Model) if f.name not in {"name", "build"}}
    if unknown := sorted(set(description) - set(wanted)):
        raise BadEntry(f"model {name!r}: unknown field {unknown[0]!r}; {nearest(unknown[0], list(wanted))}")
    required = [n for n, f in wanted.items() if f.default is MISSING and f.default_factory is MISSING]
    if absent := [field for field in required if field not in description]:
        raise BadEntry(f"model {name!r}: {absent[0]!r} is missing; a model needs {', '.join(required)}")
    axes, weights = description["axes"], description.get("weights", ("random",))
    if not isinstance(axes, Mapping):
        raise BadEntry(f"model {name!r}: axes: {axes!r} must be a mapping of axes to their defaults")
    if foreign := [axis for axis in axes if axis not in AXES or axis == "model"]:
        raise BadEntry(
            f"model {name!r}: axes: {foreign[0]!r} is not an axis of imgbench; a model may have {', '.join(AXES[1:])}. "
            "Register one model for each value of another axis"
        )
    if not isinstance(weights, tuple | list) or not weights or not all(isinstance(w, str) and w for w in weights):
        raise BadEntry(f"model {name!r}: weights: {weights!r} must be a tuple of keywords, the default first")
    for field in ("image_size_multiple", "max_image_size"):
        value = description.get(field, 1)
        if value is not None and not (type(value) is int and value >= 1):
            raise BadEntry(f"model {name!r}: {field}: {value!r} must be a whole number of 1 or more")


def _are_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(entries.is_number, value.values()))


WORKLOAD_FIELDS: Mapping[str, entries.Rule] = {
    "components": entries.Rule(
        lambda value: isinstance(value, tuple) and len(value) > 0 and all(isinstance(c, Component) for c in value),
        "a tuple of one or more harness.types.Component",
    ),
    "iterate": entries.FUNCTION,
    "output_shape": entries.Rule(
        lambda value: isinstance(value, tuple) and all(type(n) is int for n in value), "a tuple of whole numbers"
    ),
    "identity": entries.Rule(
        lambda value: isinstance(value, Mapping) and _are_counts(value.get("parameters", {})),
        "a mapping, whose parameters, if given, are a mapping of component names to counts",
    ),
    "output_kind": entries.one_of("logits", "features", "images"),
    "quality": entries.optional(entries.instance_of(Quality)),
    "warnings": entries.Rule(lambda value: isinstance(value, tuple), "a tuple of warnings"),
}


def built(case: Case) -> Workload:
    """The workload that the case's model builds. Raises BadEntry if it builds none, or one that cannot be measured."""
    workload = MODELS[case.model].build(case)
    if not isinstance(workload, Workload):
        what = "None" if workload is None else f"an object of the type {type(workload).__name__}"
        raise BadEntry(
            f"the build function of the model {case.model!r} returns {what} instead of a harness.types.Workload "
            "(benches.models.workloads.classifier_workload makes one of a classifier)"
        )
    subject = f"the workload of the model {case.model!r}"
    entries.demand(subject, workload, WORKLOAD_FIELDS)
    names = [component.name for component in workload.components]
    if len({*names}) < len(names):
        raise BadEntry(f"{subject}: two components have the same name: {', '.join(names)}")
    return workload


MODELS = ModelRegistry("model")
MODEL_FIELDS: Mapping[str, entries.Rule] = {
    "build": entries.FUNCTION,
    "family": entries.LINE,
    "description": entries.LINE,
    "libraries": entries.optional(entries.NAMES),
    "folder_axes": entries.optional(entries.FUNCTION),
    "parameters": entries.optional(entries.NUMBER),
    "unguided_up_to": entries.optional(entries.NUMBER),
}


@MODELS.checked_by
def _check_model(subject: str, name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Model)
    entries.demand_name(subject, entry, name)
    entries.demand(subject, entry, MODEL_FIELDS)


PRECISIONS: Registry[Any] = Registry("precision")
OPTIMIZATIONS: Registry[Any] = Registry("optimisation")
DEVICES: Registry[Any] = Registry("device")
GPUS: Registry[Any] = Registry("GPU")
SCHEDULERS: Registry[Any] = Registry("scheduler")
BACKENDS: Registry[Any] = Registry("backend")
PROBES: Registry[Any] = Registry("probe")
