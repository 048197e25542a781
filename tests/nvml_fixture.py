"""Compiles nvml_stub.c, a libnvidia-ml.so.1 of our own, and puts it where nvidia-ml-py looks for the driver's."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pynvml
import pytest

from harness.devices import nvml

GCC = shutil.which("gcc")
NO_GCC = "no gcc to compile the stub of libnvidia-ml.so.1 with"

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST = 3, 4, 9, 15
INTEGERS = {
    "init": 0,
    "error": 0,
    "energy_error": 0,
    "instant_supported": 1,
    "is_mig": 0,
    "mig_mode": 0,
    "celsius": 61,
    "processes": 0,
    "not_available": 0,
    "growing": 0,
    "fields_known": 1,
}
COUNTERS = {"reasons": 0, "thermal_ns": 0, "power_ns": 0, "policy_ns": 0}
REALS = {"watts": 300.0, "period_s": 0.02, "clock_s": -1.0, "reset_at_s": 0.0}


class Stub:
    """The library's variables as attributes: `stub.watts = 500.0`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.__dict__["library"] = library
        self.reset()

    def reset(self) -> None:
        for name, value in {**INTEGERS, **COUNTERS, **REALS}.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = ctypes.c_int if name in INTEGERS else ctypes.c_ulonglong if name in COUNTERS else ctypes.c_double
        kind.in_dll(self.library, f"stub_{name}").value = value

    def run_processes(self, *pids: int) -> None:
        (ctypes.c_uint * 8).in_dll(self.library, "stub_pids")[: len(pids)] = pids
        self.processes = len(pids)


def compiled(folder: Path) -> ctypes.CDLL:
    """The stub, compiled into `folder`."""
    path, source = folder / "libnvidia-ml.so.1", Path(__file__).with_name("nvml_stub.c")
    subprocess.run([str(GCC), "-shared", "-fPIC", "-w", "-o", str(path), str(source)], check=True)
    return ctypes.CDLL(str(path))


def installed(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-ml-py calls `library` from now on."""
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


def gpu() -> nvml.Gpu:
    found = nvml.gpu("stub")
    assert isinstance(found, nvml.Gpu), found
    return found


def meter() -> nvml.NvmlEnergy:
    found = nvml.energy_meter(gpu())
    assert isinstance(found, nvml.NvmlEnergy), found
    return found
