"""OpenVINO's compiled network, read back: what must run in the row's precision, and what must not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from onnx_fixture import request_in

from harness.backends import openvino
from harness.backends.onnx import export as onnx_export
from harness.registry import BACKENDS
from harness.types import Component


class Timestep(torch.nn.Module):
    """The sinusoid of a timestep as in every denoiser, and a layer that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 16)

    def forward(self, x: torch.Tensor, ticks: torch.Tensor) -> torch.Tensor:
        angles = ticks[:, None] * torch.logspace(0, -4, 32)[None]  # (n, 32)
        return self.layer(torch.cat([angles.cos(), angles.sin()], dim=-1).to(x.dtype) + x)  # (n, 16)


def test_angles_of_a_timestep_stay_in_fp32_where_the_network_runs_in_bf16(tmp_path: Path) -> None:
    """In bf16, 999 is 1000: the highest frequencies would be of another step."""
    if (reason := openvino.OpenVino().unavailable("bf16", "cpu")) is not None:
        pytest.skip(str(reason))
    torch.manual_seed(0)
    inputs = (torch.zeros(2, 64), torch.tensor([999, 503]))
    component = Component(name="net", module=Timestep().eval(), inputs=inputs)
    request = replace(request_in(tmp_path), precision="bf16")
    (file,) = onnx_export.exported([component], request, "fp32")
    compiled = openvino._compiled(file, request)
    with torch.no_grad():
        expected = component.module(*inputs)
    found = openvino._forward(compiled)(*inputs)
    assert found.shape == expected.shape
    assert float((found - expected).norm() / (expected - expected.mean()).norm()) < 0.02
    assert openvino._verify({"net": openvino._nodes(compiled)}, "bf16", {"net": 0}) is None
    build = BACKENDS["openvino"].build([component], request)
    assert build.facts["sinusoids_in_fp32"] == {"net": 2}, "a network that is not the file's as it stands says so"


def test_openvino_is_held_to_every_heavy_node_of_a_cast_network() -> None:
    mixed = {"unet": {("Convolution", "bf16"): 9, ("MatMul", "f32"): 1, ("Reshape", "f32"): 50}}
    reason = "bf16 was requested, but {'MatMul f32': 1} run in another precision"
    assert str(openvino._verify(mixed, "bf16", {"unet": 0})) == reason
    assert openvino._verify({"unet": {("Convolution", "bf16"): 9, ("Reshape", "f32"): 50}}, "bf16", {"unet": 0}) is None
    assert "no convolution or matrix product runs in it" in str(openvino._verify(mixed, "int8_static", {"unet": 0}))


def test_openvino_is_held_to_every_quantised_layer() -> None:
    quantised = {"unet": {("Convolution", "u8"): 9, ("FullyConnected", "i8"): 3, ("MatMul", "f32"): 1}}
    assert openvino._verify(quantised, "int8_static", {"unet": 12}) is None
    reason = "int8_static: 12 of the 13 quantised layers of unet ran in integers"
    assert str(openvino._verify(quantised, "int8_static", {"unet": 13})) == reason
