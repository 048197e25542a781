"""What is measured: suites, models, and the command line that puts the rooms together."""

from __future__ import annotations

import importlib

PLUGINS = ("harness.backends", "harness.probes", "benches.schedulers", "benches.models")


def load_plugins() -> None:
    """Fills the registries of models, schedulers, backends and probes. Cheap: nothing heavy is imported."""
    for module in PLUGINS:
        importlib.import_module(module)
