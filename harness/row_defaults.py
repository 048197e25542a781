"""A row where its suite says nothing, or the same in several ways: a folder's image size, one scale for no guidance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.types import Model


def weights_keywords(model: Model) -> list[str]:
    """What the model's `weights` may be besides a folder."""
    return [word for word in model.weights if word != "folder"]


def of_folder(model: Model, weights: str) -> Model:
    """The model with the defaults that a folder of weights asks for in the place of its own."""
    if model.folder_axes is None or weights in weights_keywords(model):
        return model
    found = model.folder_axes(Path(weights).expanduser())
    return replace(model, axes={**model.axes, **{axis: v for axis, v in found.items() if axis in model.axes}})


def guidance(model: Model, scale: float) -> float:
    """The guidance scale as one number for one work: all scales that ask for no guidance are `unguided_up_to`."""
    return float(max(scale, model.unguided_up_to) if model.unguided_up_to is not None else scale)
