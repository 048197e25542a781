"""Optimisations by name: what people switch on beside a backend and a precision, each with proof that it did something.

A case names none, one, or several joined by "+". One that cannot be had here, or that changes nothing in this model
(tiling of a picture that fits in one tile, a fused projection that is fused already), makes the row `skipped` with the
reason: a row must not carry a name that did nothing. Adding one is one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.numerics import attention, precision
from harness.quoting import quoted
from harness.registry import Registry, nearest
from harness.types import Case, Component, Unavailable

if TYPE_CHECKING:
    import torch

TORCH_BACKENDS: Final = frozenset(
    {"eager", "torch_compile", "torch_compile_max_autotune", "torch_compile_reduce_overhead", "cuda_graphs"}
)
ONNX_RUNTIME: Final = frozenset({"onnxruntime", "onnxruntime_tensorrt"})
ANY_DEVICE: Final = frozenset({"cpu", "cuda"})
NONE: Final = "none"
NO_KERNEL: Final = ("No viable backend for scaled_dot_product_attention was found", "No available kernel")

Change = Callable[[Sequence[Component]], str]  # changes the modules in place and says what it changed, in words


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """`group` is the choice that it is one of: a case may name one of a group. `change` is None where the backend does
    it (a graph level, offloading) or the whole process (inference mode); `attention` takes the place of torch's."""

    label: str
    description: str
    group: str
    backends: frozenset[str] = TORCH_BACKENDS
    devices: frozenset[str] = ANY_DEVICE
    change: Change | None = None
    attention: attention.Attention | None = None


OPTIMIZATIONS: Final[Registry[Optimization]] = Registry("optimisation")


def names(case: Case) -> tuple[str, ...]:
    """The optimisations of a case, in alphabetical order."""
    return tuple((case.optimizations or "").split("+")) if case.optimizations else ()


def canonical(value: Any) -> str | None:
    """`value` as a case holds it: names in alphabetical order, joined by "+"; None for "none".

    Raises ValueError, in one line, for an unknown name, a name twice, or two of one group.
    """
    if value is None or value == NONE:
        return None
    if not isinstance(value, str) or not value:
        raise ValueError(f"{quoted(value)} must be {NONE} or names joined by '+': {', '.join(OPTIMIZATIONS)}")
    found = sorted(part.strip() for part in value.split("+"))
    groups: dict[str, str] = {}
    for name in found:
        if name not in OPTIMIZATIONS:
            raise ValueError(f"unknown optimisation {quoted(name)}; {nearest(name, list(OPTIMIZATIONS))}")
        group = OPTIMIZATIONS[name].group
        if group in groups:
            twice = groups[group] == name
            raise ValueError(f"{name} twice" if twice else f"{groups[group]} and {name} exclude each other")
        groups[group] = name
    return "+".join(found)


def unavailable(case: Case, device: str) -> str | None:
    """Why one of the case's optimisations cannot be had with its backend on "cpu" or "cuda", or None."""
    for name in names(case):
        entry = OPTIMIZATIONS[name]
        if case.backend not in entry.backends:
            return f"{name} is for {', '.join(sorted(entry.backends))}, not for {case.backend}"
        if device not in entry.devices:
            return f"{name} needs an NVIDIA GPU; the device here is a CPU"
    return None


@contextmanager
def in_force(case: Case) -> Iterator[None]:
    """Grad mode and attention of the case, for everything that is built and run in the block."""
    chosen = [entry.attention for name in names(case) if (entry := OPTIMIZATIONS[name]).attention is not None]
    with grad_mode(names(case)), attention.exchanged(chosen[0]) if chosen else nullcontext():
        yield


def grad_mode(chosen: Sequence[str]) -> Any:
    """`torch.inference_mode()` where it was asked for, else `torch.no_grad()`."""
    import torch

    return torch.inference_mode() if "inference_mode" in chosen else torch.no_grad()


def apply(case: Case, components: Sequence[Component]) -> dict[str, str]:
    """Changes the modules in place; optimisation -> what it changed. Called inside `in_force`. Raises Unavailable."""
    return {name: change(components) for name in names(case) if (change := OPTIMIZATIONS[name].change) is not None}


@contextmanager
def kernels_or_unsupported(case: Case) -> Iterator[None]:
    """Raises Unavailable, with torch's words, where the attention kernel that the case names cannot run there."""
    chosen = next((name for name in names(case) if OPTIMIZATIONS[name].attention is not None), None)
    try:
        yield
    except RuntimeError as error:
        said = next((text for text in NO_KERNEL if text in str(error)), None)
        if chosen is None or said is None:
            raise
        raise Unavailable(f"{chosen}: {said.rstrip('.')} for these shapes and this precision on this device") from error


def reached(case: Case, components: Sequence[Component], device: str) -> dict[str, str]:
    """The attention of the case -> how often each network calls it: one call of each as it is after the build, cast and
    on the device, since a kernel that was not asked there is not proven. Raises Unavailable where none calls it."""
    chosen = [name for name in names(case) if OPTIMIZATIONS[name].attention is not None]
    return {name: _attention_calls(name, case.precision, components, device) for name in chosen}


def _attention_calls(name: str, wanted: str, components: Sequence[Component], device: str) -> str:
    calls: dict[str, int] = {}
    for component in components:
        with attention.counted() as count:
            own = precision.of_component(component, wanted)
            precision.bordered(component.module, own, device)(*component.inputs)
        calls[component.name] = count()
    if not any(calls.values()):
        raise Unavailable(f"{name}: no network of this model calls scaled_dot_product_attention")
    return "attention calls: " + ", ".join(f"{n} in {network}" for network, n in calls.items() if n)


def _channels_last(components: Sequence[Component]) -> str:
    import torch

    kernels = [w for c in components for w in _convolutions(c.module)]
    if not kernels:
        raise Unavailable("channels_last: this model has no two-dimensional convolution")
    for component in components:
        component.module.to(memory_format=torch.channels_last)
    moved = [w for c in components for w in _convolutions(c.module) if _is_channels_last(w)]
    return f"{len(moved)} of {len(kernels)} convolutions"


def _convolutions(module: torch.nn.Module) -> list[torch.Tensor]:
    weights = (getattr(m, "weight", None) for m in module.modules())
    return [w for w in weights if w is not None and w.ndim == 4]


def _is_channels_last(weight: torch.Tensor) -> bool:
    import torch

    return weight.is_contiguous(memory_format=torch.channels_last)


def _fused_qkv(components: Sequence[Component]) -> str:
    """Every attention of diffusers by itself: only some of its models have a switch for all of them (DiT has none)."""
    fused = {c.name: sum(_fuse(module) for module in c.module.modules()) for c in components}
    if not any(fused.values()):
        raise Unavailable("fused_qkv: this model has no projections that can be fused (timm's are already)")
    return "attention blocks: " + ", ".join(f"{n} in {name}" for name, n in fused.items() if n)


def _fuse(module: Any) -> bool:
    """Fuses the projections of one attention where it is one of diffusers' plain ones; whether it was."""
    if type(getattr(module, "processor", None)).__name__ != "AttnProcessor2_0" or module.fused_projections:
        return False
    from diffusers.models.attention_processor import FusedAttnProcessor2_0

    module.fuse_projections()
    module.set_processor(FusedAttnProcessor2_0())
    return True


def _sliced_vae(components: Sequence[Component]) -> str:
    return _divided_vae(components, "vae_slicing", "enable_slicing", "a batch of one has nothing to slice")


def _tiled_vae(components: Sequence[Component]) -> str:
    return _divided_vae(components, "vae_tiling", "enable_tiling", "a picture of this size fits in one tile")


def _divided_vae(components: Sequence[Component], name: str, switch: str, otherwise: str) -> str:
    """Switches it on, and runs the VAE once to count how often its inner decoder is called."""
    able: list[tuple[Component, Any]] = [(c, m) for c in components for m in c.module.modules() if hasattr(m, switch)]
    if not able:
        raise Unavailable(f"{name}: this model has no VAE")
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    for component, vae in able:
        getattr(vae, switch)()
        handle = vae.decoder.register_forward_hook(count)
        try:
            component.module(*component.inputs)
        finally:
            handle.remove()
    if calls <= len(able):
        raise Unavailable(f"{name}: {otherwise}")
    return f"{calls} calls of the decoder in one decoding"


def _add(name: str, label: str, description: str, group: str, **more: Any) -> None:
    OPTIMIZATIONS.register(name, Optimization(label=label, description=description, group=group, **more))


_CUDA = frozenset({"cuda"})
_EAGER = frozenset({"eager"})

_add(
    "attention_math", "math attention", "softmax(q kᵀ) v as three operators, the whole matrix of weights in memory",
    "attention", attention=attention.math_attention,
)  # fmt: skip
_add(
    "attention_sliced", "sliced attention", "the same for one item and one head at a time: less memory",
    "attention", attention=attention.sliced,
)  # fmt: skip
_add(
    "attention_chunked", "chunked attention", f"the same for {attention.BLOCKS} blocks of queries, one after the other",
    "attention", attention=attention.chunked,
)  # fmt: skip
_add(
    "attention_flash", "flash attention", "torch's flash kernel, and an error where it cannot run",
    "attention", attention=attention.by_kernel("FLASH_ATTENTION"), devices=_CUDA,
)  # fmt: skip
_add(
    "attention_efficient", "memory-efficient attention", "torch's memory-efficient kernel, or an error",
    "attention", attention=attention.by_kernel("EFFICIENT_ATTENTION"), devices=_CUDA,
)  # fmt: skip
_add(
    "attention_cudnn", "cuDNN attention", "cuDNN's fused kernel, and an error where it cannot run",
    "attention", attention=attention.by_kernel("CUDNN_ATTENTION"), devices=_CUDA,
)  # fmt: skip
_add(
    "channels_last", "channels last", "weights of convolutions in the memory format NHWC",
    "memory format", change=_channels_last,
)  # fmt: skip
_add(
    "fused_qkv", "fused QKV", "the projections of query, key and value as one matrix product (diffusers)",
    "projections", change=_fused_qkv, backends=TORCH_BACKENDS | ONNX_RUNTIME | {"openvino", "tensorrt"},
)  # fmt: skip
_add(
    "vae_slicing", "VAE slicing", "the VAE decodes one picture of the batch at a time: less memory",
    "VAE slicing", change=_sliced_vae, backends=_EAGER,
)  # fmt: skip
_add(
    "vae_tiling", "VAE tiling", "the VAE decodes overlapping tiles: less memory for large pictures",
    "VAE tiling", change=_tiled_vae, backends=_EAGER,
)  # fmt: skip
_add(
    "model_cpu_offload", "model CPU offload", "each network is moved to the GPU for its turn, whole (accelerate)",
    "offload", backends=_EAGER, devices=_CUDA,
)  # fmt: skip
_add(
    "sequential_cpu_offload", "sequential CPU offload", "each layer is moved to the GPU for its turn (accelerate)",
    "offload", backends=_EAGER, devices=_CUDA,
)  # fmt: skip
_add(
    "inference_mode", "inference mode", "torch.inference_mode() instead of torch.no_grad()",
    "grad mode", backends=TORCH_BACKENDS - {"cuda_graphs"},
)  # fmt: skip
_add(
    "dynamic_batch", "dynamic batch", "an export (TensorRT: an engine) that takes other batch sizes, too",
    "free batch", backends=ONNX_RUNTIME | {"openvino", "tensorrt"},
)  # fmt: skip
_add(
    "dynamic_size", "dynamic size", "an export that takes other picture sizes, too (TensorRT: from half to twice)",
    "free size", backends=ONNX_RUNTIME | {"openvino", "tensorrt"},
)  # fmt: skip
for _level, _what in (("off", "none"), ("basic", "redundant nodes only"), ("extended", "all but layout changes")):
    _add(
        f"graph_{_level}", f"graph optimisation {_level}", f"ONNX Runtime's graph optimisations: {_what}",
        "graph level", backends=ONNX_RUNTIME,
    )  # fmt: skip
