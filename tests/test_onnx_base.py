"""Q/DQ over fp16 and bf16: the types in the file, read back, and its answers, computed in those types.

ONNX's reference evaluator computes every node in the types of the file, bf16 and fp8 included, which ONNX Runtime's CPU
provider cannot.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from build_request_fixture import build_request
from onnx import TensorProto, numpy_helper
from onnx_fixture import Network, Skipping, answer, export, images, nodes, readers_of_rounded_values

from harness.backends import BuildRequest
from harness.backends.onnx import base as onnx_base
from harness.backends.onnx.export import OnnxFile
from harness.numerics.calibration import Recorded
from harness.numerics.tolerance import relative_errors, tolerance
from harness.types import Component

pytestmark = pytest.mark.usefixtures("one_thread")
INT8_OVER = {"int8_static_fp16": TensorProto.FLOAT16, "int8_static_bf16": TensorProto.BFLOAT16}
BASES = {**INT8_OVER, "fp8_e4m3": TensorProto.BFLOAT16}
NARROW = {recipe: TensorProto.FLOAT8E4M3FN if recipe == "fp8_e4m3" else TensorProto.INT8 for recipe in BASES}
NUMPY = {TensorProto.FLOAT16: np.dtype(np.float16), TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}
CALLS = [(images(2, seed),) for seed in range(1, 5)]


class Ending(torch.nn.Module):
    """A network whose output is a convolution's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(images).relu())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports that the tests of this file share: each takes a second."""
    return tmp_path_factory.mktemp("over")


def component(kind: type[torch.nn.Module] = Network) -> Component:
    torch.manual_seed(0)
    return Component(name=kind.__name__, module=kind().eval().requires_grad_(False), inputs=(images(2),))


def request(folder: Path, kind: type[torch.nn.Module] = Network) -> BuildRequest:
    recorded = Recorded(calls={kind.__name__: CALLS}, source="images")
    return build_request(folder, calibration=lambda: recorded)


def exported(folder: Path, recipe: str, kind: type[torch.nn.Module] = Network) -> OnnxFile:
    return export(component(kind), recipe, request(folder, kind))


def types(file: OnnxFile) -> dict[str, int]:
    """ONNX's element type of every tensor of the graph, by the inference of the checker."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(file.path), check_type=True, strict_mode=True).graph
    described = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    assert {name for node in graph.node for name in node.output} <= described.keys()
    return described | {t.name: t.data_type for t in graph.initializer}


@pytest.mark.parametrize("recipe", BASES)
def test_every_float_of_the_file_is_in_the_base_type(recipe: str, folder: Path) -> None:
    file = exported(folder, recipe)
    assert set(types(file).values()) == {BASES[recipe], NARROW[recipe], TensorProto.INT64}
    assert (file.integer_layers, file.calibration) == (2, "images")  # inner, head
    static = exported(folder, "int8_static")
    assert file.share.quantised == static.share.quantised == 32 * 32 + 32 * 10
    assert file.weights_bytes < static.weights_bytes


@pytest.mark.parametrize("recipe", BASES)
def test_a_scale_has_the_type_of_what_is_rounded(recipe: str, folder: Path) -> None:
    file = exported(folder, recipe)
    found = types(file)
    assert nodes(file, "QuantizeLinear")
    for node in nodes(file, "QuantizeLinear"):
        assert [found[name] for name in (*node.input, *node.output)] == [BASES[recipe]] * 2 + [NARROW[recipe]] * 2
    for node in nodes(file, "DequantizeLinear"):
        wanted = [NARROW[recipe], BASES[recipe], NARROW[recipe], BASES[recipe]]
        assert [found[name] for name in (*node.input, *node.output)] == wanted
    assert len(nodes(file, "DequantizeLinear")) == 4


@pytest.mark.parametrize("recipe", BASES)
def test_its_answers_are_those_of_the_network_in_fp32(recipe: str, folder: Path) -> None:
    file = exported(folder, recipe)
    x = images(2, 9)
    expected = component().module(x)
    found = answer(file, x)
    errors = relative_errors(found, expected)
    assert 1e-4 < sum(errors) / len(errors) < tolerance(recipe, "logits").error_ceiling
    assert float(torch.nn.functional.cosine_similarity(found, expected).min()) > 0.99


@pytest.mark.parametrize("recipe", INT8_OVER)
def test_weights_are_rounded_from_fp32_by_the_scale_in_the_file(recipe: str, folder: Path) -> None:
    file = exported(folder, recipe)
    module = component().module
    assert isinstance(module, Network)
    wanted = {layer.weight.T.shape: layer.weight.T.numpy() for layer in (module.inner, module.head)}
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(file.path).graph.initializer}
    held = [node for node in nodes(file, "DequantizeLinear") if node.input[0] in stored]
    assert len(held) == 2
    for node in held:
        integers, scale, zero = (stored[name] for name in node.input)
        weight = wanted[integers.shape]
        assert (scale.shape, zero.shape) == ((integers.shape[1],),) * 2
        assert onnx.helper.get_node_attr_value(node, "axis") == 1
        assert np.array_equal(integers, np.rint(weight / scale.astype(np.float32)))
        exact = np.abs(weight).max(axis=0) / 127
        assert (scale.astype(np.float32) >= exact.astype(np.float32)).all(), "nothing is cut off"
        assert (np.abs(integers).max(axis=0) >= 126).all(), "and the grid is used"


def test_ranges_are_those_of_the_file_in_fp32(folder: Path) -> None:
    def scales(recipe: str) -> list[float]:
        file = exported(folder, recipe)
        stored = {t.name: t for t in onnx.load(file.path).graph.initializer}
        return [float(numpy_helper.to_array(stored[n.input[1]])) for n in nodes(file, "QuantizeLinear")]

    exact = scales("int8_static")
    assert len(exact) == 2
    assert scales("int8_static_fp16") == [pytest.approx(scale, rel=2**-10) for scale in exact]
    assert scales("int8_static_bf16") == [pytest.approx(scale, rel=2**-7) for scale in exact]
    assert scales("fp8_e4m3") == [pytest.approx(scale * 127 / 448, rel=2**-7) for scale in exact]


@pytest.mark.parametrize("dtype", NUMPY.values())
def test_a_scale_is_the_next_number_of_its_type_that_is_not_below(dtype: np.dtype) -> None:
    exact = np.exp(np.random.default_rng(0).uniform(-15, 5, 1000)).astype(np.float32)
    found = onnx_base._up(exact, dtype)
    assert found.dtype == dtype
    below = np.nextafter(found, np.asarray(0, dtype))
    assert (found.astype(np.float32) >= exact).all()
    assert (below.astype(np.float32) < exact).all()
    held = exact.astype(dtype)
    assert np.array_equal(onnx_base._up(held.astype(np.float32), dtype), held), "what the type has stays"


def test_a_channel_of_zeros_or_of_hardly_anything_has_a_positive_scale() -> None:
    """fp16 would have 0 for the scale of the third."""
    weight = np.array([[1.0, 0.0, 1e-6], [-2.0, 0.0, -3e-7]], dtype=np.float32)
    held, scale = onnx_base._rounded_weight(weight, 1, onnx_base.INT8, NUMPY[TensorProto.FLOAT16])
    assert (scale > 0).all()
    assert held[:, 1].tolist() == [0, 0]
    assert np.abs(held * scale.astype(np.float32) - weight).max() <= 2 / 127


@pytest.mark.parametrize("recipe", INT8_OVER)
def test_what_a_convolution_gives_is_rounded_as_in_fp32(recipe: str, folder: Path) -> None:
    """For all of its readers, and nothing else beside the quantised layers."""
    static, file = exported(folder, "int8_static", Skipping), exported(folder, recipe, Skipping)
    assert readers_of_rounded_values(file) == {"Conv"}
    assert len(nodes(file, "QuantizeLinear")) == len(nodes(static, "QuantizeLinear")) == 6
    assert len(nodes(file, "DequantizeLinear")) == len(nodes(static, "DequantizeLinear")) == 9
    assert file.integer_layers == static.integer_layers == 3
    x = images(2, 2)
    expected = component(Skipping).module(x)
    assert float((answer(file, x) - expected).norm() / (expected - expected.mean()).norm()) < 0.05


def test_an_output_that_is_rounded_keeps_its_name(folder: Path) -> None:
    file = exported(folder, "int8_static_fp16", Ending)
    plain, graph = onnx.load(exported(folder, "fp16", Ending).path).graph, onnx.load(file.path).graph
    assert [o.name for o in graph.output] == [o.name for o in plain.output]
    assert graph.node[-1].op_type == "DequantizeLinear"
    x = images(2, 1)
    expected = component(Ending).module(x)
    assert float((answer(file, x) - expected).norm() / expected.norm()) < 0.05


def test_the_network_itself_stays_in_fp32(tmp_path: Path) -> None:
    """The calibration of the next network of a pipeline runs it."""
    net = component(Ending)
    export(net, "int8_static_fp16", request(tmp_path, Ending))
    assert {p.dtype for p in net.module.parameters()} == {torch.float32}


def placed(folder: Path, base: Path, path: Path, large: bool = False) -> None:
    """`base` with the ranges of the network, put there by hand."""
    plain, static = exported(folder, "fp32").path, exported(folder, "int8_static").path
    onnx_base.place(plain, static, base, path, large, onnx_base.INT8, "float16")


def test_weights_beside_the_file_are_the_same(tmp_path: Path, folder: Path) -> None:
    path, file = tmp_path / "model.onnx", exported(folder, "int8_static_fp16")
    placed(folder, exported(folder, "fp16").path, path, large=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert torch.equal(answer(replace(file, path=path), images(2, 9)), answer(file, images(2, 9)))


def test_ranges_are_put_into_no_other_network(folder: Path, tmp_path: Path) -> None:
    other = onnx.load(exported(folder, "fp16").path)
    weight = next(t for t in other.graph.initializer if len(t.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(1.5), weight.name))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="has another weight than in fp32"):
        placed(folder, tmp_path / "other.onnx", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="has other layers than in fp32"):
        placed(folder, exported(folder, "fp16", Ending).path, tmp_path / "model.onnx")


@pytest.mark.parametrize(("recipe", "base"), [("int8_weight_only_fp16", 10), ("int8_weight_only_bf16", 16)])
def test_int8_weights_alone_have_scales_in_the_base_type(recipe: str, base: int, folder: Path) -> None:
    file = exported(folder, recipe)
    stored = {t.name: t.data_type for t in onnx.load(file.path).graph.initializer}
    assert file.integer_layers == 3
    assert set(stored.values()) == {base, TensorProto.UINT8, TensorProto.INT64}
    assert {stored[n.input[2]] for n in nodes(file, "MatMulNBits")} == {base}
