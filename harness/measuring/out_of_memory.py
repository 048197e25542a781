"""Recognises errors that mean that memory ran out. Each library words them differently, and few have their own type.

This is the only place that searches the texts of other libraries for it. An error of imgbench itself states its reason
as a value, so its text is not searched.
"""

from __future__ import annotations

from typing import Final

from harness.reasons import ReasonedError

TEXTS: Final = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",  # ONNX Runtime
    "out of memory",
    "outofmemory",
    "bad allocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "allocation_failed",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "memory allocation failed",  # TensorRT, like the next five
    "there may not be enough free memory",
    "insufficient memory",
    "memory is insufficient",
    "byte allocation failed",
    "run-time allocation failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the host or on a device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, ReasonedError):
        return False
    return any(text in str(error).lower() for text in TEXTS)  # ONNX Runtime's errors are not of type RuntimeError
