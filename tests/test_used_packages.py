"""What counts as the project's code having been measured, and what only came along with a plugin."""

from __future__ import annotations

import functools
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from harness.numerics.optimizations import OPTIMIZATIONS, Optimization
from harness.processes.used_packages import packages_of, used_packages
from harness.registry import BACKENDS, MODELS, SCHEDULERS
from harness.types import Case, Component, Model

CASE = Case(model="measured")
PLUGINS = ("ours.models", "bench.models")
# A fork server's imports in their order: a model's library, imgbench's own plugins, the user's with what they import.
BEFORE = ["torch", "library", "ours", "ours.models", "bench", "bench.models", "tiny", "tiny.net"]
FILE = {"tiny": "/here/tiny.py"}


def build(module: str) -> object:
    def built(_case: Case) -> None: ...

    built.__module__ = module
    return built


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "library", "bench"):
        module = ModuleType(name)
        module.__file__ = f"/here/{name}.py"
        monkeypatch.setitem(sys.modules, name, module)
    entries = {"measured": model("ours.models"), "theirs": model("bench.models")}
    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, **entries})


def model(module: str) -> Model:
    return Model(name="m", build=build(module), family="f", description="d", axes={})  # type: ignore[arg-type]


def used(case: Case = CASE, classes: tuple[str, ...] = (), package: str = "tiny", *fresh: str) -> dict[str, str]:
    before = [*(name for name in sys.modules if name not in BEFORE and name not in fresh), *BEFORE]
    return used_packages(case, classes, (package,), PLUGINS, before)


def test_what_a_plugin_imports_is_no_proof_that_it_was_measured() -> None:
    assert used() == {}
    assert used(CASE.with_(model="theirs")) == FILE, "the model is of the plugin that imports the project"
    assert used(package="library") == {"library": "/here/library.py"}, "there before any plugin: a model asked for it"
    assert used(package="absent") == {}


def test_layers_and_imports_while_it_is_measured_are_proof() -> None:
    assert used(classes=("torch", "tiny")) == FILE
    assert used(CASE, ("torch", "tinyother"), "tiny") == {}
    tiny_more = "tiny.more"
    sys.modules[tiny_more] = ModuleType(tiny_more)
    try:
        assert used(CASE, (), "tiny", tiny_more) == FILE
    finally:
        del sys.modules[tiny_more]


def test_a_backend_a_scheduler_and_an_optimisation_of_the_plugin_are_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = SimpleNamespace(evaluations=build("bench.models"))
    monkeypatch.setattr(SCHEDULERS, "_entries", {"s": solver})
    assert used(CASE.with_(scheduler="s")) == FILE
    backend = type("Backend", (), {"__module__": "bench.models"})()
    monkeypatch.setattr(BACKENDS, "_entries", {"b": backend})
    assert used(CASE.with_(backend="b")) == FILE
    change = functools.partial(build("bench.models"))  # type: ignore[arg-type]
    entry = Optimization(label="o", description="d", group="g", change=change)
    monkeypatch.setattr(OPTIMIZATIONS, "_entries", {"o": entry})
    assert used(CASE.with_(optimizations="o")) == FILE


def test_layers_are_told_by_the_packages_of_their_classes() -> None:
    class Own(torch.nn.Module): ...

    module = torch.nn.Sequential(torch.nn.Linear(2, 2), Own())
    component = Component(name="net", module=module, inputs=(torch.zeros(1, 2),))
    assert packages_of([component]) == sorted({"torch", Own.__module__})
