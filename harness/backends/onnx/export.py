"""ONNX files of a workload's networks: one export for ONNX Runtime, OpenVINO and TensorRT.

A recipe is the form of a file: fp32, fp16 and bf16 (the module cast before torch.export reads it), int8_dynamic (ONNX
Runtime's quantiser, MatMul and Gemm, weights per channel), int8_weight_only (MatMulNBits with 8 bits, blocks of
weights), int8_static (Q/DQ nodes with ranges from real inputs, `harness.backends.onnx.static`), int8_static_unsigned
(the same for ONNX Runtime's CPU kernels) and fp8_e4m3 (the same in fp8 for TensorRT, `harness.backends.onnx.fp8`). The
rest of these files is in fp32, except for int8_weight_only and int8_static with the suffix _fp16 or _bf16 and for
fp8_e4m3, which is over bf16 (`harness.backends.onnx.base`). `for_cpu` names the form of a recipe with weights of 7
bits, where this CPU needs it (`harness.numerics.int8_saturation`). Every file passes onnx.checker with full shape
inference before it is run. Files are stored by recipe and by the work's hash (calibrated ones also by what the case
requests of its networks), together with the seconds that their export took.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.backends.onnx import base as onnx_base
from harness.backends.onnx import fp8 as onnx_fp8
from harness.backends.onnx import rewrites as onnx_rewrites
from harness.backends.onnx import static as onnx_static
from harness.numerics import int8_saturation, share
from harness.numerics.precision import dtype_of, of_component, one_tensor, recipe_of, rest_of
from harness.numerics.share import NOTHING, Share, Shares
from harness.reasons import Reason
from harness.registry import PRECISIONS
from harness.types import Component, Unavailable

if TYPE_CHECKING:
    import torch

    from harness.backends import BuildRequest

# The modules that an export imports. One is torch's compiler, whose import the first export's time would else include.
LIBRARIES: Final = ("torch._inductor.compile_fx", "torch.onnx._internal.exporter._core", "onnxscript")
# The packages that make the files. onnxruntime has the quantiser of all integer ones.
PACKAGES: Final = ("onnxruntime-gpu", "onnxruntime", "onnx")
OPSET: Final = 20
BF16_OPSET: Final = 22  # the first whose Conv takes bf16
LARGE: Final = 1.5e9  # bytes: protobuf's limit is 2 GB, so larger weights are in a second file
INTEGER_OPERATORS: Final = ("MatMulInteger", "ConvInteger", "MatMulNBits")
DYNAMIC_OPERATORS: Final = ("MatMul", "Gemm")
SEVEN_BITS: Final = "_7bit"
UNSIGNED: Final = "int8_static_unsigned"
CALIBRATED: Final = ("int8_static", UNSIGNED, "fp8_e4m3")
FREED: Final = {"dynamic_batch": ("batch size", (0,)), "dynamic_size": ("image size", (2, 3))}
MADE_CONSTANT: Final = ("static shape", "0/1 specialized")  # in torch.export's message


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """One exported network. `operators` counts the nodes of its graph by type, `integer_layers` the layers meant to run
    in integers or fp8, `weights_bytes` is the size of its initialisers, `export_s` the time of the export, whenever it
    was made; `calibration` identifies the calibration of its ranges, `free` lists the dynamic dimensions by input,
    `share` says how much of the weights is quantised.
    """

    component: str
    path: Path
    operators: Mapping[str, int]
    weights_bytes: int
    disk_bytes: int
    export_s: float
    integer_layers: int = 0
    calibration: str | None = None
    free: Mapping[str, list[int]] = field(default_factory=dict)
    share: Share = NOTHING


def exported(components: Sequence[Component], request: BuildRequest, recipe: str) -> list[OnnxFile]:
    """The ONNX files of all components; files that do not exist yet are exported. Each has the form `recipe`, or that
    form's fp32 variant for a component that overflows in fp16. Raises what the exporter or the checker raises."""
    if "dynamic_size" in request.optimizations and not any(x.ndim == 4 for c in components for x in c.inputs):
        raise Unavailable(Reason("dynamic_size_without_pictures"))
    return [_exported(c, request, of_component(c, recipe)) for c in components]


def facts_of(files: Sequence[OnnxFile]) -> dict[str, Any]:
    """The facts of a row about the files that it runs."""
    free = {f.component: dict(f.free) for f in files if f.free}
    return {
        "export_s": sum(f.export_s for f in files),
        "calibration": next((f.calibration for f in files if f.calibration), None),
        **({"free_dimensions": free} if free else {}),
    }


def free_axes(x: torch.Tensor, optimizations: Sequence[str]) -> tuple[int, ...]:
    """The dimensions of an input that may have any size: N of (N, ...) with dynamic_batch; height and width of images
    and latents (N, C, H, W) with dynamic_size."""
    asked = [axes for name, (_, axes) in FREED.items() if name in optimizations]
    return tuple(axis for axes in asked for axis in axes if axis == 0 or x.ndim == 4)


def for_cpu(recipe: str) -> str:
    """The recipe whose weights do not make the integer kernels of this CPU saturate: int8_dynamic or int8_dynamic_7bit.
    Only int8_dynamic and int8_static have such a recipe; any other is returned unchanged."""
    saturating = recipe in {"int8_dynamic", "int8_static"} and int8_saturation.weight_bits() == 7
    return f"{recipe}{SEVEN_BITS}" if saturating else recipe


def missing_package() -> Reason | None:
    """Why nothing can be exported here, or None."""
    from harness.backends import missing_package as missing

    return next(filter(None, (missing(name, "exporting to ONNX") for name in ("onnx", "onnxscript"))), None)


def _exported(component: Component, request: BuildRequest, recipe: str) -> OnnxFile:
    calls = f"-{request.calls}" if _parts(recipe)[0] in CALIBRATED else ""
    folder = request.exports / f"{component.name}-{recipe}-{request.work()}{calls}"
    if not folder.exists():
        request.exports.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=request.exports) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            seconds, source = request.timer.timed(lambda: _make(component, request, recipe, made))[::-1]
            (made / "about.json").write_text(json.dumps({"export_s": seconds, "calibration": source}))
            _keep(made, folder)
    path = folder / "model.onnx"
    about = json.loads((folder / "about.json").read_text())
    operators, integer_layers, weights, quantised, free = _read(path)
    disk = sum(f.stat().st_size for f in folder.iterdir() if f.name != "about.json")
    return OnnxFile(
        component=component.name,
        path=path,
        operators=operators,
        integer_layers=integer_layers,
        weights_bytes=weights,
        disk_bytes=disk,
        share=quantised,
        free=free,
        **about,
    )


def _keep(made: Path, folder: Path) -> None:
    """Moves the finished folder to its place. If another process was first, its folder stays."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _make(component: Component, request: BuildRequest, recipe: str, folder: Path) -> str | None:
    """Writes model.onnx into `folder`. Returns the source of the ranges; None if the recipe needs none."""
    path = folder / "model.onnx"
    if recipe in PRECISIONS and recipe_of(recipe) is None:
        _write(component, recipe, path, request.optimizations)
        _check(path)
        return None
    plain = _plain(component, request, "fp32")
    source, narrow = None, SEVEN_BITS in recipe
    kind, base = _parts(recipe)
    with _quiet():
        if kind == "int8_static" and base != "fp32":
            static = _exported(component, request, kind)
            source, cast = static.calibration, _plain(component, request, base)
            dtype = PRECISIONS[base].activations
            onnx_base.place(plain, static.path, cast, path, _is_large(plain), onnx_base.INT8, dtype)
        elif kind == UNSIGNED:
            signed = _exported(component, request, recipe.removesuffix("_unsigned"))
            source = signed.calibration
            onnx_static.unsigned(signed.path, path, _is_large(plain))
        elif kind in CALIBRATED:
            calibration = request.calibration()
            source, calls = calibration.source, calibration.calls[component.name]
            if kind == "fp8_e4m3":
                onnx_fp8.quantise(plain, _plain(component, request, base), path, calls, _is_large(plain))
            else:
                onnx_static.quantise(plain, path, calls, _is_large(plain), narrow)
        elif kind == "int8_dynamic":
            _dynamic(plain, path, narrow)
        elif kind == "int8_weight_only":
            _weight_only(_plain(component, request, base), path)
        else:
            raise Unavailable(Reason("no_onnx_form", {"precision": recipe}))
    _check(path)
    return source


def _parts(recipe: str) -> tuple[str, str]:
    """How a recipe quantises, and the precision of the rest: "int8_static_fp16" -> ("int8_static", "fp16")."""
    kind = recipe.replace(SEVEN_BITS, "")
    return (recipe_of(kind) or kind, rest_of(kind)) if kind in PRECISIONS else (kind, "fp32")


def _plain(component: Component, request: BuildRequest, base: str) -> Path:
    """The network's file in `base`, which is exported if it does not exist yet. The module stays in fp32, because the
    calibration of the next network may run this one."""
    path = request.exports / f"{component.name}-{base}-{request.work()}" / "model.onnx"
    if not path.exists():
        module = component.module if base == "fp32" else copy.deepcopy(component.module.to("cpu"))
        _exported(replace(component, module=module), request, base)
    return path


def _write(component: Component, recipe: str, path: Path, optimizations: Sequence[str]) -> None:
    """Writes the file with the requested dynamic dimensions. Raises Unavailable if one of them is a constant."""
    import onnx
    import torch

    module, inputs = component.module.to("cpu").eval(), tuple(x.cpu() for x in component.inputs)
    if recipe != "fp32":
        dtype = dtype_of(recipe)
        module = module.to(dtype)
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    free = [free_axes(x, optimizations) for x in inputs]
    if "dynamic_batch" in optimizations:
        # With an example of one item torch.export would make the batch size 1 a constant.
        inputs = tuple(torch.cat([x, x]) if len(x) == 1 else x for x in inputs)
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in free) if any(free) else None
    opset = BF16_OPSET if recipe == "bf16" else OPSET
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module, inputs, dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
            )
        except torch.onnx.OnnxExporterError as error:
            if shapes is not None and any(words in str(error) for words in MADE_CONSTANT):
                raise Unavailable(_fixed(component.name, free, optimizations)) from error
            one_tensor(module(*inputs), module)  # the exporter's own error about such an output is unclear
            raise
    assert program is not None  # dynamo=True with no file to write returns the program
    if not _is_one_tensor(program):
        with torch.no_grad():
            one_tensor(module(*inputs), module)
    program.save(str(path), external_data=_bytes_of(module) > LARGE)
    model = onnx.load(path, load_external_data=False)
    onnx_rewrites.apply(model.graph)
    # The exporter's shapes of transposed weights contradict those that checkers and quantisers infer, so they infer
    # all.
    del model.graph.value_info[:]
    onnx.save(model, path)
    dims = [i.type.tensor_type.shape.dim for i in model.graph.input]
    if not all(dims[i][axis].dim_param for i, axes in enumerate(free) for axis in axes):
        raise Unavailable(_fixed(component.name, free, optimizations))


def _is_one_tensor(program: Any) -> bool:
    """Whether the exported network returns one tensor, not a container of tensors or nothing."""
    return program.exported_program.call_spec.out_spec.is_leaf() and len(program.model.graph.outputs) == 1


def _fixed(component: str, free: Sequence[Sequence[int]], optimizations: Sequence[str]) -> Reason:
    """The reason that the export made requested dynamic dimensions constant."""
    axes = {axis for one in free for axis in one}
    asked = {name: what for name, (what, own) in FREED.items() if name in optimizations and axes & set(own)}
    told = {"optimizations": list(asked), "axes": list(asked.values()), "component": component}
    return Reason("dimension_made_constant", told)


def _check(path: Path) -> None:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)


def _bytes_of(module: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _dynamic(plain: Path, path: Path, narrow: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        # The quantiser transposes a weight once per Gemm that reads it: with two Gemms, the product is wrong.
        source = Path(scratch) / "model.onnx"
        onnx.save(onnx_static.without_gemm(onnx.load(plain)), source, save_as_external_data=_is_large(plain))
        quantize_dynamic(
            source,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=narrow,
            op_types_to_quantize=list(DYNAMIC_OPERATORS),
            use_external_data_format=_is_large(plain),
        )


def _weight_only(plain: Path, path: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    recipe = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, bits=8)
    quantiser = MatMulNBitsQuantizer(onnx_static.without_gemm(onnx.load(plain)), bits=8, algo_config=recipe)
    quantiser.process()
    quantiser.model.save_model_to_file(str(path), _is_large(plain))


def _is_large(path: Path) -> bool:
    return sum(f.stat().st_size for f in path.parent.iterdir()) > LARGE


def _read(path: Path) -> tuple[dict[str, int], int, int, Share, dict[str, list[int]]]:
    """(nodes by operator, layers meant to run in integers, bytes of the initialisers, share of the weights that is
    quantised, dynamic dimensions by input)."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    operators = Counter(node.op_type for node in graph.node)
    integer = sum(operators[name] for name in INTEGER_OPERATORS) + onnx_static.quantised_layers(graph)
    weights = sum(math.prod(t.dims) * element_bytes(t.data_type) for t in graph.initializer)
    dims = {i.name: i.type.tensor_type.shape.dim for i in graph.input}
    free = {name: [axis for axis, dim in enumerate(found) if dim.dim_param] for name, found in dims.items()}
    quantised = share.of_graph(graph)
    return dict(operators), integer, int(weights), quantised, {name: axes for name, axes in free.items() if axes}


def element_bytes(data_type: int) -> float:
    """Bytes of one element of an ONNX data type, given by its number."""
    from onnx import TensorProto, helper

    if data_type in {TensorProto.INT4, TensorProto.UINT4}:
        return 0.5
    return float(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the quantisers' warnings and log, which recommend a preprocessing that torch's exporter has done."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().setLevel(level)


def shares(files: Sequence[OnnxFile], precision: str) -> Shares:
    """The quantised shares of exported networks; empty if `precision` does not quantise."""
    return {f.component: f.share for f in files} if recipe_of(precision) is not None else {}
