"""Outputs that the processes of a run leave for each other, as float32 arrays in its folder `references/`.

They are removed when the run is finished: what they were needed for stands in the measurements then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import torch

FOLDER: Final = "references"


def save(path: Path, tensor: torch.Tensor) -> None:
    """Writes beside `path` and renames: a reader sees the whole array or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.save(file, tensor.detach().cpu().float().numpy(), allow_pickle=False)
    partial.replace(path)


def load(path: Path) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.load(path, allow_pickle=False))
