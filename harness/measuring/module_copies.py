"""Gives each row its own copy of the networks, so that what a backend does to them affects no other row.

A backend casts and quantises modules in place. A builder may return the same module twice (`functools.cache`, a module
kept in a global); the second row of a process, or its fp32 reference, would then get the modified module. So every row
gets copies whose parameters share the memory of the originals: a cast or a quantisation replaces the parameter in the
copy and leaves the original unchanged.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from harness.measuring.trial import Mismatch
from harness.types import Component

if TYPE_CHECKING:
    import torch

# Layers of modules that cannot be copied, and that a row has therefore used without a copy.
_USED_UNCOPIED: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


class SharedModule(Mismatch):
    """A builder returned the same module a second time. It cannot be copied, and an earlier row may have changed it."""


def private(components: Sequence[Component]) -> tuple[Component, ...]:
    """The components with copies of their modules. Parts that the modules share with each other stay shared.

    A module that cannot be copied is used without a copy, once per process. Raises SharedModule if it, or a part of it,
    is to be used a second time.
    """
    originals = [c.module for c in components]
    try:
        modules = _copies(originals)
    except Exception as error:  # an attribute that cannot be copied may raise anything
        _use_uncopied(components, f"{type(error).__name__}: {error}")
        return tuple(components)
    if why := _not_independent(originals, modules):
        _use_uncopied(components, why)
        return tuple(components)
    return tuple(replace(c, module=module) for c, module in zip(components, modules, strict=True))


def _copies(modules: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    from torch.nn import Parameter

    shared = {p for module in modules for p in module.parameters() if type(p) is Parameter}
    memo: dict[int, Any] = {id(p): Parameter(p.data, requires_grad=p.requires_grad) for p in shared}
    return copy.deepcopy(list(modules), memo)


def _not_independent(originals: Sequence[torch.nn.Module], copies: Sequence[torch.nn.Module]) -> str | None:
    """Why changes to the copies would affect the originals, or why the copies would call them; None if they are
    independent. copy.deepcopy copies neither a function nor the modules in its closure."""
    originals_layers = {id(layer) for module in originals for layer in module.modules()}
    if any(id(layer) in originals_layers for module in copies for layer in module.modules()):
        return "its copy holds a layer of the original"
    reached = (value for module in originals for layer in module.modules() for value in _functions(layer))
    if any(id(held) in originals_layers for function in reached for held in _closed_over(function)):
        return "a function attached to it calls one of the original's layers"
    return None


def _functions(layer: torch.nn.Module) -> Iterator[Any]:
    """The functions attached to a layer: those in its instance attributes, and its hooks."""
    for value in vars(layer).values():
        yield from (one for one in (value.values() if isinstance(value, Mapping) else [value]) if callable(one))


def _closed_over(function: Any) -> Iterator[Any]:
    """The values in a plain function's closure and defaults, and the objects of bound methods among them."""
    held = list(getattr(function, "__defaults__", None) or ())
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            held.append(cell.cell_contents)
    for value in held:
        yield value
        yield getattr(value, "__self__", None)


def _use_uncopied(components: Sequence[Component], why: str) -> None:
    for component in components:
        if any(layer in _USED_UNCOPIED for layer in component.module.modules()):
            raise SharedModule(
                f"the builder returned the network {component.name} ({type(component.module).__name__}), or a layer of "
                f"it, a second time, after a row had changed it, and it cannot be copied ({why}); let the builder make "
                "a new one for every case"
            )
    _USED_UNCOPIED.update(layer for c in components for layer in c.module.modules())
