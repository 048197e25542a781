"""What rules out a CUDA device, found without importing torch, which takes seconds.

That there is a device is for torch alone to say. Neither function initialises CUDA, so a process may fork afterwards.
"""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Final

from harness.reasons import Reason

DRIVER: Final = "libcuda.so.1"  # the name by which CUDA's runtime loads it


def without_torch() -> Reason | None:
    """Why this machine has no CUDA device whatever torch would say, or None if torch has to be asked. Raises
    ModuleNotFoundError if torch is not installed."""
    if torch_cuda_version() is None:
        return Reason("torch_without_cuda")
    return no_driver()


def no_driver() -> Reason | None:
    """A reason if the library of NVIDIA's driver is missing or cannot be loaded; None if it can be, and where its name
    is not known (other systems than Linux)."""
    if sys.platform != "linux":
        return None
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        return Reason("no_cuda_driver", {"error": str(error)})
    return None


def torch_cuda_version() -> str | None:
    """The version of CUDA for which the installed torch was built, "13.0", or None for a build without CUDA: what
    `torch.version.cuda` holds, read from its file."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    version: str | None = runpy.run_path(str(Path(found.origin).with_name("version.py")))["cuda"]
    return version
