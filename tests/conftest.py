"""Fixtures shared by all tests: the filled registries, a fork server, and a way to run planted suites."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nvml_fixture
import pytest
import tensorrt_fixture
import torch
from suite_fixture import PLUGINS, QUICK, Silent

import benches
from baselines.stored.fingerprint import fingerprint
from benches.preload import MODEL_LIBRARIES
from harness import suite
from harness.processes.worker import Workers
from harness.registry import BACKENDS
from harness.sweeping.sweep import collect_environment, new_run, sweep
from harness.types import Run

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))

# Without a target a process that cannot learn its median on a busy machine does not take samples for half a minute.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a fork server measures in processes of its own, which takes seconds."""
    for item in items:
        if "workers" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def registries() -> None:
    """Fills the registries, the planted models included."""
    benches.load_plugins()
    import planted  # noqa: F401
    import planted_later  # noqa: F401
    import planted_states  # noqa: F401


@pytest.fixture(scope="session")
def workers(registries: None, tmp_path_factory: pytest.TempPathFactory) -> Workers:
    """One fork server for all tests, with all that any of them uses."""
    backends = [name for backend in BACKENDS.values() for name in getattr(backend, "libraries", ())]
    return Workers(PLUGINS, tmp_path_factory.mktemp("logs"), (*MODEL_LIBRARIES, "torchao.quantization", *backends))


@pytest.fixture(scope="session")
def machine(workers: Workers) -> dict:
    """The environment of this machine, read once."""
    found = collect_environment(workers, "cpu")
    return found | {"fingerprint": fingerprint(found)}


@pytest.fixture
def run_suite(workers: Workers, machine: dict, tmp_path: Path) -> Callable[..., Run]:
    """Runs the `cases` of a suite (YAML text) with a quick protocol and gives the finished run."""

    def run(cases: str, protocol: str = QUICK, listener: Silent | None = None) -> Run:
        chosen = suite.parse(f"name: planted\nprotocol: {protocol}\ncases:\n{cases}")
        started = new_run(chosen, tmp_path / "run", machine)
        return sweep(started, workers, PLUGINS, listener or Silent())

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More threads than this are slower for models so small, and much slower where another process runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def kept_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per model for exports of whole networks. An export takes seconds, so the tests share it, and those that
    run in another process at the same time do, too."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports"


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """nvml_stub.c, compiled once."""
    return nvml_fixture.compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stub(nvml_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> nvml_fixture.Stub:
    """The stub in the place of the driver's library, as it is at its start."""
    nvml_fixture.installed(nvml_library, monkeypatch)
    return nvml_fixture.Stub(nvml_library)


@pytest.fixture(scope="session")
def tensorrt_bindings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TensorRT's own module, loaded once."""
    return tensorrt_fixture.bindings(tmp_path_factory.mktemp("tensorrt"))


@pytest.fixture
def trt(tensorrt_bindings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The bindings in the place of the whole package."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_bindings)
    return tensorrt_bindings
