"""IO binding of ONNX Runtime, on the CPU's own provider: what a GPU adds is where the buffers lie."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from build_request_fixture import build_request

from harness import onnx_export
from harness.backends.onnxruntime import bound
from harness.types import Component

SHAPES = [(2, 1, 8, 8), (5, 1, 8, 8), (2, 1, 12, 20), (3, 1, 12, 20)]


@pytest.mark.parametrize(
    ("optimizations", "taken"),
    [
        ((), SHAPES[:1]),
        (("dynamic_batch",), SHAPES[:2]),
        (("dynamic_size",), SHAPES[::2]),
        (("dynamic_batch", "dynamic_size"), SHAPES),
    ],
)
def test_buffers_are_of_the_sizes_that_the_network_gives(
    optimizations: tuple[str, ...], taken: list[tuple[int, ...]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Upsample(scale_factor=2)).eval()
    component = Component(name="net", module=net, inputs=(torch.randn(SHAPES[0]),))
    (file,) = onnx_export.exported([component], build_request(tmp_path, optimizations=optimizations), "fp32")
    forward = bound(onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"]), "cpu")
    for shape in taken:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(forward(x), net(x), rtol=1e-5, atol=1e-5)
