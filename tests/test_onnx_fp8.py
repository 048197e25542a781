"""fp8 in ONNX: what stands in the file, and that its answers are those of fp8, computed on the CPU in fp32 steps."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from test_onnx_export import Network, export, images, nodes, readers_of_rounded_values, request_in

from harness import onnx_export, onnx_fp8
from harness.onnx_export import OnnxFile
from harness.types import Component

CALLS = [(images(2, seed),) for seed in range(1, 5)]


@pytest.fixture
def component() -> Component:
    torch.manual_seed(0)
    return Component(name="net", module=Network().eval(), inputs=(images(2),))


def stored(file: OnnxFile) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in onnx.load(file.path).graph.initializer}


def as_it_stands() -> onnxruntime.SessionOptions:
    """ONNX Runtime's optimiser moves Q/DQ pairs past a Transpose, which it does not have in fp8: without it, then."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def run(file: OnnxFile, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(file.path), as_it_stands(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def test_linear_layers_are_in_fp8_and_the_rest_in_fp32(component: Component, tmp_path: Path) -> None:
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    assert (file.integer_layers, file.calibration) == (2, "pictures")  # inner, head
    kinds = [t.data_type for t in stored(file).values()]
    assert TensorProto.INT8 not in kinds
    assert readers_of_rounded_values(file) == {"MatMul"}
    weights = [t for t in stored(file).values() if t.data_type == TensorProto.FLOAT8E4M3FN and len(t.dims) == 2]
    assert sorted(tuple(t.dims) for t in weights) == [(32, 10), (32, 32)]


def test_one_scale_a_tensor_and_the_largest_value_reaches_the_largest_number(
    component: Component, tmp_path: Path
) -> None:
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    integers = export(component, "int8_static", request_in(tmp_path, CALLS))
    tensors = stored(file)
    for node in [*nodes(file, "QuantizeLinear"), *nodes(file, "DequantizeLinear")]:
        assert list(tensors[node.input[1]].dims) == []
        assert tensors[node.input[2]].data_type == TensorProto.FLOAT8E4M3FN
        assert not node.attribute
        if node.input[0] in tensors:
            largest = np.abs(numpy_helper.to_array(tensors[node.input[0]]).astype(np.float32)).max()
            assert largest == onnx_fp8.LARGEST
    reach = {n.input[1]: 448 * float(numpy_helper.to_array(tensors[n.input[1]])) for n in nodes(file, "QuantizeLinear")}
    before = stored(integers)
    assert reach == {name: pytest.approx(127 * float(numpy_helper.to_array(before[name]))) for name in reach}
    assert reach


def test_its_answers_are_those_of_rounding_weights_and_activations_to_fp8(component: Component, tmp_path: Path) -> None:
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    x = images(2, 9)
    with torch.no_grad():
        expected = component.module(x)
    found = run(file, x)
    assert float(torch.nn.functional.cosine_similarity(found, expected).min()) > 0.99
    assert not torch.allclose(found, expected, atol=1e-4)  # three bits of mantissa are seen


def test_a_weight_is_rounded_from_fp32_and_not_from_int8(component: Component, tmp_path: Path) -> None:
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    module = component.module
    assert isinstance(module, Network)
    weight = module.inner.weight.detach().T.numpy()
    step = np.float32(np.abs(weight).max() / 448)
    wanted = (weight / step).astype(ml_dtypes.float8_e4m3fn)
    held = [numpy_helper.to_array(t) for t in stored(file).values() if list(t.dims) == [32, 32] and t.data_type == 17]
    assert any(np.array_equal(array, wanted) for array in held)


def test_a_weight_of_nothing_but_zeros_stays_one(component: Component, tmp_path: Path) -> None:
    module = component.module
    assert isinstance(module, Network)
    torch.nn.init.zeros_(module.inner.weight)
    file = export(component, "fp8_e4m3", request_in(tmp_path, CALLS))
    with torch.no_grad():
        expected = module(images(2, 9))
    assert float((run(file, images(2, 9)) - expected).abs().max()) < 0.05
    scales = [float(numpy_helper.to_array(stored(file)[n.input[1]])) for n in nodes(file, "DequantizeLinear")]
    assert min(scales) > 1e-30


def test_weights_beside_the_file_are_the_same(
    component: Component, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(2, 9)
    inside = run(export(component, "fp8_e4m3", request_in(tmp_path / "a", CALLS)), x)
    monkeypatch.setattr(onnx_export, "LARGE", 0)
    file = export(component, "fp8_e4m3", request_in(tmp_path / "b", CALLS))
    assert len(list(file.path.parent.iterdir())) == 3  # the file, its weights, about.json
    assert torch.equal(run(file, x), inside)


def test_a_weight_that_is_none_of_the_file_is_refused(component: Component, tmp_path: Path) -> None:
    model = onnx.load(export(component, "int8_static", request_in(tmp_path, CALLS)).path)
    with pytest.raises(ValueError, match="none of the file's"):
        onnx_fp8._turn(model.graph, {})
