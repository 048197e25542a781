"""The real bindings of TensorRT 11 over stubs of its libraries, for the tests that need its names and classes.

The bindings install from PyPI; the libraries behind them do not, so stubs of their entry points are compiled here.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def bindings(folder: Path) -> Any:
    """The module of the bindings, its libraries' stubs compiled into `folder`; skips the test where it is not there."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc to compile stub libraries with")
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        path, source = folder / f"{name}.so.11", Path(__file__).with_name("tensorrt_stub.c")
        command = [gcc, "-shared", "-fPIC", "-w", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_bindings")
