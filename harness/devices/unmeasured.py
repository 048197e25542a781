"""Accelerators that torch can use and imgbench does not measure. On a machine that has one, imgbench measures the CPU
and says so. A run stores the values of `Accelerator`; only this file puts them into words. Written against torch's
documented API and not proven on such hardware."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, Final

from harness.registry import DEVICES


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
    """The accelerators of this kind that torch finds on this machine, and that no registered device measures."""
    import torch

    found = {
        # torch's build for ROCm shows AMD GPUs through torch.cuda.
        Accelerator.ROCM: torch.version.hip is not None and torch.cuda.is_available(),
        Accelerator.MPS: torch.backends.mps.is_available(),
        Accelerator.XPU: torch.xpu.is_available(),
    }
    return tuple(accelerator for accelerator, here in found.items() if here and accelerator not in DEVICES)


def in_words(found: Iterable[str]) -> str | None:
    """ "this machine has an Intel GPU (XPU), which imgbench does not measure: it measures NVIDIA GPUs and CPUs"; None
    where there are none."""
    told = [WORDS.get(accelerator, accelerator) for accelerator in found]
    if not told:
        return None
    return f"this machine has {' and '.join(told)}, which imgbench does not measure: it measures NVIDIA GPUs and CPUs"


def at_the_start(environment: Mapping[str, Any]) -> str | None:
    """What a run on a CPU says before it begins if the machine has such an accelerator; else None."""
    told = in_words(environment.get("unmeasured") or ())
    return f"{told}; this run measures the CPU" if told and environment.get("device") == "cpu" else None
