"""A row's own networks: what a backend does to them reaches no other row.

A backend casts and quantises modules in place. A builder may give the same module twice (`functools.cache`, a module
kept in a global), and then the second row of a process, or its fp32 reference, would be made of what the first one
left. So every row gets copies whose parameters share the memory of the originals: a cast or a quantised layer puts
another parameter into the copy and leaves the original as it is.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from harness.trial import Mismatch
from harness.types import Component

if TYPE_CHECKING:
    import torch

# Modules that cannot be copied and were given to a row as they are.
_TAKEN: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


class SharedModule(Mismatch):
    """A builder gave a module again that cannot be copied and that an earlier row may have changed."""


def private(components: Sequence[Component]) -> tuple[Component, ...]:
    """The components with modules of their own; what they share among each other they still share.

    A module that cannot be copied is given as it is, once in a process. Raises SharedModule for the second time.
    """
    try:
        modules = _copies([c.module for c in components])
    except Exception as error:  # whatever an attribute of a module raises that does not let itself be copied
        _take(components, error)
        return tuple(components)
    return tuple(replace(c, module=module) for c, module in zip(components, modules, strict=True))


def _copies(modules: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    from torch.nn import Parameter

    shared = {p for module in modules for p in module.parameters() if type(p) is Parameter}
    memo: dict[int, Any] = {id(p): Parameter(p.data, requires_grad=p.requires_grad) for p in shared}
    return copy.deepcopy(list(modules), memo)


def _take(components: Sequence[Component], error: Exception) -> None:
    for component in components:
        if component.module in _TAKEN:
            raise SharedModule(
                f"the builder gave the network {component.name} ({type(component.module).__name__}) a second time, "
                f"after a row had changed it, and it cannot be copied ({type(error).__name__}: {error}); let the "
                "builder make a new one for every case"
            )
    _TAKEN.update(c.module for c in components)
