"""What a precision means, in one place: cast a module, set the global switches, and read back what was cast.

fp32 is IEEE fp32 (TF32 off, also in cuDNN, where torch leaves it on), tf32 is fp32 with TF32 on; bf16 and fp16 are
casts of weights and activations; int8 is torchao's dynamic quantisation of the linear layers (int8 activations per
token, int8 weights per channel), the rest of the network in fp32. A module's floating inputs are cast at its border
and its output is given back in fp32.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "float32"}


def unsupported_by_torch(precision: str, device: str) -> str | None:
    """Why torch cannot run `precision` on "cpu" or "cuda" here; None where it can."""
    import torch

    if precision == "tf32" and device != "cuda":
        return "TF32 is a mode of NVIDIA tensor cores; a CPU has none"
    if precision == "tf32" and torch.cuda.get_device_capability() < (8, 0):
        return "TF32 needs compute capability 8.0 or newer"
    if precision == "fp8_e4m3":
        return "fp8 is not supported by this backend yet"
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU has no bf16"
    if precision == "int8" and importlib.util.find_spec("torchao") is None:
        return "int8 needs the package torchao, which is not installed"
    return None


@contextmanager
def applied(precision: str) -> Iterator[None]:
    """Sets the fp32 mode of matrix products and convolutions on a GPU for the time of the block."""
    import torch

    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def cast(module: torch.nn.Module, precision: str) -> torch.nn.Module:
    """`module` itself, changed in place to `precision`. Raises ValueError where int8 finds no linear layer."""
    import torch

    if precision == "int8":
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_(module, Int8DynamicActivationInt8WeightConfig())
        return module
    return module.to(getattr(torch, DTYPES[precision]))


def bordered(module: Callable[..., torch.Tensor], precision: str, device: str) -> Callable[..., torch.Tensor]:
    """`module` with floating inputs cast to its dtype, all inputs moved to `device`, and an fp32 output."""
    import torch

    dtype = getattr(torch, DTYPES[precision])

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        moved = [x.to(device, dtype if x.is_floating_point() else None) for x in inputs]
        return module(*moved).to(torch.float32)

    return forward


def weights_of(module: torch.nn.Module) -> dict[str, Any]:
    """Read back from the module: bytes of parameters and buffers (each storage once), and parameters by dtype."""
    seen: set[int] = set()
    total, by_dtype = 0, Counter[str]()
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        parts = _inner_tensors(tensor)
        total += sum(t.numel() * t.element_size() for t in parts)
        by_dtype[str(parts[0].dtype).removeprefix("torch.")] += tensor.numel()
    return {"bytes": total, "elements_by_dtype": dict(by_dtype)}


def _inner_tensors(tensor: Any) -> list[Any]:
    """The plain tensors that a quantised tensor subclass is made of (int8 data first), or the tensor itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    names, _ = flatten()
    inner = [part for name in names for part in _inner_tensors(getattr(tensor, name))]
    return sorted(inner, key=lambda t: t.element_size())


def mismatch(elements_by_dtype: dict[str, int], precision: str) -> str | None:
    """Why the weights read back are not of the precision asked for; None where they are."""
    wanted = "int8" if precision == "int8" else DTYPES[precision]
    floating = {d: n for d, n in elements_by_dtype.items() if d.startswith(("float", "bfloat", "int8"))}
    if not floating.get(wanted):
        return f"no weight is {wanted}; found {floating or 'no weights'}"
    if precision != "int8" and len(floating) > 1:
        return f"weights of several dtypes: {floating}"
    return None
