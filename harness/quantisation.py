"""Quantising a torch module in place, with torchao or the classic quantiser, and looking inside what they made.

Only linear layers are quantised, weights per output channel. int8_static multiplies int8 by int8 with one scale for all
activations of a layer, from the largest absolute input that calibration saw: `ranges_of` measures it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

Ranges = Mapping[str, "Range"]  # by the qualified name of a linear layer
NO_RANGES: Final[Ranges] = MappingProxyType({})
INT8_MAX: Final = 127.0


@dataclass(frozen=True, kw_only=True)
class Range:
    """What calibration saw of a linear layer's input: its largest absolute value, and its number of dimensions, which
    torchao's scale must have too."""

    largest: float
    ndim: int


def quantise(module: torch.nn.Module, precision: str, ranges: Ranges) -> torch.nn.Module:
    """`module` itself with its linear layers, where it has any, in int8 or fp8."""
    with quiet():
        if precision == "int8_dynamic_classic":
            return _classic(module)
        _torchao(module, precision, ranges)
    return module


def _linears(module: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    import torch

    return {name: m for name, m in module.named_modules() if isinstance(m, torch.nn.Linear)}


def _torchao(module: torch.nn.Module, precision: str, ranges: Ranges) -> None:
    from torchao import quantization as ao

    if precision == "int8_static":
        for name, layer in _linears(module).items():
            if name in ranges:  # a layer that calibration never reached stays as it is
                ao.quantize_(layer, _static(ranges[name], layer))
        return
    recipe: Any = {
        "int8_dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "int8_weight_only": ao.Int8WeightOnlyConfig,
        "fp8_e4m3": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow()),
    }[precision]
    for layer in _linears(module).values():  # layer by layer: torchao would quantise a shared one twice, and fail
        ao.quantize_(layer, recipe())


def _static(seen: Range, layer: torch.nn.Linear) -> Any:
    import torch
    from torchao import quantization as ao

    size, weight = max(seen.largest, 1e-12) / INT8_MAX, layer.weight
    scale = torch.full([1] * seen.ndim, size, dtype=weight.dtype, device=weight.device)
    return ao.Int8StaticActivationInt8WeightConfig(act_quant_scale=scale, granularity=[ao.PerTensor(), ao.PerRow()])


def _classic(module: torch.nn.Module) -> torch.nn.Module:
    import torch

    quantised: torch.nn.Module = torch.ao.quantization.quantize_dynamic(
        module, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
    )
    return quantised


def ranges_of(module: torch.nn.Module, calls: Sequence[tuple[torch.Tensor, ...]]) -> dict[str, Range]:
    """The range of each linear layer's input over forwards with the inputs of `calls`."""
    import torch

    found: dict[str, Range] = {}

    def watch(name: str) -> Any:
        def hook(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            largest = float(inputs[0].detach().abs().amax())
            before = found[name].largest if name in found else 0.0
            found[name] = Range(largest=max(largest, before), ndim=inputs[0].ndim)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in _linears(module).items()]
    try:
        with torch.no_grad():
            for inputs in calls:
                module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def packed_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """Weights and biases that the classic quantiser packed away from `parameters()`."""
    packed: list[Any] = [m for m in module.modules() if type(m).__name__ == "LinearPackedParams"]
    return [tensor for m in packed for tensor in m._weight_bias() if tensor is not None]


def inner_tensors(tensor: Any) -> list[Any]:
    """The plain tensors that a quantised tensor subclass is made of (the narrowest first), or the tensor itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    names, _ = flatten()
    inner = [part for name in names for part in inner_tensors(getattr(tensor, name))]
    return sorted(inner, key=lambda t: t.element_size())


@contextmanager
def quiet() -> Iterator[None]:
    """Both quantisers warn of their own deprecations on every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
