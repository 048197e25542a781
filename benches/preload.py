"""The libraries that a fork server imports once for all of its workers: those that the cases at hand will use.

A worker would import what is missing by itself, every time, and its start-up would hold that; a server that imports
what nobody uses makes everybody wait (torch's compiler, diffusers and ONNX's exporter take some ten seconds together).
Both arms of a comparison get the same list, since what is imported decides where things lie in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from harness.registry import BACKENDS, MODELS, PRECISIONS
from harness.types import Case

MODEL_LIBRARIES: Final = (
    "timm",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.dit.pipeline_dit",
    "transformers.models.clip.modeling_clip",
    "sklearn.svm",
    "torch_fidelity",
)
# Models' modules that do not ask for CUDA when they are imported. One that does (torchao asks for a capability,
# diffusers for an accelerator) leaves every process forked afterwards without CUDA: "Cannot re-initialize CUDA in
# forked subprocess". What a backend names in its `libraries` may not ask for CUDA.
LEAVE_CUDA_ALONE: Final = frozenset({"timm", "sklearn.svm", "sklearn.datasets", "torch_fidelity"})
GPU_FILES: Final = ("/dev/nvidiactl", "/dev/dxg")  # Linux, WSL


def libraries(cases: Iterable[Case], *overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules to import once, each named once; for the cases and for what they become with each of `overrides`.

    A model that names no libraries of its own may use any of imgbench's. Beside a GPU only those that leave CUDA alone:
    the rest is imported by each worker, and its start-up holds that.
    """
    asked = [case.with_(**changed) for case in cases for changed in (overrides or ({},))]
    found: list[str] = []
    for case in asked:
        own, quantiser = MODELS[case.model].libraries, PRECISIONS[case.precision].quantiser
        found += _allowed(MODEL_LIBRARIES if own is None else own)
        found += getattr(BACKENDS[case.backend], "libraries", ())
        found += _allowed(() if quantiser is None else quantiser.libraries)
    return tuple(dict.fromkeys(found))


def _allowed(names: Iterable[str]) -> list[str]:
    """Those of `names` that may be imported before a fork on this machine."""
    return [name for name in names if not gpu_here() or name in LEAVE_CUDA_ALONE]


def gpu_here() -> bool:
    """Whether this machine shows an NVIDIA GPU, told without touching CUDA."""
    return any(Path(file).exists() for file in GPU_FILES)
