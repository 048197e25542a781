"""Settings of torch that hold for the whole process: what a row changes there makes its own figures another row's.

A builder or a network may set the precision of matrix products, switch autocast on, or ask for other threads. The row
would be measured under other conditions than it is named after, and the next row of the process, too. So the settings
are read before a row is loaded, compared when it has been measured, and set back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from harness import precision

MIXED: Final = "a mix of torch's older and newer switches"
# As people name them.
_IN_WORDS: Final = {
    "threads": "the number of threads",
    "default_dtype": "torch's default dtype",
    "matmul_precision": "torch's precision of fp32 matrix products",
    "autocast_cpu": "torch's autocast on the CPU",
    "autocast_cuda": "torch's autocast on the GPU",
    "deterministic": "torch's deterministic algorithms",
    "cudnn_benchmark": "cuDNN's benchmarking of algorithms",
    "cudnn_tf32": "TF32 in cuDNN",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings at one moment, in torch's own values."""

    threads: int
    default_dtype: Any
    matmul_precision: str
    autocast_cpu: bool
    autocast_cuda: bool
    deterministic: bool
    cudnn_benchmark: bool
    cudnn_tf32: bool


def read() -> Settings:
    import torch

    return Settings(
        threads=torch.get_num_threads(),
        default_dtype=torch.get_default_dtype(),
        matmul_precision=precision.matmul_precision() or MIXED,
        autocast_cpu=torch.is_autocast_enabled("cpu"),
        autocast_cuda=torch.is_autocast_enabled("cuda"),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        cudnn_tf32=torch.backends.cudnn.allow_tf32,
    )


def set_back(before: Settings) -> None:
    """Makes every setting again what it was."""
    import torch

    now = read()
    setters: dict[str, Any] = {
        "threads": torch.set_num_threads,
        "default_dtype": torch.set_default_dtype,
        "matmul_precision": torch.set_float32_matmul_precision,
        "autocast_cpu": lambda on: torch.set_autocast_enabled("cpu", on),
        "autocast_cuda": lambda on: torch.set_autocast_enabled("cuda", on),
        "deterministic": torch.use_deterministic_algorithms,
        "cudnn_benchmark": lambda on: setattr(torch.backends.cudnn, "benchmark", on),
        "cudnn_tf32": lambda on: setattr(torch.backends.cudnn, "allow_tf32", on),
    }
    for name in _changed(before, now):
        setters[name](getattr(before, name))


def fault(before: Settings) -> str | None:
    """Which setting is another one now than `before`, in words; None where all are the same."""
    now = read()
    changed = _changed(before, now)
    if not changed:
        return None
    told = ", ".join(f"{_IN_WORDS[n]} from {_plain(getattr(before, n))} to {_plain(getattr(now, n))}" for n in changed)
    return f"the row changed a setting of the whole process: {told}"


def _changed(before: Settings, now: Settings) -> list[str]:
    return [f.name for f in fields(Settings) if getattr(before, f.name) != getattr(now, f.name)]


def _plain(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value).removeprefix("torch.")
