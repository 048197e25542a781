"""OpenVINO on a CPU: each component's ONNX file compiled by its CPU plug-in.

On a CPU with AMX the plug-in computes fp32 networks in bf16 by default, and it uses bf16 if fp16 is requested and not
supported. It reports neither. The precision is therefore requested by name, and read back node by node from the
compiled network: every convolution and matrix product must have the precision of the row. In a bf16 row the plug-in
chooses the precision of the rest, except for the angles of a timestep's sinusoid (`_with_sinusoids`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from harness import devices
from harness.backends import Build, BuildRequest, cached_before, cannot_import, note_built
from harness.backends.onnx import export as onnx_export
from harness.backends.onnx.export import OnnxFile
from harness.numerics import int8_saturation, precision
from harness.numerics.optimizations import FREE_SHAPES
from harness.numerics.precision import recipe_of
from harness.reasons import Reason
from harness.registry import BACKENDS
from harness.types import Component, Forward

if TYPE_CHECKING:
    import torch

HINTS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8_static": "f32"}
RECIPES: Final = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32", "int8_static": "int8_static"}
CAPABILITIES: Final = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8_static": "INT8"}
RUN_AS: Final = {"fp32": {"f32"}, "bf16": {"bf16"}, "fp16": {"f16"}, "int8_static": {"i8", "u8"}}
NOT_HERE: Final = {
    "tf32": Reason("tf32_needs_gpu"),
    "int8_dynamic": Reason("openvino_no_dynamic_ranges"),
    "int8_dynamic_classic": Reason("openvino_no_torch_module"),
    "int8_weight_only": Reason("openvino_no_weight_only"),
    "fp8_e4m3": Reason("openvino_no_fp8"),
}
CAST: Final = ("bf16", "fp16")
SINUSOIDS: Final = ("Sin", "Cos")
HEAVY: Final = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})  # the plug-in's names


@BACKENDS.add("openvino")
class OpenVino:
    label = "OpenVINO"
    libraries: ClassVar[tuple[str, ...]] = (*onnx_export.LIBRARIES, "onnxruntime")  # for its quantiser
    description = "ONNX export compiled by OpenVINO's CPU plug-in"
    precisions: ClassVar[Collection[str]] = tuple(HINTS)
    features: ClassVar[frozenset[str]] = frozenset({FREE_SHAPES})
    packages: ClassVar[tuple[str, ...]] = (*onnx_export.PACKAGES, "openvino")
    colour: ClassVar[str] = "#a8842c"

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if devices.kind(device) != "cpu":
            return Reason("openvino_on_gpu")
        if reason := cannot_import("openvino", "OpenVINO") or onnx_export.missing_package():
            return reason
        if wanted not in HINTS:
            return NOT_HERE.get(recipe_of(wanted) or wanted, Reason("openvino_over_fp32", {"precision": wanted}))
        import openvino

        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if CAPABILITIES[wanted] not in able:
            return Reason("openvino_no_kernels", {"precision": wanted})
        return None

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Compiles every component's file. Raises what the exporter or OpenVINO raises."""
        cached = cached_before(request)
        files = onnx_export.exported(components, request, onnx_export.for_cpu(RECIPES[request.precision]))
        requests = {c.name: request.of(c) for c in components}
        compiled, compile_s = request.timer.timed(
            lambda: {f.component: _compiled(f, requests[f.component]) for f in files}
        )
        precisions = precision.of_components(components, request.precision)
        # The first output is the network's own; further ones are sinusoids.
        sinusoids = {name: len(model.outputs) - 1 for name, model in compiled.items() if len(model.outputs) > 1}
        nodes = {name: _nodes(model) for name, model in compiled.items()}
        note_built(request)
        export_s = sum(f.export_s for f in files)
        return Build(
            forwards={name: _forward(model) for name, model in compiled.items()},
            build_s=compile_s + (0.0 if cached else export_s),
            keeps_modules=False,
            cached=cached,
            keeps=True,
            weights_bytes=sum(f.weights_bytes for f in files),
            disk_bytes=lambda: sum(f.disk_bytes for f in files),
            facts={
                "execution_devices": sorted(
                    {d for m in compiled.values() for d in m.get_property("EXECUTION_DEVICES")}
                ),
                "nodes": {name: _in_words(found) for name, found in nodes.items()},
                **onnx_export.facts_of(files),
                **({"sinusoids_in_fp32": sinusoids} if sinusoids else {}),
                "compile_s": compile_s,
                **_modes(request.precision),
            },
            verify=lambda: _verify_all(nodes, precisions, {f.component: f.integer_layers for f in files}),
            shares=onnx_export.shares(files, request.precision),
        )


def _modes(precision: str) -> dict[str, str]:
    if recipe_of(precision) != "int8_static":
        return {}
    return {"int8_weights": int8_saturation.in_words(int8_saturation.weight_bits())}


def _compiled(file: OnnxFile, request: BuildRequest) -> Any:
    import openvino
    import torch

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[request.precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    model = core.read_model(file.path)
    return core.compile_model(_with_sinusoids(model) if request.precision in CAST else model, "CPU", options)


def _with_sinusoids(model: Any) -> Any:
    """The network with its sines and cosines as further outputs, whose angles the plug-in then leaves in fp32.

    The plug-in casts everything except what lies between the last matrix products and an output (2026.4). In bf16,
    timestep 999 times a frequency has an error of 4 radians, so diffusers computes it in fp32. The relative error of
    DiT-S/2 is 3 % with these outputs, and 42 % without them.
    """
    model.add_outputs([node.output(0) for node in model.get_ordered_ops() if node.get_type_name() in SINUSOIDS])
    return model


def _nodes(compiled: Any) -> Counter[tuple[str, str]]:
    """Nodes of the compiled network by (kind, precision that they compute in), read back from the plug-in."""
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return Counter((str(info["layerType"].value), str(info["runtimePrecision"].value)) for info in found)


def _in_words(nodes: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{kind} {precision}": count for (kind, precision), count in sorted(nodes.items()) if kind in HEAVY}


def _verify_all(
    nodes: Mapping[str, Mapping[tuple[str, str], int]], precisions: Mapping[str, str], integer_layers: Mapping[str, int]
) -> Reason | None:
    """Why what was compiled is not what was requested, or None. Each component is checked against its own precision in
    `precisions`."""
    for wanted in dict.fromkeys(precisions.values()):
        of_it = {name: found for name, found in nodes.items() if precisions[name] == wanted}
        if reason := _verify(of_it, wanted, integer_layers):
            return reason
    return None


def _verify(
    nodes: Mapping[str, Mapping[tuple[str, str], int]], precision: str, integer_layers: Mapping[str, int]
) -> Reason | None:
    """Why what was compiled is not what was requested, or None. In a cast network every node of a HEAVY type must run
    in the precision; in a quantised one each quantised layer must run in integers."""
    heavy = {name: {key: n for key, n in found.items() if key[0] in HEAVY} for name, found in nodes.items()}
    total: Counter[tuple[str, str]] = Counter()
    for found in heavy.values():
        total.update(found)
    others = {key: n for key, n in total.items() if key[1] not in RUN_AS[precision]}
    if sum(total.values()) == sum(others.values()):
        return Reason("runs_elsewise", {"precision": precision, "layers": str(_in_words(total))})
    if recipe_of(precision) is None:
        told = {"precision": precision, "layers": str(_in_words(others))}
        return Reason("some_run_elsewise", told) if others else None
    for name, found in heavy.items():
        count = sum(n for key, n in found.items() if key[1] in RUN_AS[precision])
        if count < integer_layers[name]:
            counts = {"component": name, "count": count, "layers": integer_layers[name]}
            return Reason("layers_not_in_integers", {"precision": precision, **counts})
    return None


def _forward(compiled: Any) -> Forward:
    import torch

    dtypes = {"f32": torch.float32, "i64": torch.int64, "i32": torch.int32}
    cast = [dtypes[port.get_element_type().get_type_name()] for port in compiled.inputs]
    infer, output = compiled.create_infer_request(), compiled.output(0)

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        given = [x.detach().to(dtype).contiguous().numpy() for dtype, x in zip(cast, inputs, strict=True)]
        return torch.from_numpy(infer.infer(given, share_inputs=True)[output]).to(torch.float32)

    return forward
