"""Outputs that the processes of a run leave for each other, as float32 arrays in its folder `references/`.

They are removed when the run is finished: what they were needed for stands in the measurements then.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.files import named

if TYPE_CHECKING:
    import torch

FOLDER: Final = "references"


def save(path: Path, tensor: torch.Tensor) -> None:
    """Writes beside `path` and renames: a reader sees the whole array or none. Raises OSError that names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    written = io.BytesIO()  # numpy's own writing to a file tells a full disk without the system's number
    np.save(written, tensor.detach().cpu().float().numpy(), allow_pickle=False)
    try:
        with named(path):
            partial.write_bytes(written.getbuffer())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.load(path, allow_pickle=False))
