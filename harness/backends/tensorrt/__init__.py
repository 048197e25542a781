"""TensorRT 11, native: each component's ONNX file built into an engine, and the engine called on torch's tensors.

The ONNX file determines the precision (strongly typed networks). Its Q/DQ nodes select int8 and fp8, and the rest is in
the type that the precision names: fp32 for int8_static, fp16 for int8_static_fp16, bf16 for fp8_e4m3. The types of
inputs and layers, the hash and the size are read back from the engine. Not yet proven on hardware.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from harness import devices
from harness.backends import (
    Build,
    BuildRequest,
    cached_before,
    cannot_import,
    missing_device,
    note_built,
    undeclared,
)
from harness.backends.onnx import export as onnx_export
from harness.numerics import precision
from harness.numerics.optimizations import FREE_SHAPES
from harness.numerics.precision import recipe_of
from harness.reasons import Reason
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Component, Forward

if TYPE_CHECKING:
    import torch

    from harness.backends.tensorrt.engine import Engine, Range
    from harness.backends.tensorrt.layers import Layers

RECIPES: Final = {
    "fp32": "fp32",
    "tf32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "int8_static": "int8_static",
    "int8_static_bf16": "int8_static_bf16",
    "int8_static_fp16": "int8_static_fp16",
    "fp8_e4m3": "fp8_e4m3",
}
INSPECTED: Final[Mapping[str | None, str]] = {"int8_static": "Int8", "fp8_e4m3": "FP8"}  # the inspector's names
NOT_HERE: Final[Mapping[str | None, Reason]] = {
    "int8_dynamic": Reason("tensorrt_no_dynamic_ranges"),
    "int8_dynamic_classic": Reason("tensorrt_no_torch_module"),
    "int8_weight_only": Reason("tensorrt_no_weight_only"),
}
FUSED: Final = 3  # quantised layers that the engine may fuse into one: query, key and value as one product
VERSION: Final = 11  # the first in which every network is strongly typed
LAYERS_KEPT: Final = 10
LARGEST: Final = 4  # with dynamic_batch, the largest batch is this many times the case's
SIDE: Final = 2  # with dynamic_size, sides range from 1 / SIDE of the case's to SIDE times it
ALIGNED: Final = 8  # 2**3, because a diffusers U-Net halves each side three times


@BACKENDS.add("tensorrt")
class TensorRT:
    label = "TensorRT"
    libraries: ClassVar[tuple[str, ...]] = onnx_export.LIBRARIES
    description = "ONNX export built into native TensorRT engines (not yet proven on hardware)"
    precisions: ClassVar[Collection[str]] = tuple(RECIPES)
    features: ClassVar[frozenset[str]] = frozenset({FREE_SHAPES})
    packages: ClassVar[tuple[str, ...]] = (*onnx_export.PACKAGES, "tensorrt", "tensorrt-cu13")
    gpu_only: ClassVar[bool] = True
    colour: ClassVar[str] = "#c2589a"

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if devices.kind(device) != "cuda":
            return Reason("needs_gpu", {"what": "TensorRT", "device": device})
        if reason := missing_device(device):
            return reason
        if reason := cannot_import("tensorrt", "TensorRT") or onnx_export.missing_package():
            return reason
        import tensorrt

        if int(tensorrt.__version__.split(".")[0]) < VERSION:
            return Reason("tensorrt_too_old", {"version": tensorrt.__version__, "needed": VERSION})
        if wanted not in RECIPES:
            return NOT_HERE.get(recipe_of(wanted)) or undeclared("tensorrt", wanted)
        return precision.too_old(wanted)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Exports, builds or loads every engine. Raises EngineError, and what the exporter raises."""
        from harness.backends.tensorrt import engine as tensorrt_engine

        cached, wanted = cached_before(request), request.precision  # a closure over the request would keep its modules
        files = onnx_export.exported(components, request, RECIPES[wanted])
        _off_the_gpu(components)
        ranges = {c.name: _ranges(c, request.optimizations) for c in components}
        engines_in, timings = request.exports / tensorrt_engine.ENGINES, request.cache / "timing.cache"
        places = tensorrt_engine.Places(engines=engines_in, timings=timings)
        plans = {
            f.component: tensorrt_engine.plan(f.path, ranges[f.component], places, wanted == "tf32", request.timer)
            for f in files
        }
        engines, load_s = request.timer.timed(lambda: {n: tensorrt_engine.Engine(p.path) for n, p in plans.items()})
        note_built(request)
        engine_s = sum(p.build_s for p in plans.values())
        read = {c.name: (engines[c.name].input_dtypes(), engines[c.name].layers(*c.inputs)) for c in components}
        quantised = {f.component: f.integer_layers for f in files}
        precisions = precision.of_components(components, wanted)
        export_s = sum(f.export_s for f in files)
        return Build(
            forwards={name: _forward(engine) for name, engine in engines.items()},
            build_s=load_s + (0.0 if cached else engine_s + export_s),
            keeps_modules=False,
            cached=cached,
            keeps=True,
            weights_bytes=sum(f.weights_bytes for f in files),
            disk_bytes=lambda: sum(p.size for p in plans.values()),
            facts={
                "engines": {name: p.digest for name, p in plans.items()},
                "layer_types": {name: dict(layers.types) for name, (_, layers) in read.items()},
                "engine_quantised_layers": {name: dict(layers.quantised) for name, (_, layers) in read.items()},
                "slowest_layers_s": {c.name: _slowest(engines[c.name], c) for c in components},
                "device_memory_bytes": sum(int(e.engine.device_memory_size_v2) for e in engines.values()),
                **onnx_export.facts_of(files),
                "engine_s": engine_s,
                "load_s": load_s,
            },
            verify=lambda: _verify(read, precisions, quantised),
            shares=onnx_export.shares(files, wanted),
        )


def _off_the_gpu(components: Sequence[Component]) -> None:
    """Moves to the CPU the torch modules that calibration left on the GPU in fp32, and frees their memory, because the
    builder tries only tactics that fit into the free memory."""
    import torch

    for component in components:
        component.module.to("cpu")
    gc.collect()
    torch.cuda.empty_cache()


def _ranges(component: Component, optimizations: Sequence[str]) -> list[Range]:
    """One range of shapes per input: the case's shape alone, or with a batch from 1 to LARGEST times the case's, or
    with a height and width from 1 / SIDE of the case's to SIDE times them."""
    from harness.backends.tensorrt.engine import Range

    found = []
    for x in component.inputs:
        free = onnx_export.free_axes(x, optimizations)
        small, large = list(x.shape), list(x.shape)
        for axis in free:
            small[axis] = 1 if axis == 0 else _smallest_side(x.shape[axis])
            large[axis] = x.shape[axis] * (LARGEST if axis == 0 else SIDE)
        found.append(Range(minimum=tuple(small), optimum=tuple(x.shape), maximum=tuple(large)))
    return found


def _smallest_side(side: int) -> int:
    """The case's side divided by SIDE, rounded up to a multiple of the greatest common divisor of the case's side and
    ALIGNED. A U-Net halves and doubles its sides, and its export requires sides that it can halve as often."""
    step = math.gcd(side, ALIGNED)
    return math.ceil(side / SIDE / step) * step


def _forward(engine: Engine) -> Forward:
    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        import torch

        return engine(*inputs).to(torch.float32)

    return forward


def _slowest(engine: Engine, component: Component) -> dict[str, float]:
    return dict(list(engine.layer_seconds(*component.inputs).items())[:LAYERS_KEPT])


def _verify(
    found: Mapping[str, tuple[Mapping[str, str], Layers]], precisions: Mapping[str, str], quantised: Mapping[str, int]
) -> Reason | None:
    """Why the engines are not of the requested precisions, or None; `precisions` and `quantised` are by component.
    Inputs and output must have the type of what is not quantised. Of the layers quantised in int8_static and fp8_e4m3,
    at least one in FUSED must compute in int8 or fp8, because the engine may fuse the others into it."""
    kind, total = None, 0
    for name, (dtypes, layers) in found.items():
        precision = precisions[name]
        kind = INSPECTED.get(recipe_of(precision))
        wanted = PRECISIONS[precision].activations
        floating = {tensor: dtype for tensor, dtype in dtypes.items() if "float" in dtype}
        wrong = {tensor: dtype for tensor, dtype in floating.items() if dtype != wanted}
        if wrong:
            told = {"precision": precision, "component": name, "tensors": str(wrong)}
            return Reason("engine_of_other_dtype", told)
        if not layers.read:
            return Reason("engine_not_inspected", {"precision": precision, "component": name})
        if kind is None:
            continue
        count = layers.quantised.get(kind, 0)
        total += count
        if FUSED * count < quantised[name]:
            counts = {"count": count, "type": kind, "layers": quantised[name]}
            return Reason("engine_layers_few", {"precision": precision, "component": name, **counts})
    if kind and not total:
        return Reason("engine_layers_none", {"precision": precision, "type": kind})
    return None
