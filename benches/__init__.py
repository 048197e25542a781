"""What is measured: suites and models; and the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

PLUGINS = ("harness.backends", "harness.probes", "benches.schedulers", "benches.models")
SUFFIX = ".py"


def load_plugins(*further: str) -> None:
    """Fills the registries of models, pipelines, schedulers, devices, precisions, optimisations, backends and probes.
    This imports no large library.

    `further` are the user's own modules, by name (searched in the working directory first) or by file path. Raises
    UsageError for one that cannot be imported, and for entries that do not fit.
    """
    from benches.failures import UsageError

    for module in PLUGINS:
        importlib.import_module(module)
    if further and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    for plugin in further:
        _load(plugin)
    if further and (fault := _fault()):
        raise UsageError(f"plugin {', '.join(further)}: {fault}")


def _fault() -> str | None:
    """Why the entries of all plugins do not fit together, or None."""
    from harness.derived import DERIVED
    from harness.registry import BACKENDS, OPTIMIZATIONS, PROBES

    derived = {entry.metric.name for entry in DERIVED}
    for probe in PROBES.values():
        if taken := next((metric.name for metric in probe.metrics if metric.name in derived), None):
            return f"probe {probe.name!r}: imgbench derives the metric {taken!r} from others"
    for name, entry in OPTIMIZATIONS.items():
        if entry.needs is not None and not any(entry.needs in getattr(b, "features", ()) for b in BACKENDS.values()):
            return f"optimisation {name!r}: no backend declares the feature {entry.needs!r}, which it needs"
    return None


def in_full(plugin: str) -> str:
    """A plugin's module name, or the absolute path of its file: valid in every working directory."""
    return os.path.abspath(Path(plugin).expanduser()) if _is_file(plugin) else plugin  # noqa: PTH100


def modules(plugins: Iterable[str]) -> tuple[str, ...]:
    """The names by which worker processes import these plugins."""
    return tuple(Path(plugin).stem if _is_file(plugin) else plugin for plugin in plugins)


def folders(plugins: Iterable[str]) -> tuple[str, ...]:
    """The folders in which plugins given by file path are searched, besides the working directory."""
    return tuple(dict.fromkeys(str(Path(in_full(plugin)).parent) for plugin in plugins if _is_file(plugin)))


def _is_file(plugin: str) -> bool:
    return plugin.endswith(SUFFIX) or os.sep in plugin


def _load(plugin: str) -> None:
    from benches.failures import UsageError
    from harness.causes import one_line
    from harness.entries import BadEntry
    from harness.registry import DuplicateName

    def said(error: BaseException) -> str:
        """The error in one line; one of imgbench's own registries is a whole sentence."""
        return str(error) if isinstance(error, BadEntry | DuplicateName) else one_line(error)

    if not _is_file(plugin):
        try:
            importlib.import_module(plugin)
        except (Exception, SystemExit) as error:  # whatever somebody else's module does when it is imported
            hint = ""
            if isinstance(error, ModuleNotFoundError) and error.name == plugin.partition(".")[0]:
                hint = "; a file may be given by its path: --plugin ./my_models.py"
            raise UsageError(f"plugin {plugin}: {said(error)}{hint}") from None
        return
    file = Path(in_full(plugin))
    (name,), (folder,) = modules([plugin]), folders([plugin])
    if not file.is_file() or file.suffix != SUFFIX:
        raise UsageError(f"plugin {plugin}: no such Python file; give the path of a .py file, or a module's name")
    if "." in name:
        raise UsageError(f"plugin {plugin}: a module's name has no '.' in it; rename the file")
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that no file beside the plugin shadows a library
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"plugin {plugin}: {said(error)}") from None
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).samefile(file):
        raise UsageError(f"plugin {plugin}: another module has the name {name!r} ({found}); rename the file")
