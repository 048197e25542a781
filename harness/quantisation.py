"""Quantising a torch module in place, with torchao or the classic quantiser, and looking inside what they made.

Only linear layers are quantised, weights per output channel. int8_static multiplies int8 by int8 with one scale for all
activations of a layer, from the largest absolute input that calibration saw: `ranges_of` measures it.
"""

from __future__ import annotations

import warnings
from collections import Counter
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
INT8_PRODUCTS: Final = frozenset({"int8_dynamic", "int8_static"})  # activations in int8, too
# What torch._int_mm takes on a GPU; with other shapes torchao multiplies on the CPU or in fp32 (its kernel/intmm.py).
INT_MM_MULTIPLE: Final = 8
INT_MM_ROWS: Final = 17
FP8_MULTIPLE: Final = 16  # torchao leaves a layer of another size in bf16, and only logs it


@dataclass(frozen=True, kw_only=True)
class Range:
    """What calibration saw of a linear layer's input: its largest absolute value, and its number of dimensions, which
    torchao's scale must have too."""

    largest: float
    ndim: int


@dataclass(frozen=True, kw_only=True)
class Census:
    """Linear layers of one network by name: all of them, those in int8 or fp8, and why others were to be left alone."""

    layers: tuple[str, ...]
    quantised: frozenset[str]
    left: Mapping[str, str]

    def fault(self, network: str) -> str | None:
        """Which layers ought to be quantised and are not, or None."""
        forgotten = [name for name in self.layers if name not in self.quantised and name not in self.left]
        if not forgotten:
            return None
        some = ", ".join(forgotten[:3])
        return f"{len(forgotten)} of {len(self.layers)} linear layers of {network} are not quantised ({some})"

    def in_words(self) -> str:
        """ "12 of 13; 1 left: its sides are no multiples of 16, as fp8 kernels need"."""
        reasons = Counter(reason for name, reason in self.left.items() if name not in self.quantised)
        left = "".join(f"; {count} left: {reason}" for reason, count in reasons.items())
        return f"{len(self.quantised)} of {len(self.layers)}{left}"


def left_out(module: torch.nn.Module, precision: str, ranges: Ranges) -> dict[str, str]:
    """The linear layers, by name, that `quantise` will leave as they are, and why; to be asked before it."""
    import torch

    def reason(name: str, layer: torch.nn.Linear) -> str | None:
        if precision == "int8_static" and name not in ranges:
            return "calibration never called it"
        if _no_integer_product(precision, layer):
            return f"its sides are no multiples of {INT_MM_MULTIPLE}, as a GPU's int8 product needs"
        if precision == "fp8_e4m3" and any(side % FP8_MULTIPLE for side in layer.weight.shape):
            return f"its sides are no multiples of {FP8_MULTIPLE}, as fp8 kernels need"
        if precision == "int8_dynamic_classic" and type(layer) is not torch.nn.Linear:
            return "quantize_dynamic knows plain linear layers only"
        return None

    return {name: why for name, layer in _linears(module).items() if (why := reason(name, layer)) is not None}


def census(module: torch.nn.Module, left: Mapping[str, str]) -> Census:
    """Read back from the module, after `quantise`; `left` is what `left_out` said before it."""
    import torch

    classic = torch.ao.nn.quantized.dynamic.Linear
    layers = {name: m for name, m in module.named_modules() if isinstance(m, torch.nn.Linear | classic)}
    quantised = [
        name for name, m in layers.items() if isinstance(m, classic) or hasattr(m.weight, "__tensor_flatten__")
    ]
    return Census(layers=tuple(layers), quantised=frozenset(quantised), left=left)


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


def _no_integer_product(precision: str, layer: torch.nn.Linear) -> bool:
    sides = layer.weight.shape
    return precision in INT8_PRODUCTS and on_gpu(layer) and any(side % INT_MM_MULTIPLE for side in sides)


def on_gpu(layer: torch.nn.Module) -> bool:
    """Whether a linear layer's weight lies on a GPU."""
    return bool(layer.weight.is_cuda)


def watch_rows(modules: Mapping[str, torch.nn.Module]) -> dict[str, int]:
    """Layer -> rows of the first input that each quantised layer on a GPU gets from now on; filled by the first call,
    after which the layers are as before."""
    seen: dict[str, int] = {}

    def watch(name: str, layer: torch.nn.Module) -> None:
        def hook(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = inputs[0].numel() // inputs[0].shape[-1]
            handle.remove()

        handle = layer.register_forward_pre_hook(hook)

    for component, module in modules.items():
        for name, layer in _linears(module).items():
            if hasattr(layer.weight, "__tensor_flatten__") and on_gpu(layer):
                watch(f"{component}.{name}", layer)
    return seen


def too_few_rows(seen: Mapping[str, int]) -> str | None:
    """Why a row's int8 products were none, by what `watch_rows` saw; None where they were."""
    few = [f"{name} ({rows})" for name, rows in seen.items() if rows < INT_MM_ROWS]
    if not few:
        return None
    shown = ", ".join(few[:3]) + (f" and {len(few) - 3} more" if len(few) > 3 else "")
    return f"torch._int_mm needs {INT_MM_ROWS} rows on a GPU; with fewer torchao multiplies in fp32: {shown}"


def _torchao(module: torch.nn.Module, precision: str, ranges: Ranges) -> None:
    from torchao import quantization as ao

    if precision == "int8_static":
        for name, layer in _linears(module).items():
            # A layer that calibration never reached stays as it is.
            if name in ranges and not _no_integer_product(precision, layer):
                ao.quantize_(layer, _static(ranges[name], layer))
        return
    recipe: Any = {
        "int8_dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "int8_weight_only": ao.Int8WeightOnlyConfig,
        "fp8_e4m3": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow()),
    }[precision]
    for layer in _linears(module).values():  # layer by layer: torchao would quantise a shared one twice, and fail
        if not _no_integer_product(precision, layer):
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
