"""Outputs that the processes of a run share, as float32 arrays in its folder `references/`.

They are removed when the run is finished: by then the measurements hold the results of all comparisons.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.files import write_atomically

if TYPE_CHECKING:
    import torch

FOLDER: Final = "references"


def save(path: Path, tensor: torch.Tensor) -> None:
    """Writes beside `path` and renames: a reader sees the whole array or none. Raises OSError that names the file."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    written = io.BytesIO()  # numpy's own file writer reports a full disk without an errno
    np.save(written, tensor.detach().cpu().float().numpy(), allow_pickle=False)
    write_atomically(path, written.getvalue())


def first_output(folder: Path, case_id: str) -> Path:
    """The file of the timed batch's output in the first process of a case; `folder` is the run's."""
    return folder / FOLDER / f"{case_id}.npy"


def load(path: Path) -> torch.Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.load(path, allow_pickle=False))
