"""A row where its suite says nothing, or the same in several ways: a folder's image size, one scale for no guidance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import weights
from harness.types import Model


def of_folder(model: Model, named: str) -> Model:
    """The model with the defaults that a folder of weights asks for in the place of its own."""
    if model.folder_axes is None or named in weights.keywords(model):
        return model
    found = model.folder_axes(Path(named).expanduser())
    return replace(model, axes={**model.axes, **{axis: v for axis, v in found.items() if axis in model.axes}})


def guidance(model: Model, scale: float) -> float:
    """The guidance scale as one number for one work: all scales that ask for no guidance are `unguided_up_to`."""
    return float(max(scale, model.unguided_up_to) if model.unguided_up_to is not None else scale)
