"""Precisions by name. A precision is one record: its description, its quantiser, its tolerance, its look.

A new precision is one file here, or in a plugin: `register(Precision(name="...", ...))`. Everything that lists, checks,
draws or runs precisions reads the registry. The torch backends run each registered precision, because its record says
how torch applies it. Every other backend names the precisions for which it has an export, and refuses the rest.

Importing this package imports neither torch nor torchao.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from harness import drawing, entries
from harness.entries import BadEntry, is_number
from harness.reasons import Reason
from harness.registry import PRECISIONS

if TYPE_CHECKING:
    import torch

    from harness.numerics.linear_use import Range, Ranges

Capability = tuple[int, int]
AMPERE: Final[Capability] = (8, 0)  # the first tensor cores that multiply bf16 and TF32
ADA: Final[Capability] = (8, 9)  # Ada, then Hopper: the first tensor cores that multiply e4m3


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far an output may be from the fp32 eager output of the same seed: the smallest cosine similarity and the
    largest relative error, both means over the items of a batch."""

    cosine_floor: float
    error_ceiling: float


def _nothing_unfit(_layer: torch.nn.Linear, _seen: Range | None) -> Reason | None:
    return None


def _supported(_device: str) -> Reason | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """How torch quantises the linear layers of a network, whatever the rest of the network is in.

    name           several precisions may share one ("int8_static", also of int8_static_bf16)
    quantise       (network, its layers by name, their input ranges) -> the network, with these layers quantised in
                   place. Layers that nothing can quantise are left out beforehand
    unfit          (layer, its input range or None) -> why this layer stays as it is, or None
    products       the type in which the quantised layers multiply, or None for that of the activations
    calibrated     whether the ranges must come from real inputs
    waits_for_gpu  whether each product waits for the GPU unless torch.compile traces it
    untraceable    why torch.compile cannot trace the quantised layers, or None
    unsupported    (device) -> why this torch cannot quantise for it, or None
    packages       distributions that it needs, whose versions are part of a run's environment
    libraries      modules to import once for all workers
    """

    name: str
    quantise: Callable[[torch.nn.Module, Mapping[str, torch.nn.Linear], Ranges], torch.nn.Module]
    unfit: Callable[[torch.nn.Linear, Range | None], Reason | str | None] = _nothing_unfit
    products: Literal["int8", "fp8"] | None = None
    calibrated: bool = False
    waits_for_gpu: bool = False
    untraceable: Reason | str | None = None
    unsupported: Callable[[str], Reason | str | None] = _supported
    packages: tuple[str, ...] = ("torchao",)
    libraries: tuple[str, ...] = ("torchao.quantization",)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One precision.

    description  what it is, in one sentence
    activations  torch's dtype of the activations, and of all weights that are not quantised
    bounds       by kind of output ("logits", "images"), how exact the output must be
    stored       the dtype of the weights that the precision is named after; by default that of the activations
    quantiser    how linear layers are quantised; None where none is
    upcast       the precision in which a component with `force_upcast` runs in a row of this one, if it differs
    tf32         whether fp32 products may use TF32
    needs_gpu    why it needs an NVIDIA GPU; None where it does not
    capability   the lowest compute capability of a GPU whose tensor cores compute in it; None for any
    symbol       its marker in the charts (plotly's name)
    dash         its line in the charts (plotly's name or lengths)
    """

    name: str
    description: str
    activations: str
    bounds: Mapping[str, Bounds]
    stored: str = ""
    quantiser: Quantiser | None = None
    upcast: str | None = None
    tf32: bool = False
    needs_gpu: Reason | str | None = None
    capability: Capability | None = None
    symbol: str = "x"
    dash: str = "solid"

    @property
    def weights(self) -> str:
        """The dtype of the weights that the precision is named after."""
        return self.stored or self.activations


def _are_bounds(value: Any) -> bool:
    if not isinstance(value, Mapping) or not {"logits", "images"} <= value.keys():
        return False
    return all(
        isinstance(b, Bounds) and is_number(b.cosine_floor) and is_number(b.error_ceiling) for b in value.values()
    )


def _is_capability(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(number) is int for number in value)


FIELDS: Final = {
    "description": entries.LINE,
    "activations": entries.one_of("float32", "bfloat16", "float16", "float64"),
    "bounds": entries.Rule(_are_bounds, "a mapping that gives the Bounds of 'logits' and of 'images'"),
    "stored": entries.TEXT,
    "quantiser": entries.optional(entries.instance_of(Quantiser)),
    "upcast": entries.optional(entries.LINE),
    "tf32": entries.BOOLEAN,
    "needs_gpu": entries.optional(entries.REASON),
    "capability": entries.optional(entries.Rule(_is_capability, "a tuple of two whole numbers")),
    "symbol": drawing.MARKER,
    "dash": drawing.LINE_STYLE,
}
FIELDS_OF_QUANTISER: Final = {
    "name": entries.LINE,
    "quantise": entries.FUNCTION,
    "unfit": entries.FUNCTION,
    "products": entries.one_of("int8", "fp8", None),
    "calibrated": entries.BOOLEAN,
    "waits_for_gpu": entries.BOOLEAN,
    "untraceable": entries.optional(entries.REASON),
    "unsupported": entries.FUNCTION,
    "packages": entries.NAMES,
    "libraries": entries.NAMES,
}


@PRECISIONS.checked_by
def _check(subject: str, name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Precision)
    entries.demand_name(subject, entry, name)
    entries.demand(subject, entry, FIELDS)
    if entry.quantiser is None:
        return
    entries.demand(f"{subject}: quantiser", entry.quantiser, FIELDS_OF_QUANTISER)
    if not any(p.quantiser is None and p.activations == entry.activations for p in PRECISIONS.values()):
        raise BadEntry(f"{subject}: no precision without a quantiser has activations in {entry.activations}")


def register(precision: Precision) -> Precision:
    """Adds `precision` under its name. Raises DuplicateName, and BadEntry for a field that is not valid."""
    return PRECISIONS.register(precision.name, precision)


# fp32 comes first: it is the reference, and the first precision of a dtype names what is not quantised.
for _name in sorted((m.name for m in pkgutil.iter_modules(__path__)), key=lambda name: (name != "floating", name)):
    importlib.import_module(f"{__name__}.{_name}")
