"""What is measured: suites, models, and the command line that puts the rooms together."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

PLUGINS = ("harness.backends", "harness.probes", "benches.schedulers", "benches.models")


def load_plugins(*further: str) -> None:
    """Fills the registries of models, schedulers, backends and probes. Cheap: nothing heavy is imported.

    `further` are modules of the user's own; they are looked for in the working directory first. Raises UsageError for
    one of these that cannot be imported.
    """
    for module in PLUGINS:
        importlib.import_module(module)
    if further and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    for module in further:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever somebody else's module does when it is imported
            from benches.failures import UsageError

            raise UsageError(f"plugin {module}: {type(error).__name__}: {error}") from None
