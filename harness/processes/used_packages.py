"""Which packages of the project under test the measured work used, as far as this is visible without tracing.

Every plugin is imported, with all that it imports, whether or not the suite uses it. So the imports of a plugin count
only for a row that uses something from that plugin: its model, backend, scheduler or optimisation. Other imports (a
model's library, or an import while the row was measured) were caused by the row, and count. A plugin that changes other
modules when it is imported, and registers nothing, cannot be distinguished from one that does nothing.
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

    `classes` are the packages of the layers' classes. `before` are the modules that were imported before the
    measurement, in the order of their import. `plugins` are the modules that filled the registries, including those of
    imgbench.
    """
    registered = _registered_modules(case)
    used_modules = [*registered, *classes, *(set(sys.modules) - set(before))]
    importers = _importers(plugins, before)
    plugins_used = {importers.get(module) for module in registered}

    def used(package: str) -> bool:
        if any(_is_of(package, name) for name in used_modules):
            return True
        return any(by is None or by in plugins_used for name, by in importers.items() if _is_of(package, name))

    return imported_code([package for package in packages if used(package)])


def _registered_modules(case: Case) -> list[str]:
    """The modules that define this case's entries in the registries."""
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


def _importers(plugins: Sequence[str], before: Sequence[str]) -> Mapping[str, str | None]:
    """Module -> the top package of the plugin that imported it; None if it was imported before all plugins."""
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
