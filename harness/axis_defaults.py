"""Values of axes that a suite leaves out, and one value for equal settings: the image size of a folder, no guidance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import weights
from harness.types import Model


def of_folder(model: Model, named: str) -> Model:
    """The model with the defaults of a weight folder in place of its own."""
    if model.folder_axes is None or named in weights.keywords(model):
        return model
    found = model.folder_axes(Path(named).expanduser())
    return replace(model, axes={**model.axes, **{axis: v for axis, v in found.items() if axis in model.axes}})


def guidance(model: Model, scale: float) -> float:
    """The normalised guidance scale: every scale that means no guidance becomes `unguided_up_to`."""
    return float(max(scale, model.unguided_up_to) if model.unguided_up_to is not None else scale)
