"""Whether ONNX Runtime can load an execution provider on this machine.

ONNX Runtime lists all providers that it was built with, even if a library that one needs is missing, such as
`libnvinfer.so.10` for TensorRT's. This module therefore loads the provider's library. The message of the dynamic loader
is the reason.
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
    "TensorrtExecutionProvider": "the TensorRT that this onnxruntime-gpu was built for (libnvinfer.so.10 is in "
    "tensorrt-cu13<11), in a separate environment if the backend tensorrt, which needs TensorRT 11, is used too",
}


@cache
def unloadable(provider: str) -> Reason | None:
    """Why the library of `provider` cannot be loaded, in the loader's words, or None. It is also None for a provider
    without a library of its own. A loaded library stays loaded."""
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
