"""Which packages of the project under test the measured work used, as far as a process can tell without tracing.

A plugin is imported whatever the suite measures, and with it all that it imports. So what a plugin brought in counts
where the row uses something of that plugin: its model, backend, scheduler or optimisation. Other imports (a model's
library, an import while the row was measured) were caused by the row, and count. A plugin that changes other modules
when it is imported and registers nothing cannot be distinguished from one that does nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.numerics.optimizations import names
from harness.processes.loaded_code import imported_code
from harness.registry import BACKENDS, MODELS, OPTIMIZATIONS, PRECISIONS, SCHEDULERS
from harness.types import Case, Component


def packages_of(components: Sequence[Component]) -> list[str]:
    """The top packages that the classes of all layers come from, sorted: ["timm", "torch"]."""
    layers = (layer for component in components for layer in component.module.modules())
    return sorted({type(layer).__module__.split(".")[0] for layer in layers})


def used_packages(
    case: Case, classes: Iterable[str], packages: Sequence[str], plugins: Sequence[str], before: Sequence[str]
) -> dict[str, str]:
    """Those of `packages` that measuring `case` used: name -> file or folder.

    `classes` are the packages of the layers' classes, `before` the modules that there were when it began, in the order
    of their import, and `plugins` the modules that filled the registries, those of imgbench too.
    """
    makers = _makers(case)
    named = [*makers, *classes, *(set(sys.modules) - set(before))]
    brought = _brought_by(plugins, before)
    plugins_used = {brought.get(module) for module in makers}

    def used(package: str) -> bool:
        if any(_is_of(package, name) for name in named):
            return True
        return any(by is None or by in plugins_used for name, by in brought.items() if _is_of(package, name))

    return imported_code([package for package in packages if used(package)])


def _makers(case: Case) -> list[str]:
    """The modules of what the registries have for this case."""
    solver = SCHEDULERS.get(case.scheduler or "")
    changes = [OPTIMIZATIONS.get(name) for name in names(case)]
    entries: list[Any] = [getattr(MODELS.get(case.model), "build", None), BACKENDS.get(case.backend), solver]
    entries += [getattr(solver, "evaluations", None)]
    precision = PRECISIONS.get(case.precision)
    entries += [getattr(precision and precision.quantiser, "quantise", None)]
    entries += [function for each in changes if each is not None for function in (each.change, each.attention)]
    return [_module(entry) for entry in entries if entry is not None]


def _module(entry: Any) -> str:
    while isinstance(entry, functools.partial):
        entry = entry.func
    return str(getattr(entry, "__module__", None) or type(entry).__module__)


def _brought_by(plugins: Sequence[str], before: Sequence[str]) -> Mapping[str, str | None]:
    """Module -> the top package of the plugin that it was imported by, None where it was there before all of them."""
    tops = dict.fromkeys(plugin.split(".")[0] for plugin in plugins)
    found: dict[str, str | None] = {}
    current = None
    for name in before:
        top = name.split(".")[0]
        current = top if top in tops else current
        found[name] = current
    return found


def _is_of(package: str, module: str) -> bool:
    return module == package or module.startswith(f"{package}.")
