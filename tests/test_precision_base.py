"""int8 over bf16 and fp16: what is not quantised has the type that the precision's name gives."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from build_request_fixture import build_request
from torch import nn

from harness.backends import onnxruntime, openvino, tensorrt
from harness.backends.eager import Eager, cast_all
from harness.backends.onnx import proof as onnx_proof
from harness.numerics import precision
from harness.numerics.calibration import Recorded
from harness.numerics.tolerance import tolerance
from harness.reasons import Reason
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Component
from reports import theme

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64
OVER = [f"int8_{how}_{base}" for how in ("dynamic", "static", "weight_only") for base in ("bf16", "fp16")]
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def component() -> Component:
    """A convolution and a norm, which stay in the base type, around two linear layers."""
    torch.manual_seed(0)
    layers = [nn.Conv1d(4, 4, 1), nn.Linear(SIDE, SIDE), nn.GELU(), nn.LayerNorm(SIDE), nn.Linear(SIDE, SIDE)]
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    return Component(name="net", module=module, inputs=(torch.randn(8, 4, SIDE),))


def recorded() -> Recorded:
    return Recorded(calls={"net": [component().inputs]}, source="planted")


def test_the_six_are_among_the_precisions_and_have_a_marker_and_a_dash_of_their_own() -> None:
    assert set(OVER) < set(PRECISIONS)
    for look in (theme.precision_symbol, theme.precision_dash):
        assert len({look(name) for name in PRECISIONS}) == len(PRECISIONS)


@pytest.mark.parametrize("wanted", OVER)
def test_a_network_runs_in_int8_and_the_rest_of_it_in_the_base_type(wanted: str, tmp_path: Path) -> None:
    net = component()
    expected = net.module(*net.inputs)
    build = Eager().build([net], build_request(tmp_path, precision=wanted, calibration=recorded))
    with torch.no_grad():
        output = build.forwards["net"](*net.inputs)
    assert (build.verify(), output.dtype) == (None, torch.float32)
    rest = 4 * 4 + 4 + 2 * SIDE + 2 * SIDE
    base = DTYPES[wanted.rsplit("_", 1)[1]]
    assert build.facts["elements_by_dtype"] == {"int8": 2 * SIDE * SIDE, base: rest}
    assert build.facts["quantised_layers"] == {"net": "2 of 2"}
    assert float(nn.functional.cosine_similarity(output.flatten(), expected.flatten(), dim=0)) > 0.999
    assert not torch.equal(output, expected)


@pytest.mark.parametrize("wanted", [name for name in OVER if name.endswith("bf16")])
def test_dynamo_traces_it_as_one_graph(wanted: str, tmp_path: Path) -> None:
    cast = cast_all([component()], build_request(tmp_path, precision=wanted, calibration=recorded)).modules["net"]
    compiled = torch.compile(cast, backend="eager", fullgraph=True, dynamic=False)
    x = component().inputs[0].to(torch.bfloat16)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), cast(x))


@pytest.mark.parametrize("kind", ["logits", "images"])
def test_the_bounds_of_the_output_are_those_of_int8_whatever_is_under_it(kind: str) -> None:
    assert {tolerance(wanted, kind) for wanted in OVER} == {tolerance("int8_dynamic", kind)}


def test_a_part_that_stayed_in_fp32_is_found() -> None:
    assert precision.mismatch({"int8": 9, "bfloat16": 1}, "int8_dynamic_bf16") is None
    assert "several dtypes" in str(precision.mismatch({"int8": 9, "float32": 1}, "int8_dynamic_bf16"))
    assert "several dtypes" in str(precision.mismatch({"int8": 9, "bfloat16": 1}, "int8_dynamic"))


@pytest.mark.parametrize("wanted", OVER)
def test_onnx_backends_on_a_cpu_refuse_it(wanted: str) -> None:
    recipe, base = wanted.rsplit("_", 1)
    assert BACKENDS["onnxruntime"].unavailable(wanted, "cpu") == Reason("ort_no_cpu_kernels", {"precision": base})
    reason = Reason("openvino_over_fp32", {"precision": wanted})
    assert BACKENDS["openvino"].unavailable(wanted, "cpu") == openvino.NOT_HERE.get(recipe, reason)


def test_on_a_gpu_they_have_it_where_there_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime multiplies by int8 weights over any base, TensorRT has int8 by Q/DQ nodes."""
    monkeypatch.setattr(tensorrt, "cannot_import", lambda *_: None)
    monkeypatch.setattr(tensorrt, "missing_device", lambda _device: None)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4.0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    native = {wanted: tensorrt.TensorRT().unavailable(wanted, "cuda") for wanted in OVER}
    assert {wanted for wanted, reason in native.items() if reason is None} == {"int8_static_bf16", "int8_static_fp16"}
    assert native["int8_dynamic_fp16"] == native["int8_dynamic_bf16"] == tensorrt.NOT_HERE["int8_dynamic"]
    by_cuda = {wanted: onnxruntime._impossible(wanted, onnx_proof.CUDA) for wanted in OVER}
    assert {wanted for wanted, reason in by_cuda.items() if reason is None} == {
        "int8_weight_only_bf16",
        "int8_weight_only_fp16",
    }
    reason = onnxruntime._impossible("int8_static_bf16", onnx_proof.TENSORRT)
    assert str(reason) == "Q/DQ nodes over bf16 are meant for the backend tensorrt and are untested with this provider"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert tensorrt.TensorRT().unavailable("int8_static_fp16", "cuda") is None
    assert "8.0 or newer" in str(tensorrt.TensorRT().unavailable("int8_static_bf16", "cuda"))


@pytest.mark.parametrize(
    ("wanted", "rest"),
    [
        ("tf32", "fp32"),
        ("bf16", "bf16"),
        ("fp8_e4m3", "bf16"),
        ("int8_static", "fp32"),
        ("int8_static_fp16", "fp16"),
        ("int8_weight_only_bf16", "bf16"),
    ],
)
def test_what_is_not_quantised_is_in_a_precision_too(wanted: str, rest: str) -> None:
    assert precision.rest_of(wanted) == rest


@pytest.mark.parametrize("wanted", OVER)
def test_they_run_on_a_cpu_and_bf16_needs_tensor_cores_that_have_it(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert precision.unsupported_by_torch(wanted, "cpu") is None
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    reason = precision.unsupported_by_torch(wanted, "cuda")
    needed = Reason("compute_capability", {"precision": wanted, "needed": "8.0"})
    assert reason == (needed if wanted.endswith("bf16") else None)
