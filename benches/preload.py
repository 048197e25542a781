"""The libraries that a fork server imports once for all of its workers: those that the cases of the run use.

Each worker would otherwise import a missing library itself, and its start-up time would include that. A server that
imports unused libraries delays every run (torch's compiler, diffusers and ONNX's exporter take about ten seconds
together). Both arms of a comparison get the same list, because imports affect the layout of memory.
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
# Modules of models that do not query CUDA when they are imported. One that does (torchao queries the capability,
# diffusers an accelerator) leaves every process forked afterwards without CUDA: "Cannot re-initialize CUDA in
# forked subprocess". The `libraries` of a backend must not query CUDA.
LEAVE_CUDA_ALONE: Final = frozenset({"timm", "sklearn.svm", "sklearn.datasets", "torch_fidelity"})
GPU_FILES: Final = ("/dev/nvidiactl", "/dev/dxg")  # Linux, WSL


def libraries(cases: Iterable[Case], *overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules to import, without duplicates, for the cases and for the cases with each of `overrides`.

    A model without `libraries` may use any of MODEL_LIBRARIES. On a machine with a GPU, only those of LEAVE_CUDA_ALONE
    are named; each worker imports the rest, and its start-up time includes that.
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
    """The `names` that may be imported before a fork on this machine."""
    return [name for name in names if not gpu_here() or name in LEAVE_CUDA_ALONE]


def gpu_here() -> bool:
    """Whether this machine has an NVIDIA GPU, without initialising CUDA."""
    return any(Path(file).exists() for file in GPU_FILES)
