"""What a precision means, in one place: the words, the global switches, the casts, and what is read back.

fp32               IEEE fp32: TF32 off, also in cuDNN, where torch leaves it on
tf32               fp32 with TF32 on
bf16, fp16         weights and activations cast
int8_dynamic       int8 weights per channel; activations are quantised at run time from their own range
int8_dynamic_classic   the same by torch.ao.quantization.quantize_dynamic: one range for all rows (FBGEMM), CPU only
int8_static        int8 weights per channel, int8 activations with calibrated ranges (Q/DQ in ONNX)
int8_weight_only   int8 weights per channel, multiplied in the activations' own dtype
fp8_e4m3           bf16 with linear layers in fp8: weights per channel, activations per row at run time. In TensorRT
                   one scale per tensor, with calibrated ranges (Q/DQ)

int8_dynamic, int8_static and int8_weight_only leave the rest of the network in fp32. With the suffix _bf16 or _fp16
(int8_dynamic_bf16) the rest is in that type, which is how such networks are run on a GPU.

torchao quantises for the torch backends (`harness.numerics.quantisation`), ONNX Runtime's quantiser for the ONNX ones
(`harness.backends.onnx.export`): linear layers and matrix products, and for ONNX int8_static convolutions too. Every
row reports
the quantised share (`harness.numerics.share`). A module's floating-point inputs are cast at its border and its
output is returned in fp32.

A component with `force_upcast` overflows in fp16. In an fp16 row its weights, its activations and its exported file are
therefore in fp32. The row has that as a fact and as a warning.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.numerics import quantisation
from harness.numerics.linear_use import NO_RANGES, Left, Ranges
from harness.numerics.quantisation import Recipe
from harness.reasons import Reason

if TYPE_CHECKING:
    import torch

    from harness.types import Component

Capability = tuple[int, int]
FP8_CAPABILITY: Final[Capability] = (8, 9)  # Ada, then Hopper: the first tensor cores that multiply e4m3
AMPERE: Final[Capability] = (8, 0)  # the first tensor cores that multiply bf16 and TF32


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One precision.

    activations   torch's dtype of the activations, and of all weights that are not quantised
    recipe        how linear layers are quantised; None where none is
    stored        torch's dtype of the weights that the precision is named after
    base          the type that the name gives for the rest of a quantised network ("bf16"); None where it gives none
    gpu_only      whether it needs an NVIDIA GPU
    capability    the lowest compute capability of a GPU whose tensor cores compute in it; None for any
    tolerance     its column in the tables of `harness.numerics.tolerance`
    """

    name: str
    activations: str
    recipe: Recipe | None = None
    stored: str
    base: str | None = None
    gpu_only: bool = False
    capability: Capability | None = None
    tolerance: str


def _plain(name: str, dtype: str, **needs: Any) -> Precision:
    return Precision(name=name, activations=dtype, stored=dtype, tolerance=name, **needs)


def _int8(recipe: Recipe) -> Precision:
    return Precision(name=recipe, activations="float32", recipe=recipe, stored="int8", tolerance="int8")


def _int8_over(base: Precision, recipe: Recipe) -> Precision:
    """`recipe` with the rest of the network in `base`."""
    return Precision(
        name=f"{recipe}_{base.name}",
        activations=base.activations,
        recipe=recipe,
        stored="int8",
        base=base.name,
        capability=base.capability,
        tolerance="int8",
    )


_BF16: Final = _plain("bf16", "bfloat16", capability=AMPERE)
_FP16: Final = _plain("fp16", "float16")
_OVER_NARROW: Final[tuple[Recipe, ...]] = ("int8_dynamic", "int8_static", "int8_weight_only")
_ALL: Final = (
    _plain("fp32", "float32"),
    _plain("tf32", "float32", gpu_only=True, capability=AMPERE),
    _BF16,
    _FP16,
    *(_int8(recipe) for recipe in ("int8_dynamic", "int8_dynamic_classic", "int8_static", "int8_weight_only")),
    *(_int8_over(base, recipe) for recipe in _OVER_NARROW for base in (_BF16, _FP16)),
    Precision(
        name="fp8_e4m3",
        activations="bfloat16",
        recipe="fp8_e4m3",
        stored="float8_e4m3fn",
        gpu_only=True,
        capability=FP8_CAPABILITY,
        tolerance="fp8",
    ),
)
BY_NAME: Final[Mapping[str, Precision]] = {precision.name: precision for precision in _ALL}
PRECISIONS: Final[tuple[str, ...]] = tuple(BY_NAME)
DTYPES: Final = {name: precision.activations for name, precision in BY_NAME.items()}
QUANTISED: Final = {name: precision.stored for name, precision in BY_NAME.items() if precision.recipe}


def recipe_of(precision: str) -> Recipe | None:
    """How `precision` quantises linear layers, whatever the rest of the network is in; None where it does not."""
    return BY_NAME[precision].recipe


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of the activations, and of all weights that are not quantised."""
    import torch

    return getattr(torch, DTYPES[precision])


def rest_of(precision: str) -> str:
    """The precision of what is not quantised: "bf16" for int8_static_bf16 and for fp8_e4m3."""
    return next(p.name for p in _ALL if p.recipe is None and p.activations == DTYPES[precision])


def unsupported_by_torch(precision: str, device: str) -> Reason | None:
    """Why torch cannot run `precision` on "cpu" or "cuda" here; None where it can."""
    from harness.devices import cuda

    wanted = BY_NAME[precision]
    if device == "cuda" and (why := cuda.unavailable()):
        return Reason("no_device", {"why": why})
    if wanted.recipe == "int8_dynamic_classic":
        return _classic_unsupported(device)
    if wanted.gpu_only and device != "cuda":
        return _NEEDS_GPU[precision]
    if device == "cuda" and (reason := too_old(precision)):
        return reason
    if wanted.recipe is not None and importlib.util.find_spec("torchao") is None:
        return Reason("missing_package", {"package": "torchao", "purpose": precision})
    return None


_NEEDS_GPU: Final = {
    "tf32": Reason("tf32_needs_gpu"),
    "fp8_e4m3": Reason("fp8_needs_gpu"),
}


def too_old(precision: str) -> Reason | None:
    """Why the tensor cores of this GPU do not compute in `precision`, or None where they do. The row would run in
    another precision under this name, or fail."""
    import torch

    needed = BY_NAME[precision].capability
    if needed is None or torch.cuda.get_device_capability() >= needed:
        return None
    return Reason("compute_capability", {"precision": precision, "needed": f"{needed[0]}.{needed[1]}"})


def of_component(component: Component, row: str) -> str:
    """The precision in which a component runs in a row of precision `row`: with `force_upcast`, fp32 takes the place of
    fp16. The form in which it is exported follows the same rule."""
    if not component.force_upcast:
        return row
    return "fp32" if row == "fp16" else row.removesuffix("_fp16")


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


def _classic_unsupported(device: str) -> Reason | None:
    import torch

    if device != "cpu":
        return Reason("classic_on_cpu_only")
    if not hasattr(torch.ao.quantization, "quantize_dynamic"):
        return Reason("classic_gone", {"version": str(torch.__version__)})
    engine = torch.backends.quantized.engine
    return None if engine not in {"none", ""} else Reason("no_quantised_engine")


@contextmanager
def applied(precision: str) -> Iterator[None]:
    """Sets the fp32 mode of matrix products and convolutions for the time of the block, whatever a plugin has set for
    the whole process: TF32 on a GPU, and bf16 in fp32 products on a CPU, are on only where the row asks for them."""
    import torch

    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    products = matmul_precision()
    before = [switch.allow_tf32 for switch in switches]
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        for switch in switches:
            switch.allow_tf32 = precision == "tf32"
        if precision != "tf32" and "tf32" in _fp32_modes():
            raise RuntimeError("torch.backends.fp32_precision was set to tf32 by a plugin, which a row cannot undo")
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
    """`module` itself on `device`, with its weights in the base type of `precision`. It is moved tensor by tensor, and
    torch converts on the host what it copies from there (ATen's cuda/Copy.cu), so a GPU never holds a wider copy."""
    return module.to(device, dtype_of(precision))


def cast(
    module: torch.nn.Module,
    precision: str,
    ranges: Ranges = NO_RANGES,
    left: Mapping[str, Left] | None = None,
) -> torch.nn.Module:
    """`module` itself, changed in place to `precision`. `ranges` come from calibration, for int8_static; `left` are
    linear layers to leave unquantised."""
    module, recipe = module.to(dtype_of(precision)), recipe_of(precision)
    return module if recipe is None else quantisation.quantise(module, recipe, ranges, left)


class NotOneTensor(TypeError):
    """A network's forward returned something other than one tensor; `str()` is one line for the user."""


def one_tensor(found: Any, network: object) -> torch.Tensor:
    """`found` itself, the output of `network`. Raises NotOneTensor, which says what it is and how to wrap the network,
    if it is anything other than one tensor."""
    import torch

    if isinstance(found, torch.Tensor):
        return found
    name = type(getattr(network, "_orig_mod", network)).__name__  # torch.compile's wrapper is not the user's class
    raise NotOneTensor(f"the network {name} returns {_kind(found)} where one tensor is wanted: {_mend(found)}")


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
        return "wrap it in a torch.nn.Module whose forward returns the tensor that counts"
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
        parts = quantisation.inner_tensors(tensor)
        total += sum(t.numel() * t.element_size() for t in parts)
        by_dtype[str(parts[0].dtype).removeprefix("torch.").replace("qint8", "int8")] += tensor.numel()
    return {"bytes": total, "elements_by_dtype": dict(by_dtype)}


def mismatch(
    elements_by_dtype: Mapping[str, int], precision: str, row: Mapping[str, int] | None = None
) -> Reason | None:
    """Why the weights read back are not of the precision asked for; None where they are. Where these are only the
    weights of some components, `row` has those of all: the type that the precision is named after must be in a row, but
    not in each of its components, of which one may have no layer to quantise."""
    wanted = BY_NAME[precision]
    floating, of_row = (_floating(found) for found in (elements_by_dtype, elements_by_dtype if row is None else row))
    if not of_row.get(wanted.stored):
        return Reason("no_weight_of_dtype", {"dtype": wanted.stored, "found": of_row})
    if floating.keys() - {wanted.stored, wanted.activations}:
        return Reason("weights_of_several_dtypes", {"found": of_row})
    return None


def _floating(elements_by_dtype: Mapping[str, int]) -> dict[str, int]:
    """The weights that a precision decides on: those that float or that are quantised."""
    return {d: n for d, n in elements_by_dtype.items() if d.startswith(("float", "bfloat", "int8"))}
