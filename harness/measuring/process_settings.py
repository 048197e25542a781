"""torch's process-wide settings: detects a row that changes them, and restores them.

A builder or a network may set the matmul precision, enable autocast, or change the number of threads. This row, and
the next row in the process, would then run under other conditions than the row's name says. So the settings are read
before a row is loaded, compared after it was measured, and restored.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from harness.numerics import precision
from harness.reasons import Reason

MIXED: Final = "a mix of torch's older and newer switches"
# Setting -> what a message calls it.
_IN_WORDS: Final = {
    "threads": "the number of threads",
    "default_dtype": "torch's default dtype",
    "matmul_precision": "torch's fp32 matmul precision",
    "convolution_precision": "torch's fp32 convolution precision on the CPU",
    "autocast_cpu": "torch's autocast on the CPU",
    "autocast_cuda": "torch's autocast on the GPU",
    "deterministic": "torch's deterministic algorithms",
    "cudnn_benchmark": "cuDNN's benchmark mode (autotuning)",
    "cudnn_tf32": "TF32 in cuDNN",
    "fp32_precision": "torch.backends.fp32_precision",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings at one moment, in torch's own values."""

    threads: int
    default_dtype: Any
    matmul_precision: str
    convolution_precision: str
    autocast_cpu: bool
    autocast_cuda: bool
    deterministic: bool
    cudnn_benchmark: bool
    cudnn_tf32: bool | str
    fp32_precision: str


def read() -> Settings:
    import torch

    backends: Any = torch.backends  # its submodules have no types
    return Settings(
        threads=torch.get_num_threads(),
        default_dtype=torch.get_default_dtype(),
        matmul_precision=precision.matmul_precision() or MIXED,
        convolution_precision=backends.mkldnn.conv.fp32_precision,
        autocast_cpu=torch.is_autocast_enabled("cpu"),
        autocast_cuda=torch.is_autocast_enabled("cuda"),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        cudnn_tf32=_cudnn_tf32(),
        fp32_precision=backends.fp32_precision,
    )


def _cudnn_tf32() -> bool | str:
    """Whether cuDNN may use TF32. torch refuses to read it where its older and newer switches contradict each other."""
    import torch

    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return MIXED


def set_back(before: Settings) -> None:
    """Restores every setting."""
    import torch

    now = read()
    on_cpu: Any = torch.backends.mkldnn
    setters: dict[str, Any] = {
        "threads": torch.set_num_threads,
        "default_dtype": torch.set_default_dtype,
        "matmul_precision": torch.set_float32_matmul_precision,
        "convolution_precision": lambda to: setattr(on_cpu.conv, "fp32_precision", to),
        "autocast_cpu": lambda on: torch.set_autocast_enabled("cpu", on),
        "autocast_cuda": lambda on: torch.set_autocast_enabled("cuda", on),
        "deterministic": torch.use_deterministic_algorithms,
        "cudnn_benchmark": lambda on: setattr(torch.backends.cudnn, "benchmark", on),
        "cudnn_tf32": lambda on: setattr(torch.backends.cudnn, "allow_tf32", on),
        "fp32_precision": lambda to: setattr(torch.backends, "fp32_precision", to),
    }
    for name in _changed(before, now):
        setters[name](getattr(before, name))


def fault(before: Settings) -> Reason | None:
    """Which settings differ from `before`; None if none does."""
    now = read()
    changed = _changed(before, now)
    if not changed:
        return None
    changes = [f"{_IN_WORDS[n]} from {_plain(getattr(before, n))} to {_plain(getattr(now, n))}" for n in changed]
    return Reason("settings_changed", {"settings": changes})


def _changed(before: Settings, now: Settings) -> list[str]:
    return [f.name for f in fields(Settings) if getattr(before, f.name) != getattr(now, f.name)]


def _plain(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value).removeprefix("torch.")
