"""Quantises a torch module in place, as the record of a precision defines it (`harness.numerics.precisions`), and
inspects the result.

Only linear layers are quantised, and only those that the network calls and that multiply by their own weight
(`harness.numerics.linear_use`). This rule holds for every precision.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import reasons
from harness.numerics import linear_use
from harness.numerics.linear_use import Left, Ranges, linears
from harness.reasons import Reason
from harness.registry import PRECISIONS

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Census:
    """Linear layers of one network by name: all of them, those in int8 or fp8, and why others stay unquantised."""

    layers: tuple[str, ...]
    quantised: frozenset[str]
    left: Mapping[str, Reason]

    def fault(self, network: str) -> Reason | None:
        """The reason that names the layers that should be quantised and are not, or None."""
        forgotten = [name for name in self.layers if name not in self.quantised and name not in self.left]
        if not forgotten:
            return None
        counts = {"count": len(forgotten), "layers": len(self.layers)}
        return Reason("layers_not_quantised", {**counts, "component": network, "some": forgotten[:3]})

    def in_words(self) -> str:
        """ "12 of 13; 1 left: its dimensions are not multiples of 16, as fp8 kernels need"."""
        counts = Counter(str(reason) for name, reason in self.left.items() if name not in self.quantised)
        left = "".join(f"; {count} left: {reason}" for reason, count in counts.items())
        return f"{len(self.quantised)} of {len(self.layers)}{left}"


def left_out(
    module: torch.nn.Module, precision: str, ranges: Ranges, unfit: Mapping[str, Reason] | None = None
) -> dict[str, Reason]:
    """The linear layers that stay unquantised, by name, and why. Call it before `quantise`. `unfit` comes from
    observing the network's calls (`linear_use.observed`)."""
    quantiser = PRECISIONS[precision].quantiser

    def reason(name: str, layer: torch.nn.Linear) -> Reason | None:
        if unfit and name in unfit:
            return unfit[name]
        if quantiser.calibrated and name not in ranges:
            return Left.NOT_REACHED
        found: Reason | str | None = quantiser.unfit(layer, ranges.get(name))
        return None if found is None else reasons.of(found)

    return {name: why for name, layer in linears(module).items() if (why := reason(name, layer)) is not None}


def census(module: torch.nn.Module, left: Mapping[str, Reason]) -> Census:
    """The census of a module after `quantise`; `left` is what `left_out` returned before it."""
    import torch

    classic = torch.ao.nn.quantized.dynamic.Linear
    layers = {name: m for name, m in module.named_modules() if isinstance(m, torch.nn.Linear | classic)}
    quantised = [name for name, m in layers.items() if isinstance(m, classic) or is_quantised(m.weight)]
    return Census(layers=tuple(layers), quantised=frozenset(quantised), left=left)


def quantise(
    module: torch.nn.Module, precision: str, ranges: Ranges, left: Mapping[str, Reason] | None = None
) -> torch.nn.Module:
    """`module` itself with its linear layers, if any, quantised as `precision` says, except those in `left` (None:
    those that `left_out` finds without observing the network's calls)."""
    kept = left_out(module, precision, ranges) if left is None else left
    layers = {name: layer for name, layer in linears(module).items() if name not in kept}
    with quiet():
        quantised: torch.nn.Module = PRECISIONS[precision].quantiser.quantise(module, layers, ranges)
    return quantised


def with_torchao(
    module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear], config: Callable[[str, torch.nn.Linear], Any]
) -> torch.nn.Module:
    """`module` itself with `layers` quantised by torchao; `config` makes the configuration of (name, layer)."""
    import torch
    from torchao.quantization import quantize_

    def any_linear(layer: torch.nn.Module, _name: str) -> bool:  # torchao's own filter skips some subclasses
        return isinstance(layer, torch.nn.Linear)

    for name, layer in layers.items():  # layer by layer, because torchao would quantise a shared one twice and fail
        own = config(name, layer)
        own.set_inductor_config = False  # True would change inductor's settings for the rest of the process
        quantize_(layer, own, filter_fn=any_linear)
    return module


def is_quantised(weight: torch.Tensor) -> bool:
    """Whether a weight is one of torchao's quantised tensors, with 8 bits per element or fewer."""
    return hasattr(weight, "__tensor_flatten__") and _bits(weight) <= 8


def stored_dtype(weight: torch.Tensor) -> str:
    """The dtype in which the values of a weight are stored: "float16"; "int4" if a quantised tensor declares it or
    holds two values per byte."""
    stated = getattr(weight, "target_dtype", None)
    held = _values(weight).dtype if stated is None else stated
    name = str(held).removeprefix("torch.").replace("qint8", "int8")
    packed = stated is None and "int" in name and is_quantised(weight) and _bits(weight) < 8
    return f"int{_bits(weight)}" if packed else name


def _values(weight: torch.Tensor) -> Any:
    """The part of a quantised tensor that holds its values and not the scales: the largest one of integers or of one
    byte per element. For a plain tensor it is the tensor itself."""

    def rank(part: torch.Tensor) -> tuple[bool, int]:
        narrow = part.element_size() == 1 or not part.is_floating_point()
        return narrow, part.numel() * part.element_size()

    return max(inner_tensors(weight), key=rank)


def _bits(weight: torch.Tensor) -> int:
    """Bits per element."""
    part = _values(weight)
    return int(8 * part.numel() * part.element_size() // max(weight.numel(), 1))


def on_gpu(layer: torch.nn.Module) -> bool:
    """Whether a linear layer's weight is on a GPU."""
    return bool(layer.weight.is_cuda)


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
    """Suppresses the deprecation warnings that both quantisers give in every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
