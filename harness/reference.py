"""The fp32 eager output of the same seed, which every other row is held against.

Computed once for all rows that share it, in whichever worker needs it first, and kept in the run folder as
`references/<key>.npy`; the key is the hash of the case with backend eager and precision fp32. An eager fp32 row
adopts its own output, so it is never computed twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.trial import Trial
from harness.types import Case

if TYPE_CHECKING:
    import torch

REFERENCES = "references"
ON_CPU = "the GPU had no room for fp32 eager beside the timed model, so the CPU computed it"

What = Literal["timed batch", "quality set"]


def reference_case(case: Case) -> Case:
    return case.with_(backend="eager", precision="fp32", optimizations=None)


def is_reference(case: Case) -> bool:
    return case == reference_case(case)


def output(trial: Trial, what: What, own: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The reference of the timed batch or of the whole quality set, on the CPU in fp32.

    `own` gives the trial's own output, which is adopted where the trial is the reference itself.
    """
    import torch

    path = _path(trial.folder, trial.case, what)
    if not path.exists():
        _mark(path).unlink(missing_ok=True)  # of a process that was killed before it saved
        _save(path, own() if is_reference(trial.case) else _compute(trial, what))
    return torch.from_numpy(np.load(path, allow_pickle=False))


def told(trial: Trial, what: What) -> tuple[str, ...]:
    """The warning of every row that is held against a reference of another device, or nothing."""
    return (f"reference of the {what}: {ON_CPU}",) if _mark(_path(trial.folder, trial.case, what)).exists() else ()


def _compute(trial: Trial, what: What) -> torch.Tensor:
    """Builds the model anew, eager and fp32, and runs the batches once; on the CPU where the GPU has no room for it."""
    import torch

    device = trial.device.torch_device
    try:
        return _computed_on(device, trial.case, what)
    except torch.OutOfMemoryError:  # the timed model lies beside it, and what was measured of that is not to be lost
        if device == "cpu":
            raise
    torch.cuda.empty_cache()
    found = _computed_on("cpu", trial.case, what)
    mark = _mark(_path(trial.folder, trial.case, what))
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return found


def _computed_on(device: str, wanted: Case, what: What) -> torch.Tensor:
    import torch

    from harness import attention, precision
    from harness.registry import built

    case = reference_case(wanted)
    torch.manual_seed(case.seed)
    workload = built(case)
    batches = [workload.batch] if what == "timed batch" else workload.quality.batches()  # type: ignore[union-attr]
    with precision.applied("fp32"), attention.torchs_own():
        modules = {c.name: precision.cast(c.module.to(device), "fp32").eval() for c in workload.components}
        forwards = {n: precision.bordered(m, "fp32", device) for n, m in modules.items()}
        return torch.cat([workload.iterate(forwards, batch.to(device)).cpu() for batch in batches])


def _path(folder: Path, case: Case, what: What) -> Path:
    canonical = json.dumps([reference_case(case).axes(), what], sort_keys=True)
    return folder / REFERENCES / f"{hashlib.sha256(canonical.encode()).hexdigest()[:16]}.npy"


def _mark(path: Path) -> Path:
    """Stands beside a reference that the CPU computed for a GPU's rows."""
    return path.with_suffix(".cpu")


def _save(path: Path, tensor: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.save(file, tensor.detach().cpu().float().numpy(), allow_pickle=False)
    partial.replace(path)
