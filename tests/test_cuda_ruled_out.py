"""A CUDA device is ruled out without importing torch, and only torch says that there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from harness.devices import cuda, cuda_ruled_out
from harness.reasons import Reason


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Installs or removes the library of the driver."""

    def installed(here: bool) -> None:
        def load(name: str) -> object:
            assert name == "libcuda.so.1"
            if not here:
                raise OSError(f"{name}: cannot open shared object file")
            return object()

        monkeypatch.setattr(cuda_ruled_out.ctypes, "CDLL", load)

    monkeypatch.setattr(sys, "platform", "linux")
    return installed


def test_the_version_of_cuda_is_what_torch_says() -> None:
    assert cuda_ruled_out.torch_cuda_version() == torch.version.cuda


def test_a_machine_without_the_driver_has_no_device(
    driver: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_ruled_out, "torch_cuda_version", lambda: "13.0")
    driver(False)
    assert cuda_ruled_out.without_torch() == Reason(
        "no_cuda_driver", {"error": "libcuda.so.1: cannot open shared object file"}
    )
    driver(True)
    assert cuda_ruled_out.without_torch() is None, "a driver alone is no device"
    monkeypatch.setattr(sys, "platform", "win32")
    driver(False)
    assert cuda_ruled_out.without_torch() is None, "there the library has another name"


def test_a_build_without_cuda_has_no_device(driver: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_ruled_out, "torch_cuda_version", lambda: None)
    driver(True)
    assert cuda_ruled_out.without_torch() == Reason("torch_without_cuda")


def test_a_torch_that_is_imported_decides(driver: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    driver(False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda.unavailable() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.unavailable().kind == "no_cuda_driver"
    driver(True)
    assert cuda.unavailable() == Reason("no_cuda_device")


@pytest.mark.parametrize("driver_here", [True, False])
def test_torch_is_imported_only_where_a_driver_is_installed(driver_here: bool) -> None:
    code = f"""
import sys
from harness.devices import cuda, cuda_ruled_out
cuda_ruled_out.torch_cuda_version = lambda: "13.0"
cuda_ruled_out.no_driver = lambda: None if {driver_here} else cuda_ruled_out.Reason("no_cuda_driver", {{"error": "no"}})
cuda.unavailable()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(driver_here)
