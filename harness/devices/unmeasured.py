"""Accelerators that torch can use and imgbench does not measure. On a machine that has one, imgbench measures the CPU
and says so. A run stores the values of `Accelerator`. Written against torch's documented API and not proven on such
hardware."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from harness.reasons import Reason
from harness.registry import DEVICES
from harness.stored_types import measured_on_gpu


class Accelerator(enum.StrEnum):
    ROCM = "rocm"
    MPS = "mps"
    XPU = "xpu"


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


def reason(found: Iterable[str]) -> Reason | None:
    """Says which of the accelerators imgbench does not measure ("this machine has an Intel GPU (XPU), which ..."); None
    where there are none."""
    named = [str(accelerator) for accelerator in found]
    return Reason("unmeasured_accelerators", {"found": named}) if named else None


def at_the_start(environment: Mapping[str, Any]) -> Reason | None:
    """What a run on a CPU says before it begins if the machine has such an accelerator; else None."""
    found = list(environment.get("unmeasured") or ())  # a run from before this was recorded has no such key
    return Reason("measures_the_cpu", {"found": found}) if found and not measured_on_gpu(environment) else None
