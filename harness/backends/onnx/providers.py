"""Whether an execution provider of ONNX Runtime can be had here: a package that lists it may still not load it.

ONNX Runtime names the providers that it was built with, whatever else is installed. What one needs beside it, as
`libnvinfer.so.10` for TensorRT's, is found out by asking the loader, whose answer is the reason.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Final

from harness.reasons import Reason

LIBRARIES: Final = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}
NEEDS: Final = {
    "CUDAExecutionProvider": "CUDA and cuDNN of the version that this onnxruntime-gpu was built for",
    "TensorrtExecutionProvider": "the TensorRT that this onnxruntime-gpu was built for (libnvinfer.so.10 is of "
    "tensorrt-cu13<11), in an environment of its own where backend tensorrt, which speaks 11, is used too",
}


@cache
def unloadable(provider: str) -> Reason | None:
    """Why the library of `provider` cannot be loaded, in the loader's words, or None; None for one without a library.
    What was loaded stays loaded."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    if provider not in LIBRARIES:
        return None
    try:
        preload(provider)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / LIBRARIES[provider]))
    except (OSError, ImportError) as error:
        return Reason("provider_not_loaded", {"provider": provider, "error": str(error), "needs": NEEDS[provider]})
    return None


def preload(provider: str) -> None:
    """Loads CUDA and cuDNN from the packages that torch brought, and TensorRT's libraries from its own package, where
    the loader would not look for them."""
    import onnxruntime

    onnxruntime.preload_dlls()
    if provider == "TensorrtExecutionProvider" and importlib.util.find_spec("tensorrt"):
        importlib.import_module("tensorrt")
