"""Finds the linear layers of a network that multiply by their own weight when called, by observing its forward.

A quantiser replaces the weight of an nn.Linear. That is correct only if the network calls the layer, and the layer
passes this very weight to torch.nn.functional.linear and to nothing else. nn.MultiheadAttention reads the weight of its
out_proj without calling it, other attentions call functional.linear with a layer's weight, weight_norm and
spectral_norm compute a new weight in every call, and a user's subclass may multiply in its own way. `observed` runs the
network on real inputs and detects all of these cases; such layers stay unquantised, in every precision alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from harness.reasons import Reason

if TYPE_CHECKING:
    import torch

Calls = Sequence[tuple["torch.Tensor", ...]]  # the inputs of each call


class Left:
    """Why a linear layer stays unquantised."""

    ATTENTION: Final = Reason("weight_read_by_attention")
    BYPASSED: Final = Reason("weight_bypassed")
    NOT_REACHED: Final = Reason("layer_not_reached")
    COMPUTED: Final = Reason("weight_computed")
    OTHERWISE: Final = Reason("weight_used_otherwise")
    GPU_SIDES: Final = Reason("sides_not_multiples_of_8")
    GPU_ROWS: Final = Reason("rows_below_17")
    FP8_SIDES: Final = Reason("sides_not_multiples_of_16")
    NOT_PLAIN: Final = Reason("layer_not_plain")


@dataclass(frozen=True, kw_only=True)
class Range:
    """What the network's calls showed of a linear layer's input: its largest absolute value, its number of dimensions,
    which torchao's scale must match, and the smallest number of rows in one product."""

    largest: float
    ndim: int
    rows: int


Ranges = Mapping[str, Range]  # by the qualified name of a linear layer
NO_RANGES: Final[Ranges] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Observed:
    """By name: the input range of each linear layer that was called, and why a layer must stay unquantised."""

    ranges: Ranges = field(default_factory=dict)
    unfit: Mapping[str, Reason] = field(default_factory=dict)


def linears(module: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """Every nn.Linear of a module by qualified name. A shared layer occurs once."""
    import torch

    return {name: m for name, m in module.named_modules() if isinstance(m, torch.nn.Linear)}


def observed(module: torch.nn.Module, calls: Calls) -> Observed:
    """What running `module` on the inputs in `calls` shows. Raises what the forward raises."""
    import torch

    layers, ranges = linears(module), dict[str, Range]()

    def watch(name: str) -> Any:
        def hook(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
            x = first_input(inputs, named)
            largest, rows = float(x.detach().abs().amax()) if x.numel() else 0.0, x.shape[:-1].numel()
            if name in ranges:
                largest, rows = max(largest, ranges[name].largest), min(rows, ranges[name].rows)
            ranges[name] = Range(largest=largest, ndim=x.ndim, rows=rows)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with torch.no_grad(), _reads(layers) as (multiplied, otherwise):
            for inputs in calls:
                module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    attention = _of_attention(module)

    def unfit(name: str) -> Reason | None:
        if "weight" not in layers[name]._parameters:
            return Left.COMPUTED
        if name not in ranges:
            used = name in multiplied or name in otherwise
            return Left.ATTENTION if name in attention else Left.BYPASSED if used else Left.NOT_REACHED
        return Left.OTHERWISE if name in otherwise or name not in multiplied else None

    found = {name: reason for name in layers if (reason := unfit(name)) is not None}
    return Observed(ranges=ranges, unfit=found)


def first_input(inputs: tuple[torch.Tensor, ...], named: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The input of a linear layer, however it was passed."""
    return inputs[0] if inputs else named["input"]


def _of_attention(module: torch.nn.Module) -> set[str]:
    """Names of the linear layers inside nn.MultiheadAttention."""
    import torch

    held = [name for name, m in module.named_modules() if isinstance(m, torch.nn.MultiheadAttention)]
    return {".".join(filter(None, (name, "out_proj"))) for name in held}


@contextmanager
def _reads(layers: Mapping[str, torch.nn.Linear]) -> Iterator[tuple[set[str], set[str]]]:
    """Two sets of layer names, filled while the block runs: layers whose weight was passed to functional.linear,
    and layers whose weight any other function turned into a tensor."""
    import torch
    from torch.overrides import TorchFunctionMode

    names: dict[int, list[str]] = {}  # tied layers share one weight
    for name, layer in layers.items():
        names.setdefault(id(layer.weight), []).append(name)
    multiplied, otherwise = set[str](), set[str]()

    class Reads(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            given = [*args, *(kwargs or {}).values()]
            if func is torch.nn.functional.linear:
                weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
                multiplied.update(names.get(id(weight), ()))
                given = [x for x in given if x is not weight]
            if any(isinstance(x, torch.Tensor) for x in _flat(result)):
                otherwise.update(name for x in _flat(given) for name in names.get(id(x), ()))
            return result

    with Reads():
        yield multiplied, otherwise


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value
