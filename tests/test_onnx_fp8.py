"""fp8 in ONNX: what stands in the file, and that its answers are those of fp8, computed by ONNX's own evaluator."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx_fixture import Network, answer, export, images, nodes, readers_of_rounded_values, request_in

from harness.backends.onnx import base as onnx_base
from harness.backends.onnx import export as onnx_export
from harness.backends.onnx.export import OnnxFile
from harness.types import Component

CALLS = [(images(2, seed),) for seed in range(1, 5)]


@pytest.fixture
def component() -> Component:
    torch.manual_seed(0)
    return Component(name="net", module=Network().eval(), inputs=(images(2),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports that the tests of this file share: each takes a second."""
    return tmp_path_factory.mktemp("fp8")


def stored(file: OnnxFile) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in onnx.load(file.path).graph.initializer}


def test_linear_layers_are_in_fp8_and_the_rest_in_bf16(component: Component, folder: Path) -> None:
    file = export(component, "fp8_e4m3", request_in(folder, CALLS))
    assert (file.integer_layers, file.calibration) == (2, "images")  # inner, head
    kinds = [t.data_type for t in stored(file).values()]
    assert set(kinds) == {TensorProto.FLOAT8E4M3FN, TensorProto.BFLOAT16, TensorProto.INT64}
    assert readers_of_rounded_values(file) == {"MatMul"}
    weights = [t for t in stored(file).values() if t.data_type == TensorProto.FLOAT8E4M3FN and len(t.dims) == 2]
    assert sorted(tuple(t.dims) for t in weights) == [(32, 10), (32, 32)]


def test_one_scale_a_tensor_and_the_largest_value_reaches_the_largest_number(
    component: Component, folder: Path
) -> None:
    file = export(component, "fp8_e4m3", request_in(folder, CALLS))
    integers = export(component, "int8_static", request_in(folder, CALLS))
    tensors = stored(file)
    quantising, restoring = nodes(file, "QuantizeLinear"), nodes(file, "DequantizeLinear")
    assert len(restoring) > len(quantising) > 0
    for node in [*quantising, *restoring]:
        assert list(tensors[node.input[1]].dims) == []
        assert tensors[node.input[2]].data_type == TensorProto.FLOAT8E4M3FN
        assert not node.attribute
        if node.input[0] in tensors:
            largest = np.abs(numpy_helper.to_array(tensors[node.input[0]]).astype(np.float32)).max()
            assert largest == onnx_base.FP8.largest
    reach = {n.input[1]: 448 * float(numpy_helper.to_array(tensors[n.input[1]])) for n in nodes(file, "QuantizeLinear")}
    before = stored(integers)
    # The scale is rounded up to bf16, by less than one part in 128.
    exact = {name: 127 * float(numpy_helper.to_array(before[name])) for name in reach}
    assert all(exact[name] <= found < exact[name] * (1 + 2**-7) for name, found in reach.items())
    assert reach


def test_its_answers_are_those_of_rounding_weights_and_activations_to_fp8(component: Component, folder: Path) -> None:
    file = export(component, "fp8_e4m3", request_in(folder, CALLS))
    x = images(2, 9)
    with torch.no_grad():
        expected = component.module(x)
    found = answer(file, x)
    assert float(torch.nn.functional.cosine_similarity(found, expected).min()) > 0.99
    assert not torch.allclose(found, expected, atol=1e-4)  # three bits of mantissa are seen


def test_a_weight_is_rounded_from_fp32_and_not_from_int8(component: Component, folder: Path) -> None:
    file = export(component, "fp8_e4m3", request_in(folder, CALLS))
    module = component.module
    assert isinstance(module, Network)
    weight = module.inner.weight.detach().T.numpy()
    tensors = stored(file)
    (step,) = (
        numpy_helper.to_array(tensors[n.input[1]]).astype(np.float32)
        for n in nodes(file, "DequantizeLinear")
        if n.input[0] in tensors and list(tensors[n.input[0]].dims) == [32, 32]
    )
    assert step == pytest.approx(np.abs(weight).max() / 448, rel=2**-7)
    wanted = (weight / step).astype(ml_dtypes.float8_e4m3fn)
    held = [numpy_helper.to_array(t) for t in tensors.values() if list(t.dims) == [32, 32] and t.data_type == 17]
    assert any(np.array_equal(array, wanted) for array in held)


def test_a_weight_of_nothing_but_zeros_stays_one(component: Component, tmp_path: Path) -> None:
    module = component.module
    assert isinstance(module, Network)
    torch.nn.init.zeros_(module.inner.weight)
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    with torch.no_grad():
        expected = module(images(2, 9))
    assert float((answer(file, images(2, 9)) - expected).abs().max()) < 0.05
    scales = [float(numpy_helper.to_array(stored(file)[n.input[1]])) for n in nodes(file, "DequantizeLinear")]
    assert min(scales) > 1e-30


def test_weights_beside_the_file_are_the_same(
    component: Component, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(2, 9)
    inside = answer(export(component, "fp8_e4m3", request_in(folder, CALLS)), x)
    monkeypatch.setattr(onnx_export, "LARGE", 0)
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    assert len(list(file.path.parent.iterdir())) == 3  # the file, its weights, about.json
    assert torch.equal(answer(file, x), inside)
