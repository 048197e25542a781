"""Optimisations by name: changes beside backend and precision, each with evidence that it took effect.

A case names none, one, or several joined by "+". One that is not available here, or that changes nothing in this model
(tiling of an image that fits in one tile, projections that are already fused), makes the row `skipped` with the reason.
No row is therefore named after an optimisation without effect. A new optimisation is one entry in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from harness import devices, entries
from harness.entries import BadEntry
from harness.numerics import attention, precision
from harness.quoting import quoted
from harness.reasons import Reason
from harness.registry import BACKENDS, DEVICES, OPTIMIZATIONS, nearest
from harness.types import Case, Component, Unavailable

if TYPE_CHECKING:
    import torch

# The features that an optimisation may need and that a backend declares in `features`. A backend may define its own.
MODULE: Final = "module"  # the backend runs the torch module itself, with torch's kernels
EACH_CALL: Final = "each call"  # the backend runs the module's Python code in every call, and does not trace it
GRAD_MODE: Final = "grad mode"  # the backend calls torch's operators under the grad mode of the caller
FREE_SHAPES: Final = "free shapes"  # the backend accepts other batch and image sizes than those of the example
NONE: Final = "none"
NO_KERNEL: Final = ("No viable backend for scaled_dot_product_attention was found", "No available kernel")

Offload = Literal["networks", "layers"]
Change = Callable[[Sequence[Component]], str]  # changes the modules in place and returns what it changed, in words


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """`group` is a set of alternatives, of which a case may name one. `change` is None if the backend (a graph level,
    offloading) or the whole process (inference mode) applies the optimisation. `attention` replaces torch's function.
    `needs` is the feature that a backend must declare in `features`, or None if the changed module suffices. `only_on`
    are torch's types of the devices that support it; by default all do. With `inference_mode` everything runs under
    torch.inference_mode(). `offload` says what the eager backend moves to the device, one after the other: whole
    networks or their layers."""

    label: str
    description: str
    group: str
    needs: str | None = MODULE
    only_on: frozenset[str] | None = None
    change: Change | None = None
    attention: attention.Attention | None = None
    inference_mode: bool = False
    offload: Offload | None = None

    @property
    def backends(self) -> tuple[str, ...]:
        """The registered backends that support it, in alphabetical order."""
        return tuple(sorted(name for name, b in BACKENDS.items() if self.needs in (None, *getattr(b, "features", ()))))

    @property
    def devices(self) -> tuple[str, ...]:
        """The registered devices that support it, in alphabetical order."""
        return tuple(sorted(name for name in DEVICES if self.only_on is None or devices.kind(name) in self.only_on))


FIELDS: Final = {
    "label": entries.LINE,
    "description": entries.LINE,
    "group": entries.LINE,
    "needs": entries.optional(entries.LINE),
    "only_on": entries.optional(entries.NAMES),
    "change": entries.optional(entries.FUNCTION),
    "attention": entries.optional(entries.FUNCTION),
    "inference_mode": entries.BOOLEAN,
    "offload": entries.one_of(*get_args(Offload), None),
}


@OPTIMIZATIONS.checked_by
def _check(subject: str, name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Optimization)
    entries.demand(subject, entry, FIELDS)
    if "+" in name or name != name.strip() or name == NONE:
        raise BadEntry(f"{subject}: the name must not contain '+', which joins names, and must not be {NONE!r}")


def names(case: Case) -> tuple[str, ...]:
    """The optimisations of a case, in alphabetical order."""
    return tuple((case.optimizations or "").split("+")) if case.optimizations else ()


def canonical(value: Any) -> str | None:
    """`value` as a case holds it: names in alphabetical order, joined by "+"; None for "none".

    Raises ValueError, in one line, for an unknown name, a repeated name, or two names of one group.
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
            raise ValueError(f"{name} is named twice" if twice else f"{groups[group]} and {name} exclude each other")
        groups[group] = name
    return "+".join(found)


def unavailable(case: Case, device: str) -> Reason | None:
    """Why one of the case's optimisations is not available with its backend on `device`, or None."""
    for name in names(case):
        entry = OPTIMIZATIONS[name]
        if case.backend not in entry.backends:
            able = {"optimization": name, "backends": list(entry.backends), "backend": case.backend}
            return Reason("optimization_of_other_backends", able)
        if device not in entry.devices:
            return Reason("needs_gpu", {"what": name, "device": device})
    return None


@contextmanager
def in_force(case: Case) -> Iterator[None]:
    """Applies the grad mode and attention of the case to everything that is built and run in the `with` block."""
    chosen = [entry.attention for name in names(case) if (entry := OPTIMIZATIONS[name]).attention is not None]
    with grad_mode(names(case)), attention.exchanged(chosen[0]) if chosen else nullcontext():
        yield


def grad_mode(chosen: Sequence[str]) -> Any:
    """`torch.inference_mode()` if one of the optimisations `chosen` requires it, else `torch.no_grad()`."""
    import torch

    return torch.inference_mode() if any(OPTIMIZATIONS[n].inference_mode for n in chosen) else torch.no_grad()


def offload(chosen: Sequence[str]) -> Offload | None:
    """What the optimisations `chosen` move to the device one after the other, or None."""
    return next((how for name in chosen if (how := OPTIMIZATIONS[name].offload) is not None), None)


def apply(case: Case, components: Sequence[Component]) -> dict[str, str]:
    """Changes the modules in place. Returns what each optimisation changed. Call it inside `in_force`. Raises
    Unavailable."""
    return {name: change(components) for name in names(case) if (change := OPTIMIZATIONS[name].change) is not None}


@contextmanager
def kernels_or_unavailable(case: Case) -> Iterator[None]:
    """Raises Unavailable, with torch's message, if the attention kernel that the case names cannot run."""
    chosen = next((name for name in names(case) if OPTIMIZATIONS[name].attention is not None), None)
    try:
        yield
    except RuntimeError as error:
        said = next((text for text in NO_KERNEL if text in str(error)), None)
        if chosen is None or said is None:
            raise
        why = Reason("no_attention_kernel", {"optimization": chosen, "error": said.rstrip(".")})
        raise Unavailable(why) from error


def reached(case: Case, components: Sequence[Component], device: str) -> dict[str, str]:
    """How often each network calls the attention of the case, by optimisation. Each network is called once as the build
    left it, cast and on the device, because only such a call proves that the kernel runs. Raises Unavailable if no
    network calls it."""
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
        raise Unavailable(Reason("no_attention", {"optimization": name}))
    return "attention calls: " + ", ".join(f"{n} in {network}" for network, n in calls.items() if n)


def _channels_last(components: Sequence[Component]) -> str:
    import torch

    kernels = [w for c in components for w in _convolutions(c.module)]
    if not kernels:
        raise Unavailable(Reason("no_convolution"))
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
    """Fuses each attention separately, because only some models of diffusers can switch all of them (DiT cannot)."""
    fused = {c.name: sum(_fuse(module) for module in c.module.modules()) for c in components}
    if not any(fused.values()):
        raise Unavailable(Reason("no_projections"))
    return "attention blocks: " + ", ".join(f"{n} in {name}" for name, n in fused.items() if n)


def _fuse(module: Any) -> bool:
    """Fuses the projections of one attention if it is a plain one of diffusers. Returns whether it did."""
    if type(getattr(module, "processor", None)).__name__ != "AttnProcessor2_0" or module.fused_projections:
        return False
    from diffusers.models.attention_processor import FusedAttnProcessor2_0

    module.fuse_projections()
    module.set_processor(FusedAttnProcessor2_0())
    return True


def _sliced_vae(components: Sequence[Component]) -> str:
    return _divided_vae(components, "vae_slicing", "enable_slicing", "nothing_to_slice")


def _tiled_vae(components: Sequence[Component]) -> str:
    return _divided_vae(components, "vae_tiling", "enable_tiling", "one_tile")


def _divided_vae(components: Sequence[Component], name: str, switch: str, otherwise: str) -> str:
    """Switches slicing or tiling on, and runs the VAE once to count the calls of its inner decoder."""
    able: list[tuple[Component, Any]] = [(c, m) for c in components for m in c.module.modules() if hasattr(m, switch)]
    if not able:
        raise Unavailable(Reason("no_vae", {"optimization": name}))
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
        raise Unavailable(Reason(otherwise, {"optimization": name}))
    return f"{calls} calls of the decoder in one decoding"


def _add(name: str, label: str, description: str, group: str, **more: Any) -> None:
    OPTIMIZATIONS.register(name, Optimization(label=label, description=description, group=group, **more))


_CUDA = frozenset({"cuda"})

_add(
    "attention_math", "math attention", "softmax(q kᵀ) v as three operators, with the whole matrix in memory",
    "attention", attention=attention.math_attention,
)  # fmt: skip
_add(
    "attention_sliced", "sliced attention", "math attention for one item and one head at a time, with less memory",
    "attention", attention=attention.sliced,
)  # fmt: skip
_add(
    "attention_chunked", "chunked attention",
    f"math attention for {attention.BLOCKS} blocks of queries, one after the other",
    "attention", attention=attention.chunked,
)  # fmt: skip
_add(
    "attention_flash", "flash attention", "torch's flash kernel; the row is skipped if it cannot run",
    "attention", attention=attention.by_kernel("FLASH_ATTENTION"), only_on=_CUDA,
)  # fmt: skip
_add(
    "attention_efficient", "memory-efficient attention",
    "torch's memory-efficient kernel; the row is skipped if it cannot run",
    "attention", attention=attention.by_kernel("EFFICIENT_ATTENTION"), only_on=_CUDA,
)  # fmt: skip
_add(
    "attention_cudnn", "cuDNN attention", "cuDNN's fused kernel; the row is skipped if it cannot run",
    "attention", attention=attention.by_kernel("CUDNN_ATTENTION"), only_on=_CUDA,
)  # fmt: skip
_add(
    "channels_last", "channels last", "convolution weights in the memory format NHWC",
    "memory format", change=_channels_last,
)  # fmt: skip
_add(
    "fused_qkv", "fused QKV", "the projections of query, key and value as one matrix product (diffusers)",
    "projections", change=_fused_qkv, needs=None,
)  # fmt: skip
_add(
    "vae_slicing", "VAE slicing", "the VAE decodes one image of the batch at a time, with less memory",
    "VAE slicing", change=_sliced_vae, needs=EACH_CALL,
)  # fmt: skip
_add(
    "vae_tiling", "VAE tiling", "the VAE decodes overlapping tiles, with less memory for large images",
    "VAE tiling", change=_tiled_vae, needs=EACH_CALL,
)  # fmt: skip
_add(
    "model_cpu_offload", "model CPU offload", "each network is moved to the GPU as a whole while it runs (accelerate)",
    "offload", needs=EACH_CALL, only_on=_CUDA, offload="networks",
)  # fmt: skip
_add(
    "sequential_cpu_offload", "sequential CPU offload", "each layer is moved to the GPU while it runs (accelerate)",
    "offload", needs=EACH_CALL, only_on=_CUDA, offload="layers",
)  # fmt: skip
_add(
    "inference_mode", "inference mode", "torch.inference_mode() instead of torch.no_grad()",
    "grad mode", needs=GRAD_MODE, inference_mode=True,
)  # fmt: skip
_add(
    "dynamic_batch", "dynamic batch", "an export (TensorRT: an engine) that also accepts other batch sizes",
    "free batch", needs=FREE_SHAPES,
)  # fmt: skip
_add(
    "dynamic_size", "dynamic size", "an export that also accepts other image sizes (TensorRT: half to twice the size)",
    "free size", needs=FREE_SHAPES,
)  # fmt: skip
