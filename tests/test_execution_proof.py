"""What was asked for is what ran: planted fallbacks, recompilations and other precisions are found out."""

from __future__ import annotations

import gc
import statistics
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.backends import onnxruntime
from harness.backends.onnx import proof as onnx_proof
from harness.devices import device
from harness.measuring import loading
from harness.processes.measure import Job, _build
from harness.reasons import Reason
from harness.registry import MODELS
from harness.types import Case, Protocol, Run, Workload

RunSuite = Callable[..., Run]


def test_planted_fallbacks_are_invalid_and_never_a_number(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_ok, batch_size: 4, backend: planted_fallback}\n"
        " - {model: planted_ok, batch_size: 4, backend: planted_other_precision, precision: fp16}\n"
        " - {model: planted_ok, batch_size: 4, backend: [onnxruntime, openvino]}\n"
    )
    fallback, other, *sound = run.measurements
    assert (fallback.status, other.status) == ("invalid", "invalid")
    assert str(fallback.reason).startswith("CUDAExecutionProvider was requested, but ")
    assert "ran elsewhere" in str(fallback.reason)
    assert "fp16 was requested, but" in str(other.reason)
    assert [m.status for m in sound] == ["ok", "ok"]
    nodes = sound[0].facts["nodes"]["classifier"]
    assert any(name.endswith("CPUExecutionProvider") for name in nodes)
    assert sound[1].facts["nodes"]["classifier"] == {"FullyConnected f32": 1}


@pytest.mark.slow
def test_a_planted_recompilation_is_invalid(run_suite: RunSuite) -> None:
    run = run_suite(" - {model: planted_recompile, batch_size: 4, backend: torch_compile}\n")
    (found,) = run.measurements
    assert found.status == "invalid"
    assert "recompilation(s) after the build" in str(found.reason)


def test_one_node_elsewhere_is_enough() -> None:
    profiles = {"unet": {("Conv", onnxruntime.CUDA): 40, ("Resize", onnxruntime.CPU): 1}}
    reason = onnx_proof.fault(profiles, onnxruntime.CUDA, "fp16", {})
    assert (
        str(reason) == f"{onnxruntime.CUDA} was requested, but 1 of 41 nodes ran elsewhere (Resize {onnxruntime.CPU})"
    )
    assert onnx_proof.fault({"unet": {("Conv", onnxruntime.CUDA): 40}}, onnxruntime.CUDA, "fp16", {}) is None
    assert "names no node" in str(onnx_proof.fault({"unet": {}}, onnxruntime.CPU, "fp32", {}))


def test_int8_is_held_to_every_quantised_layer() -> None:
    def verdict(layers: int, **ran: int) -> Reason | None:
        profiles = {"net": {(operator, onnxruntime.CPU): count for operator, count in ran.items()}}
        return onnx_proof.fault(profiles, onnxruntime.CPU, "int8_static", {"net": layers})

    assert "no node that ran is one of" in str(verdict(0, MatMul=9))
    assert verdict(9, QLinearMatMul=9) is None
    assert verdict(9, QLinearConv=2, MatMulIntegerToFloat=7, MatMul=4) is None
    reason = "int8_static: 8 of the 9 quantised layers of net ran in integers"
    assert str(verdict(9, QLinearConv=8, Conv=1)) == reason


def test_int8_on_a_gpu_is_held_to_every_quantised_layer_too() -> None:
    ran = {"net": {("MatMulNBits", onnxruntime.CUDA): 8, ("Add", onnxruntime.CUDA): 30}}
    assert onnx_proof.fault(ran, onnxruntime.CUDA, "int8_weight_only", {"net": 8}) is None
    reason = "int8_weight_only: 8 of the 9 quantised layers of net ran in integers"
    assert str(onnx_proof.fault(ran, onnxruntime.CUDA, "int8_weight_only", {"net": 9})) == reason


def test_what_tensorrts_provider_does_not_show_is_said() -> None:
    ran = {"net": {("TRTKernel_graph_net_0", onnxruntime.TENSORRT): 1}}
    assert onnx_proof.fault(ran, onnxruntime.TENSORRT, "int8_static", {"net": 9}) is None
    assert "not which layers" in onnx_proof.proven("int8_static", onnxruntime.TENSORRT)
    assert "every quantised layer" in onnx_proof.proven("int8_static", onnxruntime.CPU)
    assert onnx_proof.proven("fp16", onnxruntime.TENSORRT) == "the provider of every node"
    assert "allowed" in onnxruntime._modes({"int8_static"}, onnxruntime.TENSORRT)["tf32"]


def event(operator: str, provider: str, *outputs: dict[str, list[int]]) -> dict[str, object]:
    described = {"op_name": operator, "provider": provider, "output_type_shape": list(outputs)}
    return {"cat": "Node", "name": f"{operator}_1_kernel_time", "args": described}


def test_only_shapes_may_be_computed_on_the_cpu_beside_a_gpu_and_only_where_the_batch_is_free() -> None:
    small = [event("Gather", onnxruntime.CPU, {"int64": []}), event("Concat", onnxruntime.CPU, {"int64": [4]})]
    real = event("Conv", onnxruntime.CUDA, {"float16": [1, 8, 4, 4]})
    free, fixed = (onnx_proof.profile([real, *small], free_shapes=given) for given in (True, False))
    assert onnx_proof.fault({"net": free}, onnxruntime.CUDA, "fp16", {}) is None
    assert onnx_proof.in_words(free)[f"Concat {onnx_proof.SHAPES}"] == 1
    assert "2 of 3 nodes ran elsewhere" in str(onnx_proof.fault({"net": fixed}, onnxruntime.CUDA, "fp16", {}))
    for output in ({"float": [4]}, {"int64": [32, 77]}):
        other = onnx_proof.profile([real, event("Gather", onnxruntime.CPU, output)], free_shapes=True)
        assert "1 of 2 nodes ran elsewhere" in str(onnx_proof.fault({"net": other}, onnxruntime.CUDA, "fp16", {}))
    alone = onnx_proof.profile(small, free_shapes=True)
    assert "names no node" in str(onnx_proof.fault({"net": alone}, onnxruntime.CUDA, "fp16", {}))


@pytest.mark.slow
def test_int8_of_every_kind_keeps_top1_within_a_point_on_all_held_out_digits(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: digits_vit, batch_size: 32, precision: [fp32, int8_dynamic, int8_dynamic_classic, int8_static,"
        " int8_weight_only]}\n"
        " - {model: digits_vit, batch_size: 32, backend: onnxruntime, precision: [int8_dynamic, int8_static,"
        " int8_weight_only]}\n"
        " - {model: digits_vit, batch_size: 32, backend: openvino, precision: int8_static}\n"
    )
    assert {(m.case.backend, m.case.precision): m.reason for m in run.measurements if m.status != "ok"} == {}
    right = {(m.case.backend, m.case.precision): m.samples["top1"] for m in run.measurements}
    assert len(right) == 9
    assert {len(items) for items in right.values()} == {397}
    reference = statistics.fmean(right["eager", "fp32"])
    lost = {key: reference - statistics.fmean(items) for key, items in right.items()}
    assert max(lost.values()) <= 0.01, lost


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_backend_that_does_not_run_torchs_modules_does_not_keep_them(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept, they would count in every peak of memory. Calibration is what a closure of the request would hold on to."""
    kept: list[weakref.ref[torch.nn.Module]] = []
    entry = MODELS["planted_ok"]

    def watched(case: Case) -> Workload:
        found: Workload = entry.build(case)
        kept.extend(weakref.ref(c.module) for c in found.components)
        return found

    def watched_copies(workload: Workload) -> loading.Loaded:
        found = loading_own(workload)
        kept.extend(weakref.ref(c.module) for c in found.workload.components)
        return found

    loading_own = loading.own
    monkeypatch.setitem(MODELS._entries, "planted_ok", replace(entry, build=watched))
    monkeypatch.setattr(loading, "own", watched_copies)
    case = Case(model="planted_ok", backend=backend, precision="int8_static", batch_size=4)
    job = Job(
        case=case, replicate=0, protocol=Protocol(), device="cpu", folder=tmp_path, cache=tmp_path / "cache", threads=1
    )
    loaded, _, build = _build(job, device("cpu"), lambda _phase: None)
    gc.collect()
    assert not build.keeps_modules
    assert build.verify() is None
    assert [type(c.module).__name__ for c in loaded.workload.components] == ["Identity"]
    assert len(kept) == 2
    assert all(reference() is None for reference in kept)
