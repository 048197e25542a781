"""Rewrites of an exported graph: the new form gives the same numbers, and nodes that need no rewrite are unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from build_request_fixture import build_request
from onnx import TensorProto, helper

from harness.backends.onnx import export as onnx_export
from harness.backends.onnx import rewrites as onnx_rewrites
from harness.types import Component

TIES = np.array([[3, 9, 9, 1], [7, 7, 7, 7], [-5, -9, -2, -2]])  # the lowest index counts


def model(node: Any, kind: int, shape: list[int]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, [3, 4])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, shape)
    graph = helper.make_graph([node], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnx_export.OPSET)], ir_version=10)


def answer(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({"axis": 1, "keepdims": 0}, [3]),
        ({"axis": -1, "keepdims": 1}, [3, 1]),
        ({"axis": 0, "keepdims": 0}, [4]),
        ({}, [1, 4]),
    ],
)
def test_the_topk_of_an_integer_argmax_gives_its_index(kind: type, given: dict[str, int], shape: list[int]) -> None:
    x = TIES.astype(kind)
    made = model(helper.make_node("ArgMax", ["x"], ["y"], **given), helper.np_dtype_to_tensor_dtype(x.dtype), shape)
    wanted = answer(made, x)
    onnx_rewrites.apply(made.graph)
    onnx.checker.check_model(made, full_check=True)
    assert "ArgMax" not in {node.op_type for node in made.graph.node}
    np.testing.assert_array_equal(answer(made, x), wanted)


@pytest.mark.parametrize(("kind", "given"), [(TensorProto.FLOAT, {}), (TensorProto.INT32, {"select_last_index": 1})])
def test_other_argmaxes_are_left(kind: int, given: dict[str, int]) -> None:
    made = model(helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0, **given), kind, [3])
    before = made.SerializeToString()
    onnx_rewrites.apply(made.graph)
    assert made.SerializeToString() == before


class Promotes(torch.nn.Module):
    """As SDXL's U-Net concatenates text in its own precision with an embedding of sizes in fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, text: torch.Tensor, ticks: torch.Tensor) -> torch.Tensor:
        sizes = (ticks[:, None].to(torch.float32) * torch.arange(4)).cos()
        return self.linear(torch.concat([text, sizes], dim=-1).to(self.linear.weight.dtype))


@pytest.mark.parametrize(("recipe", "casts"), [("fp16", 1), ("bf16", 1), ("fp32", 0)])
def test_a_concat_of_two_types_is_exported_with_a_cast(recipe: str, casts: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = Promotes().eval(), (torch.randn(2, 4), torch.tensor([3, 5]))
    with torch.no_grad():
        wanted = module(*inputs)
    component = Component(name="net", module=module, inputs=inputs)
    (file,) = onnx_export.exported([component], build_request(tmp_path, precision=recipe), recipe)
    graph = onnx.load(file.path).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    ((first, second),) = [node.input for node in graph.node if node.op_type == "Concat" and len(node.input) == 2]
    assert [made_by.get(first), made_by.get(second)].count("Cast") == casts
    if recipe == "fp16":
        session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        (found,) = session.run(None, dict(zip(names, (inputs[0].half().numpy(), inputs[1].numpy()), strict=True)))
        torch.testing.assert_close(torch.from_numpy(found).float(), wanted, rtol=1e-2, atol=1e-2)
