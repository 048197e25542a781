"""A component that overflows in fp16 runs in fp32 in an fp16 row, in every backend, and the row says so."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import onnx
import pytest
import torch
from build_request_fixture import build_request
from cuda_graphs_fixture import Graph
from pipelines_fixture import KINDS, case_of, stable_diffusion_xl
from tensorrt_fixture import FakeEngine

from benches.models.stable_diffusion import stable_diffusion_workload
from harness.backends import cuda_graphs, eager, onnxruntime, openvino, tensorrt, torch_compile
from harness.backends.onnx import export as onnx_export
from harness.backends.onnx.export import OnnxFile
from harness.backends.tensorrt import engine as tensorrt_engine
from harness.devices.cpu import Cpu
from harness.measuring.trial import output_fault
from harness.numerics import precision
from harness.numerics.calibration import Recorded
from harness.processes import measure
from harness.types import Case, Component, Protocol, Workload

QUICK = Protocol(warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05)


class Overflowing(torch.nn.Module):
    """(N, 4) -> (N, 4), with intermediate values that fp16 cannot represent (its largest number is 65,504)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x * 1e6) * 1e-6


def components(force_upcast: bool = True) -> list[Component]:
    torch.manual_seed(0)
    x = torch.randn(2, 4)
    return [
        Component(name="unet", module=torch.nn.Linear(4, 4).eval(), inputs=(x,)),
        Component(name="vae_decoder", module=Overflowing().eval(), inputs=(x,), force_upcast=force_upcast),
    ]


@pytest.mark.parametrize("kind", ["sd", "sdxl", "dit"])
def test_only_the_pipeline_that_reads_it_upcasts_its_vae(kind: str) -> None:
    make, workload, asked, _ = KINDS[kind]
    pipeline = make()
    assert pipeline.vae.config.force_upcast, "diffusers' default, which only SDXL's pipeline reads"
    found = workload(pipeline, case_of(kind), asked, "random-0")
    assert {c.name: c.force_upcast for c in found.components if c.force_upcast} == (
        {"vae_decoder": True} if kind == "sdxl" else {}
    )


def test_a_vae_that_was_made_for_fp16_stays_in_fp16() -> None:
    pipeline = stable_diffusion_xl()
    pipeline.vae.register_to_config(force_upcast=False)
    workload = stable_diffusion_workload(pipeline, case_of("sdxl"), KINDS["sdxl"][2], "random-0")
    assert not any(c.force_upcast for c in workload.components)


def test_fp32_takes_the_place_of_fp16_alone() -> None:
    _, vae = components()
    rows = ["fp32", "tf32", "bf16", "fp16", "int8_dynamic", "int8_dynamic_fp16", "int8_dynamic_bf16"]
    ran = ["fp32", "tf32", "bf16", "fp32", "int8_dynamic", "int8_dynamic", "int8_dynamic_bf16"]
    assert [precision.of_component(vae, row) for row in rows] == ran
    assert [precision.of_component(replace(vae, force_upcast=False), row) for row in rows] == rows


def test_eager_runs_it_in_fp32_and_reads_that_back(tmp_path: Path) -> None:
    narrow = eager.Eager().build(components(force_upcast=False), build_request(tmp_path, precision="fp16"))
    assert not narrow.forwards["vae_decoder"](torch.ones(2, 4)).isfinite().all(), "in fp16 it overflows"
    build = eager.Eager().build(components(), build_request(tmp_path, precision="fp16"))
    assert build.forwards["vae_decoder"](torch.ones(2, 4)).isfinite().all()
    assert build.facts["elements_by_dtype"] == {"float16": 20, "float32": 20}
    assert build.verify() is None


@pytest.mark.parametrize(("name", "dtype"), [("vae_decoder", torch.float16), ("unet", torch.float32)])
def test_weights_of_another_precision_than_the_components_own_are_found(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    cast = eager.cast_all(components(), build_request(tmp_path, precision="fp16"))
    cast.modules[name].to(dtype)
    wanted = {torch.float16: "float32", torch.float32: "float16"}[dtype]
    assert str(eager.read_back(cast, "fp16")["verify"]()).startswith(f"no weight is {wanted}; found")


class Convolution(torch.nn.Module):
    """(N, 4) -> (N, 1), without a layer that could be quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv1d(1, 1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, None])[:, 0]


@pytest.mark.parametrize("wanted", ["int8_dynamic_fp16", "int8_static_fp16", "int8_weight_only_fp16"])
def test_a_quantised_row_observes_it_in_fp32(wanted: str, tmp_path: Path) -> None:
    asked = components()
    recorded = Recorded(calls={c.name: [c.inputs] for c in asked}, source="planted")
    cast = eager.cast_all(asked, build_request(tmp_path, precision=wanted, calibration=lambda: recorded))
    assert cast.upcast == {"vae_decoder": wanted.removesuffix("_fp16")}
    read = eager.read_back(cast, wanted)
    assert read["verify"]() is None
    assert read["facts"]["elements_by_dtype"] == {"int8": 32, "float16": 4, "float32": 4}


def test_int8_weights_are_asked_of_the_row_and_not_of_each_component(tmp_path: Path) -> None:
    unet, vae = components()
    vae = replace(vae, module=Convolution())
    request = build_request(tmp_path, precision="int8_weight_only_fp16")
    cast = eager.cast_all([unet, vae], request)
    assert eager.read_back(cast, request.precision)["verify"]() is None
    cast.modules["vae_decoder"].half()
    assert str(eager.read_back(cast, request.precision)["verify"]()).startswith("weights of several dtypes: {")
    alone = eager.cast_all([replace(vae, module=Convolution())], request)
    assert str(eager.read_back(alone, request.precision)["verify"]()).startswith("no weight is int8; found")


def test_torch_compile_gives_it_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile.TorchCompile, "_compile", lambda _self, module, **_: module)
    build = torch_compile.TorchCompile().build(components(), build_request(tmp_path, precision="fp16"))
    assert build.forwards["vae_decoder"](torch.ones(2, 4)).isfinite().all()
    assert build.verify() is None


def test_a_cuda_graph_of_it_has_inputs_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Graph(monkeypatch)
    monkeypatch.setattr(cuda_graphs.Captured, "_prove", lambda _self, _expected: None)
    build = cuda_graphs.CudaGraphs().build(components(), build_request(tmp_path, precision="fp16"))
    held = {name: captured._inputs[0].dtype for name, captured in build.forwards.items()}  # type: ignore[attr-defined]
    assert held == {"unet": torch.float16, "vae_decoder": torch.float32}
    assert build.verify() is None


def test_it_is_exported_in_fp32(tmp_path: Path) -> None:
    files = onnx_export.exported(components(), build_request(tmp_path, precision="fp16"), "fp16")
    kinds = {f.component: {t.data_type for t in onnx.load(f.path).graph.initializer} for f in files}
    assert kinds["unet"] == {onnx.TensorProto.FLOAT16}
    assert kinds["vae_decoder"] == {onnx.TensorProto.FLOAT}


def files_of(found: list[Component], folder: Path) -> list[OnnxFile]:
    sizes: dict[str, Any] = {"operators": {}, "weights_bytes": 1, "disk_bytes": 1, "export_s": 0.0}
    return [OnnxFile(component=c.name, path=folder, **sizes) for c in found]


def test_onnx_runtimes_session_of_it_is_not_allowed_fp16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = components()
    opened: dict[str, Any] = {}

    def session(file: OnnxFile, providers: Any, request: Any) -> Any:
        opened[file.component] = (providers[0][1]["trt_fp16_enable"], request.precision)
        return MagicMock()

    monkeypatch.setattr(onnxruntime.onnx_export, "exported", lambda *_: files_of(asked, tmp_path))
    monkeypatch.setattr(onnxruntime, "_session", session)
    monkeypatch.setattr(onnxruntime, "_stream", lambda _device: None)
    monkeypatch.setattr(onnxruntime, "_profiled", lambda *_: {("Conv", onnxruntime.TENSORRT): 1})
    request = build_request(tmp_path, precision="fp16", device="cuda")
    build = onnxruntime.OnnxRuntimeTensorRT().build(asked, request)
    assert opened == {"unet": ("1", "fp16"), "vae_decoder": ("0", "fp32")}
    assert "TensorRT's default" in build.facts["tf32"], "what runs in fp32 there may use TF32"
    assert build.verify() is None


@pytest.mark.parametrize(
    ("vae", "fault"), [("float32", None), ("float16", "fp32 was requested, but the engine of vae_")]
)
def test_tensorrts_engine_of_it_takes_fp32(
    vae: str, fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = components()
    paths = {c.name: tmp_path / c.name for c in asked}
    engines = {
        paths["unet"]: FakeEngine({"x": "float16"}, {"Half": 1}),
        paths["vae_decoder"]: FakeEngine({"x": vae}, {"Float": 1}),
    }
    files = [replace(file, path=paths[file.component]) for file in files_of(asked, tmp_path)]
    monkeypatch.setattr("harness.backends.tensorrt.onnx_export.exported", lambda *_: files)
    monkeypatch.setattr(
        tensorrt_engine,
        "plan",
        lambda path, *_: tensorrt_engine.Plan(path=path, built=True, build_s=1.0, digest="d", size=1),
    )
    monkeypatch.setattr(tensorrt_engine, "Engine", lambda path: engines[path])
    build = tensorrt.TensorRT().build(asked, build_request(tmp_path, precision="fp16", device="cuda"))
    found = build.verify()
    assert found is None if fault is None else str(found).startswith(fault)


def test_openvinos_nodes_are_held_to_the_components_own_precision() -> None:
    nodes = {"unet": {("Convolution", "f16"): 9}, "vae_decoder": {("Convolution", "f32"): 5}}
    none = {"unet": 0, "vae_decoder": 0}
    assert openvino._verify_all(nodes, {"unet": "fp16", "vae_decoder": "fp32"}, none) is None
    assert "run in another precision" in str(openvino._verify_all(nodes, {"unet": "fp16", "vae_decoder": "fp16"}, none))


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("wanted", ["fp16", "bf16"])
def test_the_row_tells_it(wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import planted

    case = Case(model="planted_ok", image_size=planted.SIZE, precision=wanted)
    workload = planted.workload(case)
    upcast = replace(workload, components=tuple(replace(c, force_upcast=True) for c in workload.components))
    monkeypatch.setattr(measure.loading, "built", lambda _case: upcast)
    job = measure.Job(
        case=case, replicate=0, protocol=QUICK, device="cpu", folder=tmp_path, cache=tmp_path / "c", threads=1,
        only=("latency",),
    )  # fmt: skip
    found = measure.measure(job, Cpu(), lambda _phase: None).measurement
    assert found.status == "ok", found.reason
    told = [str(w) for w in found.warnings if w.kind == "upcast"]
    if wanted == "bf16":
        assert (told, found.facts.get("component_precisions")) == ([], None)
        return
    assert found.facts["component_precisions"] == {"classifier": "fp32"}
    assert told == [
        "upcast: classifier runs in fp32, because its configuration says that it overflows in fp16 (force_upcast)"
    ]


def test_a_pipeline_whose_vae_overflows_in_fp16_gives_pictures(tmp_path: Path) -> None:
    """Weights that fp16 cannot represent; the norms after them bring the image back to ordinary values."""
    pipeline = stable_diffusion_xl()
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight.mul_(1e7)
    case = case_of("sdxl", batch_size=1, num_steps=1, precision="fp16")
    workload = stable_diffusion_workload(pipeline, case, KINDS["sdxl"][2], "random-0")
    request = build_request(tmp_path, precision="fp16")
    hidden = [replace(c, module=copy.deepcopy(c.module), force_upcast=False) for c in workload.components]
    black = workload.iterate(eager.Eager().build(hidden, request).forwards, workload.batch)
    assert not output_fault_free(black, workload)
    found = workload.iterate(eager.Eager().build(workload.components, request).forwards, workload.batch)
    assert output_fault_free(found, workload)


def output_fault_free(output: torch.Tensor, workload: Workload) -> bool:
    return output_fault(output, workload) is None
