"""One export for three backends: what stands in the files, what is left in fp32, and who shares them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import numpy_helper
from onnx_fixture import Network, Skipping, export, images, nodes, readers_of_rounded_values, request_in, run

from harness.backends.onnx import export as onnx_export
from harness.backends.onnx import static as onnx_static
from harness.backends.onnx.export import OnnxFile
from harness.backends.onnxruntime import _recipe
from harness.numerics import int8_saturation
from harness.processes import measure
from harness.types import Case, Component


@pytest.fixture
def component() -> Component:
    torch.manual_seed(0)
    return Component(name="net", module=Network().eval(), inputs=(images(2),))


@pytest.mark.parametrize("recipe", ["fp32", "int8_dynamic", "int8_weight_only", "int8_static"])
def test_a_recipe_gives_a_checked_file_with_the_same_answers(recipe: str, component: Component, tmp_path: Path) -> None:
    calls = [(images(2, seed),) for seed in range(1, 5)]
    file = export(component, onnx_export.for_cpu(recipe), request_in(tmp_path, calls))
    x = images(2, 9)
    with torch.no_grad():
        expected = component.module(x)
    assert float(torch.nn.functional.cosine_similarity(run(file, x), expected).min()) > 0.99
    assert file.disk_bytes == file.path.stat().st_size
    assert (file.calibration == "images") == (recipe == "int8_static")
    assert file.export_s > 0
    wanted = {"int8_dynamic": "MatMulInteger", "int8_weight_only": "MatMulNBits", "int8_static": "QuantizeLinear"}
    assert recipe == "fp32" or wanted[recipe] in file.operators


@pytest.mark.parametrize(("recipe", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)])
def test_half_precision_is_in_the_weights(recipe: str, kind: int, component: Component, tmp_path: Path) -> None:
    full = export(component, "fp32", request_in(tmp_path)).weights_bytes
    half = export(component, recipe, request_in(tmp_path))
    floats = [t.data_type for t in onnx.load(half.path).graph.initializer if t.data_type != onnx.TensorProto.INT64]
    assert set(floats) == {kind}
    assert half.weights_bytes < 0.6 * full


def test_static_leaves_the_first_layer_embeddings_and_products_of_activations_in_fp32(
    component: Component, tmp_path: Path
) -> None:
    file = export(component, "int8_static", request_in(tmp_path, [(images(2, 1),)]))
    graph = onnx.load(file.path).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    quantised = {
        node.name: [made_by.get(name) == "DequantizeLinear" for name in node.input[:2]]
        for node in graph.node
        if node.op_type in {"Conv", "Gemm", "MatMul"}
    }
    both = [name for name, flags in quantised.items() if all(flags)]
    neither = [name for name, flags in quantised.items() if not any(flags)]
    assert (len(both), len(neither)) == (2, 4)  # inner, head; patches, timestep_embedder, two products
    zero_points = [numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("_zero_point")]
    assert zero_points
    assert all(z.dtype == np.int8 and not z.any() for z in zero_points)


def test_unsigned_is_the_same_grid_for_other_kernels(component: Component, tmp_path: Path) -> None:
    calls = [(images(2, 1),)]
    recipe = onnx_export.for_cpu("int8_static")  # where the kernels of one form saturate, their answers differ
    signed = export(component, recipe, request_in(tmp_path, calls))
    unsigned = export(component, f"{recipe}_unsigned", request_in(tmp_path, calls))
    zero_points = {n.input[2] for n in nodes(unsigned, "QuantizeLinear")}
    found = [numpy_helper.to_array(t) for t in onnx.load(unsigned.path).graph.initializer if t.name in zero_points]
    assert found
    assert all(z.dtype == np.uint8 and (z == 128).all() for z in found)
    assert (signed.integer_layers, unsigned.integer_layers) == (2, 2)
    assert signed.calibration == unsigned.calibration == "images"
    x = images(2, 1) * 0.9  # within the ranges: beyond them one clips at 127 and the other at 255 - 128
    assert torch.allclose(run(signed, x), run(unsigned, x), atol=1e-5)


@pytest.mark.parametrize("recipe", ["int8_dynamic", "int8_weight_only", "int8_static", "int8_static_unsigned"])
def test_integer_layers_are_those_with_weights(recipe: str, component: Component, tmp_path: Path) -> None:
    """Dynamic and weight-only take all three linear layers, static leaves the embedding."""
    file = export(component, recipe, request_in(tmp_path, [(images(2, 1),)]))
    assert file.integer_layers == (2 if "static" in recipe else 3)


@pytest.mark.parametrize("recipe", ["int8_dynamic", "int8_static", "int8_static_unsigned"])
def test_seven_bits_are_a_file_of_their_own_with_half_the_grid(
    recipe: str, component: Component, tmp_path: Path
) -> None:
    kind, _, _unsigned = recipe.partition("_unsigned")
    narrow = recipe.replace(kind, f"{kind}{onnx_export.SEVEN_BITS}")
    calls = [(images(2, seed),) for seed in range(1, 5)]
    wide = export(component, recipe, request_in(tmp_path, calls))
    file = export(component, narrow, request_in(tmp_path, calls))
    assert file.path != wide.path
    assert file.integer_layers == wide.integer_layers > 0
    assert (largest_weight(wide), largest_weight(file)) == (127, 64)
    with torch.no_grad():
        expected = component.module(images(2, 9))
    assert float(torch.nn.functional.cosine_similarity(run(file, images(2, 9)), expected).min()) > 0.99


def largest_weight(file: OnnxFile) -> int:
    found = [numpy_helper.to_array(t) for t in onnx.load(file.path).graph.initializer]
    return max(int(abs(x.astype(int)).max()) for x in found if x.dtype == np.int8 and x.ndim >= 2)


INTEL, OLD_AMD = "flags\t\t: fpu avx2 avx512_vnni\nflags\t\t: fpu", "processor : 0\nflags\t\t: fpu sse2 avx2 fma\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "bits"),
    [("x86_64", INTEL, 8), ("x86_64", OLD_AMD, 7), ("AMD64", "", 7), ("aarch64", "Features : asimd", 8)],
)
def test_weights_have_seven_bits_where_kernels_saturate(
    machine: str, cpuinfo: str, bits: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(int8_saturation, "CPUINFO", tmp_path / "cpuinfo")
    if cpuinfo:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    suffix = "_7bit" if bits == 7 else ""
    assert int8_saturation.weight_bits() == bits
    assert ("VNNI" in int8_saturation.in_words(bits)) == (bits == 7)
    assert onnx_export.for_cpu("int8_dynamic") == f"int8_dynamic{suffix}"
    assert _recipe("int8_static", "CPUExecutionProvider") == f"int8_static{suffix}_unsigned"
    assert _recipe("int8_static", "TensorrtExecutionProvider") == "int8_static"
    assert [onnx_export.for_cpu(name) for name in ("fp32", "int8_weight_only")] == ["fp32", "int8_weight_only"]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_kernels_of_this_cpu_do_not_saturate_with_the_largest_weights(sign: int) -> None:
    """On x86 without VNNI each pair of products is added in 16 bits: 127 in place of 64 gives 32,767 for 64,770."""
    largest = {8: 127, 7: 64}[int8_saturation.weight_bits()]
    activations = np.full((8, 64), 255, dtype=np.uint8)
    weights = np.full((64, 16), sign * largest, dtype=np.int8)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, activations.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (8, 16))],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = onnx.helper.make_opsetid("", onnx_export.OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": activations})
    assert np.array_equal(found, activations.astype(np.int32) @ weights.astype(np.int32))


def test_no_gemm_is_left_and_the_answers_stay(component: Component, tmp_path: Path) -> None:
    plain = export(component, "fp32", request_in(tmp_path))
    model = onnx_static.without_gemm(onnx.load(plain.path))
    assert nodes(plain, "Gemm")
    assert not [node for node in model.graph.node if node.op_type == "Gemm"]
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images(2).numpy()})
    assert np.allclose(found, run(plain, images(2)).numpy(), atol=1e-5)


def test_an_outlier_of_the_input_does_not_spoil_small_inputs(component: Component, tmp_path: Path) -> None:
    """A sampler's latents grow over its steps: one range for all of them must not be what the first step is cut to."""
    calls = [(images(2, 1),), (images(2, 2) * 300,)]
    file = export(component, "int8_static", request_in(tmp_path, calls))
    quantised = {name for node in nodes(file, "QuantizeLinear") for name in node.input}
    assert not quantised & {i.name for i in onnx.load(file.path).graph.input}


def test_a_network_of_one_layer_is_quantised_all_the_same(tmp_path: Path) -> None:
    lone = Component(name="net", module=torch.nn.Linear(64, 10).eval(), inputs=(torch.randn(2, 64),))
    file = export(lone, "int8_static", request_in(tmp_path, [(torch.randn(2, 64),)]))
    assert file.operators["QuantizeLinear"] == 1
    assert file.operators["DequantizeLinear"] == 2


def test_files_are_shared_by_recipe_and_work(component: Component, tmp_path: Path) -> None:
    calls = [(images(2, 1),)]
    first = export(component, "int8_static", request_in(tmp_path, calls))
    plain = tmp_path / "exports" / "net-fp32-w" / "model.onnx"
    stamps = {path: path.stat().st_mtime_ns for path in (first.path, plain)}
    again = export(component, "int8_static", request_in(tmp_path, calls))
    assert again == first
    assert export(component, "fp32", request_in(tmp_path)).path == plain
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert export(component, "fp32", request_in(tmp_path, work="other")).path != plain
    left = sorted(path.name for path in (tmp_path / "exports").iterdir())
    assert left == ["net-fp32-other", "net-fp32-w", "net-int8_static-w-c"]  # no scratch


def test_bytes_of_elements_know_half_a_byte() -> None:
    kinds = [onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.INT4]
    assert [onnx_export.element_bytes(kind) for kind in kinds] == [4, 2, 1, 0.5]


def test_a_norm_beside_a_quantised_layer_reads_what_was_not_rounded(tmp_path: Path) -> None:
    """The quantiser lets every reader of `joined` read what it rounded for the shortcut. The files are those of the
    backends for this CPU: with weights of 8 bits the error without VNNI is 0.12, because the kernels saturate."""
    torch.manual_seed(0)
    component = Component(name="net", module=Skipping().eval(), inputs=(images(2),))
    request = request_in(tmp_path, [(images(2, 1),), (images(2, 2),)])
    signed = export(component, onnx_export.for_cpu("int8_static"), request)
    unsigned = export(component, _recipe("int8_static", "CPUExecutionProvider"), request)
    assert [readers_of_rounded_values(file) for file in (signed, unsigned)] == [{"Conv"}] * 2
    x = images(2, 2)
    with torch.no_grad():
        expected = component.module(x)
    compiled = openvino.Core().compile_model(str(signed.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for found in (torch.from_numpy(compiled([x.numpy()])[0]), run(unsigned, x)):
        assert float((found - expected).norm() / (expected - expected.mean()).norm()) < 0.05


def test_ranges_of_another_case_are_not_taken_for_this_ones(tmp_path: Path, component: Component) -> None:
    """Steps, scheduler and guidance decide what a network is asked; the network itself is the same file."""
    few = request_in(tmp_path, [(images(2, 1),)])
    many = replace(request_in(tmp_path, [(100.0 * images(2, 2),)]), calls="other")
    ranged = [export(component, "int8_static", request) for request in (few, many)]
    assert ranged[0].path.read_bytes() != ranged[1].path.read_bytes()
    assert export(component, "int8_static", few).path == ranged[0].path
    plain = [export(component, "fp32", request) for request in (few, many)]
    assert plain[0].path == plain[1].path


def test_what_a_case_asks_of_its_networks_names_its_calibrated_files() -> None:
    case = Case(model="digits_dit", weights="digits", scheduler="ddim", num_steps=3, guidance_scale=1.5, seed=0)
    same = [case.with_(backend="openvino"), case.with_(precision="int8_static")]
    assert {measure._calls_hash(other) for other in same} == {measure._calls_hash(case)}
    changes = ({"num_steps": 4}, {"scheduler": "euler"}, {"guidance_scale": 4.0}, {"seed": 1}, {"prompt": "a cat"})
    others = [measure._calls_hash(case.with_(**change)) for change in changes]
    assert len({measure._calls_hash(case), *others}) == len(changes) + 1
