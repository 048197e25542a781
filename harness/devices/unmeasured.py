"""Accelerators that torch can use and imgbench does not measure: a machine that has one is measured on its CPU, and is
told so. Values; their words are here alone. Written against torch's documented API and not proven on such hardware."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, Final


class Accelerator(enum.StrEnum):
    ROCM = "rocm"
    MPS = "mps"
    XPU = "xpu"


WORDS: Final[Mapping[str, str]] = {
    Accelerator.ROCM: "an AMD GPU (ROCm)",
    Accelerator.MPS: "an Apple GPU (MPS)",
    Accelerator.XPU: "an Intel GPU (XPU)",
}


def present() -> tuple[Accelerator, ...]:
    """Those that torch finds on this machine."""
    import torch

    found = {
        # torch's build for ROCm answers for AMD's GPUs by the names of CUDA.
        Accelerator.ROCM: torch.version.hip is not None and torch.cuda.is_available(),
        Accelerator.MPS: torch.backends.mps.is_available(),
        Accelerator.XPU: torch.xpu.is_available(),
    }
    return tuple(accelerator for accelerator, here in found.items() if here)


def in_words(found: Iterable[str]) -> str | None:
    """ "this machine has an Intel GPU (XPU), which imgbench does not measure: it measures NVIDIA GPUs and CPUs"; None
    where there are none."""
    told = [WORDS.get(accelerator, accelerator) for accelerator in found]
    if not told:
        return None
    return f"this machine has {' and '.join(told)}, which imgbench does not measure: it measures NVIDIA GPUs and CPUs"


def at_the_start(environment: Mapping[str, Any]) -> str | None:
    """What a run on a CPU says before it begins, where the machine has such an accelerator."""
    told = in_words(environment.get("unmeasured") or ())
    return f"{told}; this run measures the CPU" if told and environment.get("device") == "cpu" else None
