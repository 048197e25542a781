"""What a precision means for a network: the global switches, the casts, and what is read back.

The precisions themselves are records (`harness.numerics.precisions`). A module's floating-point inputs are cast at its
border and its output is returned in fp32. Every quantised row reports the quantised share (`harness.numerics.share`).

A component with `force_upcast` overflows in fp16. In an fp16 row its weights, its activations and its exported file are
therefore in fp32. The row has that as a fact and as a warning.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import devices, reasons
from harness.numerics import quantisation
from harness.numerics.linear_use import NO_RANGES, Ranges
from harness.numerics.precisions import Precision
from harness.reasons import Reason, ReasonedError
from harness.registry import DEVICES, PRECISIONS

if TYPE_CHECKING:
    import torch

    from harness.types import Component


def recipe_of(precision: str) -> str | None:
    """The name of the quantiser of linear layers, whatever the precision of the rest; None if it quantises nothing."""
    quantiser = PRECISIONS[precision].quantiser
    return None if quantiser is None else quantiser.name


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of the activations, and of all weights that are not quantised."""
    import torch

    return getattr(torch, PRECISIONS[precision].activations)


def rest_of(precision: str) -> str:
    """The precision of what is not quantised: "bf16" for int8_static_bf16 and for fp8_e4m3."""
    dtype = PRECISIONS[precision].activations
    return next(p.name for p in PRECISIONS.values() if p.quantiser is None and p.activations == dtype)


def products_of(precision: str) -> str | None:
    """The type in which the matrix products of a row are computed: "int8", "fp8", "tf32", or the precision of what is
    not quantised. None where a quantiser leaves that to the layer (weights alone are quantised)."""
    record: Precision = PRECISIONS[precision]
    if record.quantiser is not None:
        return record.quantiser.products
    return "tf32" if record.tf32 else rest_of(precision)


def unsupported_by_torch(precision: str, device: str) -> Reason | None:
    """Why torch cannot run `precision` on `device` here; None where it can."""
    wanted: Precision = PRECISIONS[precision]
    missing: Reason | str | None = DEVICES[device].unavailable()
    if missing is not None:
        return Reason("no_device", {"why": missing})
    if wanted.quantiser is not None and (reason := wanted.quantiser.unsupported(device)) is not None:
        return reasons.of(reason)
    on_cuda = devices.kind(device) == "cuda"
    if not on_cuda and wanted.needs_gpu is not None:
        return reasons.of(wanted.needs_gpu)
    if on_cuda and (old := too_old(precision)):
        return old
    for package in () if wanted.quantiser is None else wanted.quantiser.packages:
        if importlib.util.find_spec(package) is None:
            return Reason("missing_package", {"package": package, "purpose": precision})
    return None


def waits_for_gpu(precision: str) -> bool:
    """Whether each product of a quantised layer waits for the GPU unless torch.compile traces it. torchao's safe_int_mm
    (its kernel/intmm.py) then formats the input as text, which copies values of it to the host."""
    quantiser = PRECISIONS[precision].quantiser
    return quantiser is not None and bool(quantiser.waits_for_gpu)


def too_old(precision: str) -> Reason | None:
    """Why the tensor cores of this GPU do not compute in `precision`, or None if they do. Such a row would run in
    another precision under this name, or fail."""
    import torch

    needed = PRECISIONS[precision].capability
    if needed is None or torch.cuda.get_device_capability() >= needed:
        return None
    return Reason("compute_capability", {"precision": precision, "needed": f"{needed[0]}.{needed[1]}"})


def of_component(component: Component, row: str) -> str:
    """The precision in which a component runs in a row of precision `row`: with `force_upcast`, fp32 takes the place of
    fp16. The form in which it is exported follows the same rule."""
    if not component.force_upcast or row not in PRECISIONS:  # a recipe that only the exporter knows
        return row
    return PRECISIONS[row].upcast or row


def of_components(components: Iterable[Component], row: str) -> dict[str, str]:
    """Component name -> the precision in which it runs."""
    return {c.name: of_component(c, row) for c in components}


def upcast(components: Iterable[Component], row: str) -> dict[str, str]:
    """Component name -> the precision in which it runs, for the components that do not run in the precision of the
    row."""
    return {name: own for name, own in of_components(components, row).items() if own != row}


def upcast_facts(components: Iterable[Component], row: str) -> dict[str, dict[str, str]]:
    """The fact of a row that has components in another precision; empty for any other row."""
    found = upcast(components, row)
    return {"component_precisions": found} if found else {}


def upcast_warnings(components: Iterable[Component], row: str) -> tuple[Reason, ...]:
    """The warning of each component that does not run in the precision of the row."""
    return tuple(
        Reason("upcast", {"component": name, "precision": own}) for name, own in upcast(components, row).items()
    )


@contextmanager
def applied(precision: str) -> Iterator[None]:
    """Sets the fp32 mode of matrix products and convolutions inside the `with` block, whatever a plugin has set for the
    whole process. TF32 on a GPU and bf16 in fp32 products on a CPU are on only if the row requests them."""
    import torch

    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    products, tf32 = matmul_precision(), PRECISIONS[precision].tf32
    before = [switch.allow_tf32 for switch in switches]
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        for switch in switches:
            switch.allow_tf32 = tf32
        if not tf32 and "tf32" in _fp32_modes():
            raise RuntimeError("a plugin set torch.backends.fp32_precision to tf32, and a row cannot undo that")
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
        if products is not None:
            torch.set_float32_matmul_precision(products)


def matmul_precision() -> str | None:
    """torch's fp32 matmul precision: "highest", "high" or "medium"; None where its older and newer switches
    contradict each other, which torch refuses to read."""
    import torch

    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _fp32_modes() -> set[str]:
    """How matrix products and convolutions compute fp32, by torch's newer switches; "none" inherits the overall one."""
    import torch

    backends: Any = torch.backends
    own = (backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision)
    return {backends.fp32_precision if mode == "none" else mode for mode in own}


def placed(module: torch.nn.Module, precision: str, device: str) -> torch.nn.Module:
    """`module` itself on `device`, with its weights in the base type of `precision`. It is moved tensor by tensor.
    torch converts on the host the tensors that it copies from there (ATen's cuda/Copy.cu), so a GPU never holds a wider
    copy."""
    return module.to(device, dtype_of(precision))


def cast(
    module: torch.nn.Module,
    precision: str,
    ranges: Ranges = NO_RANGES,
    left: Mapping[str, Reason] | None = None,
) -> torch.nn.Module:
    """`module` itself, changed in place to `precision`. `ranges` come from calibration, where the precision needs it;
    `left` are linear layers to leave unquantised."""
    module = module.to(dtype_of(precision))
    return module if recipe_of(precision) is None else quantisation.quantise(module, precision, ranges, left)


class NotOneTensor(ReasonedError, TypeError):
    """A network's forward returned something other than one tensor; `str()` is one line for the user."""


def one_tensor(found: Any, network: object) -> torch.Tensor:
    """`found` itself, the output of `network`. Raises NotOneTensor, which says what it is and how to wrap the network,
    if it is anything other than one tensor."""
    import torch

    if isinstance(found, torch.Tensor):
        return found
    name = type(getattr(network, "_orig_mod", network)).__name__  # torch.compile's wrapper is not the user's class
    raise NotOneTensor(f"the network {name} returns {_kind(found)} but it must return one tensor: {_mend(found)}")


def _kind(found: Any) -> str:
    if found is None:
        return "None"
    if type(found) in {tuple, list}:
        return f"a {type(found).__name__} of {len(found)}"
    if isinstance(found, Mapping):
        kind = "a dict" if type(found) is dict else f"an object of the type {type(found).__name__}"
        return f"{kind} with the keys {', '.join(map(str, found))}" if found else f"{kind} without a key"
    return f"an object of the type {type(found).__name__}"


def _mend(found: Any) -> str:
    """The code that fixes the output, for the error message."""
    if found is None:
        return "let its forward return the tensor"
    taken = ""
    if isinstance(found, Mapping) and found:
        taken = f"[{'logits' if 'logits' in found else next(iter(found))!r}]"
    elif isinstance(found, tuple | list) and len(found):
        taken = "[0]"
    elif hasattr(found, "logits"):
        taken = ".logits"
    if not taken:
        return "wrap it in a torch.nn.Module whose forward returns the one output tensor"
    return f"wrap it in a torch.nn.Module whose forward ends in `return self.network(*inputs){taken}`"


def bordered(module: Callable[..., torch.Tensor], precision: str, device: str) -> Callable[..., torch.Tensor]:
    """`module` with floating inputs cast to its dtype, all inputs moved to `device`, and an fp32 output. The forward
    raises NotOneTensor if the module returns anything other than one tensor."""
    return cast_at_border(module, dtype_of(precision), device)


def cast_at_border(module: Callable[..., torch.Tensor], dtype: torch.dtype, device: str) -> Callable[..., torch.Tensor]:
    """The same for a module whose weights are in `dtype`."""
    import torch

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        moved = [x.to(device, dtype if x.is_floating_point() else None) for x in inputs]
        return one_tensor(module(*moved), module).to(torch.float32)

    return forward


def weights_of(module: torch.nn.Module) -> dict[str, Any]:
    """Read back from the module: bytes of parameters and buffers (each storage once), and parameters by dtype."""
    seen: set[int] = set()
    total, by_dtype = 0, Counter[str]()
    for tensor in (*module.parameters(), *module.buffers(), *quantisation.packed_tensors(module)):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        total += sum(t.numel() * t.element_size() for t in quantisation.inner_tensors(tensor))
        by_dtype[quantisation.stored_dtype(tensor)] += tensor.numel()
    return {"bytes": total, "elements_by_dtype": dict(by_dtype)}


def mismatch(
    elements_by_dtype: Mapping[str, int], precision: str, row: Mapping[str, int] | None = None
) -> Reason | None:
    """Why the weights that were read back are not of the requested precision; None if they are. If these are the
    weights of some components only, `row` has those of all. The type that the precision is named after must occur in
    the row, but not in each component, because a component may have no layer to quantise."""
    wanted: Precision = PRECISIONS[precision]
    floating, of_row = (_floating(found) for found in (elements_by_dtype, elements_by_dtype if row is None else row))
    if not of_row.get(wanted.weights):
        return Reason("no_weight_of_dtype", {"dtype": wanted.weights, "found": of_row})
    if floating.keys() - {wanted.weights, wanted.activations}:
        return Reason("weights_of_several_dtypes", {"found": of_row})
    return None


def _floating(elements_by_dtype: Mapping[str, int]) -> dict[str, int]:
    """The weights whose type a precision determines: those that are floating-point or quantised."""
    named_after = {precision.weights for precision in PRECISIONS.values()}
    return {d: n for d, n in elements_by_dtype.items() if d.startswith(("float", "bfloat")) or d in named_after}
