"""Quantises a torch module in place, with torchao or the classic quantiser, and inspects the result.

Only linear layers are quantised, weights per output channel, and only those that the network calls and that multiply
by their own weight (`harness.numerics.linear_use`): one rule for every precision. int8_static multiplies int8 by
int8 with one
scale for all activations of a layer, from the largest absolute input that calibration saw: `ranges_of` measures it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.numerics import linear_use
from harness.numerics.linear_use import Left, Range, Ranges, linears
from harness.reasons import Reason

if TYPE_CHECKING:
    import torch

# How linear layers are quantised; the rest of the network may be in any type (`harness.numerics.precision`).
Recipe = Literal["int8_dynamic", "int8_dynamic_classic", "int8_static", "int8_weight_only", "fp8_e4m3"]

INT8_MAX: Final = 127.0
INT8_PRODUCTS: Final = frozenset[Recipe]({"int8_dynamic", "int8_static"})  # activations in int8, too
# What torch._int_mm accepts on a GPU (ATen's cuda/Blas.cpp). With other shapes eager torchao multiplies on the CPU or
# in fp32 (its kernel/intmm.py). inductor calls the same operator; in max-autotune it also tries a Triton kernel without
# a limit on rows (torch/_inductor/kernel/mm.py, tuned_int_mm). All of its modes leave the same layers unquantised.
INT_MM_MULTIPLE: Final = 8
INT_MM_ROWS: Final = 17
FP8_MULTIPLE: Final = 16  # torchao leaves a layer of another size in bf16, and only logs it


@dataclass(frozen=True, kw_only=True)
class Census:
    """Linear layers of one network by name: all of them, those in int8 or fp8, and why others were to be left alone."""

    layers: tuple[str, ...]
    quantised: frozenset[str]
    left: Mapping[str, Left]

    def fault(self, network: str) -> Reason | None:
        """Which layers ought to be quantised and are not, or None."""
        forgotten = [name for name in self.layers if name not in self.quantised and name not in self.left]
        if not forgotten:
            return None
        counts = {"count": len(forgotten), "layers": len(self.layers)}
        return Reason("layers_not_quantised", {**counts, "component": network, "some": forgotten[:3]})

    def in_words(self) -> str:
        """ "12 of 13; 1 left: its dimensions are not multiples of 16, as fp8 kernels need"."""
        reasons = Counter(reason for name, reason in self.left.items() if name not in self.quantised)
        left = "".join(f"; {count} left: {reason}" for reason, count in reasons.items())
        return f"{len(self.quantised)} of {len(self.layers)}{left}"


def left_out(
    module: torch.nn.Module, recipe: Recipe, ranges: Ranges, unfit: Mapping[str, Left] | None = None
) -> dict[str, Left]:
    """The linear layers, by name, that stay unquantised, and why; to be called before `quantise`. `unfit` comes from
    observing the network's calls (`linear_use.observed`)."""
    import torch

    def reason(name: str, layer: torch.nn.Linear) -> Left | None:
        if unfit and name in unfit:
            return unfit[name]
        if recipe == "int8_static" and name not in ranges:
            return Left.NOT_REACHED
        if recipe in INT8_PRODUCTS and on_gpu(layer):
            if any(side % INT_MM_MULTIPLE for side in layer.weight.shape):
                return Left.GPU_SIDES
            if name in ranges and ranges[name].rows < INT_MM_ROWS:
                return Left.GPU_ROWS
        if recipe == "fp8_e4m3" and any(side % FP8_MULTIPLE for side in layer.weight.shape):
            return Left.FP8_SIDES
        if recipe == "int8_dynamic_classic" and type(layer) is not torch.nn.Linear:
            return Left.NOT_PLAIN
        return None

    return {name: why for name, layer in linears(module).items() if (why := reason(name, layer)) is not None}


def census(module: torch.nn.Module, left: Mapping[str, Left]) -> Census:
    """Read back from the module, after `quantise`; `left` is what `left_out` said before it."""
    import torch

    classic = torch.ao.nn.quantized.dynamic.Linear
    layers = {name: m for name, m in module.named_modules() if isinstance(m, torch.nn.Linear | classic)}
    quantised = [name for name, m in layers.items() if isinstance(m, classic) or is_quantised(m.weight)]
    return Census(layers=tuple(layers), quantised=frozenset(quantised), left=left)


def quantise(
    module: torch.nn.Module, recipe: Recipe, ranges: Ranges, left: Mapping[str, Left] | None = None
) -> torch.nn.Module:
    """`module` itself with its linear layers, if any, in int8 or fp8, except those in `left` (None: those that
    `left_out` finds without observing the network's calls)."""
    kept = left_out(module, recipe, ranges) if left is None else left
    layers = {name: layer for name, layer in linears(module).items() if name not in kept}
    with quiet():
        if recipe == "int8_dynamic_classic":
            return _classic(module, layers)
        _torchao(layers, recipe, ranges)
    return module


def is_quantised(weight: torch.Tensor) -> bool:
    """Whether a weight is one of torchao's quantised tensors."""
    return hasattr(weight, "__tensor_flatten__") and inner_tensors(weight)[0].element_size() == 1


def waits_for_gpu(recipe: Recipe | None) -> bool:
    """Whether each product waits for the GPU unless torch.compile traces it. torchao's safe_int_mm (its
    kernel/intmm.py) then formats the input as text, which copies values of it to the host."""
    return recipe in INT8_PRODUCTS


def on_gpu(layer: torch.nn.Module) -> bool:
    """Whether a linear layer's weight lies on a GPU."""
    return bool(layer.weight.is_cuda)


def _torchao(layers: Mapping[str, torch.nn.Linear], recipe: Recipe, ranges: Ranges) -> None:
    import torch
    from torchao import quantization as ao

    def any_linear(layer: torch.nn.Module, _name: str) -> bool:  # torchao's own filter skips some subclasses
        return isinstance(layer, torch.nn.Linear)

    configs: Any = {
        "int8_dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "int8_weight_only": ao.Int8WeightOnlyConfig,
        "fp8_e4m3": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow()),
    }
    for name, layer in layers.items():  # layer by layer: torchao would quantise a shared one twice, and fail
        config = _static(ranges[name], layer) if recipe == "int8_static" else configs[recipe]()
        config.set_inductor_config = False  # True would change inductor's settings for the rest of the process
        ao.quantize_(layer, config, filter_fn=any_linear)


def _static(seen: Range, layer: torch.nn.Linear) -> Any:
    import torch
    from torchao import quantization as ao

    size, weight = max(seen.largest, 1e-12) / INT8_MAX, layer.weight
    # In fp32 under any base, as torchao's own scales are: bf16 would round it by up to 0.4 %.
    scale = torch.full([1] * seen.ndim, size, dtype=torch.float32, device=weight.device)
    return ao.Int8StaticActivationInt8WeightConfig(act_quant_scale=scale, granularity=[ao.PerTensor(), ao.PerRow()])


def _classic(module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear]) -> torch.nn.Module:
    import torch

    if not layers:
        return module
    if isinstance(module, torch.nn.Linear):  # a network that is a single layer: only children are replaced
        return next(_classic(torch.nn.Sequential(module), {"0": module}).children())
    _without_fused_encoder(module)
    recipe = torch.ao.quantization.default_dynamic_qconfig
    quantised: torch.nn.Module = torch.ao.quantization.quantize_dynamic(
        module, dict.fromkeys(layers, recipe), dtype=torch.qint8, inplace=True
    )
    return quantised


def _without_fused_encoder(module: torch.nn.Module) -> None:
    """Makes every nn.TransformerEncoderLayer call its layers: its fused kernel would read their weights, which are no
    longer plain tensors. The result is the same."""
    import torch

    for layer in module.modules():
        if isinstance(layer, torch.nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0


def ranges_of(module: torch.nn.Module, calls: Sequence[tuple[torch.Tensor, ...]]) -> Ranges:
    """The input range of each linear layer that is reached by running `module` on the inputs in `calls`."""
    return linear_use.observed(module, calls).ranges


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
