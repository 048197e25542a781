"""What was asked for is what ran: planted fallbacks, recompilations and other precisions are found out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.backends import onnxruntime, openvino
from harness.types import Run

RunSuite = Callable[..., Run]


def test_planted_fallbacks_are_invalid_and_never_a_number(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_ok, batch_size: 4, backend: planted_fallback}\n"
        " - {model: planted_ok, batch_size: 4, backend: planted_other_precision, precision: fp16}\n"
        " - {model: planted_ok, batch_size: 4, backend: [onnxruntime, openvino]}\n"
    )
    fallback, other, *sound = run.measurements
    assert (fallback.status, other.status) == ("invalid", "invalid")
    assert str(fallback.reason).startswith("asked for CUDAExecutionProvider, but ")
    assert "ran elsewhere" in str(fallback.reason)
    assert "fp16 was asked for, but" in str(other.reason)
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
    reason = onnxruntime._verify(profiles, onnxruntime.CUDA, "fp16")
    assert reason == f"asked for {onnxruntime.CUDA}, but 1 of 41 nodes ran elsewhere (Resize {onnxruntime.CPU})"
    assert onnxruntime._verify({"unet": {("Conv", onnxruntime.CUDA): 40}}, onnxruntime.CUDA, "fp16") is None
    assert "names no node" in str(onnxruntime._verify({"unet": {}}, onnxruntime.CPU, "fp32"))


def test_int8_without_an_integer_operator_is_not_int8() -> None:
    floats, integers = {"net": {("MatMul", onnxruntime.CPU): 9}}, {"net": {("QLinearMatMul", onnxruntime.CPU): 9}}
    assert "no node that ran is one of" in str(onnxruntime._verify(floats, onnxruntime.CPU, "int8_static"))
    assert onnxruntime._verify(integers, onnxruntime.CPU, "int8_static") is None


def test_openvino_is_held_to_every_heavy_node_of_a_cast_network() -> None:
    mixed = {"unet": {("Convolution", "bf16"): 9, ("MatMul", "f32"): 1, ("Reshape", "f32"): 50}}
    assert openvino._verify(mixed, "bf16") == "bf16 was asked for, but {'MatMul f32': 1} run in another precision"
    assert openvino._verify({"unet": {("Convolution", "bf16"): 9, ("Reshape", "f32"): 50}}, "bf16") is None
    assert openvino._verify({"unet": {("Convolution", "u8"): 9, ("MatMul", "f32"): 1}}, "int8_static") is None
    assert "no convolution or matrix product runs in it" in str(openvino._verify(mixed, "int8_static"))
