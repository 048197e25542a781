"""Rewrites of three constructs in the exporter's graph that a checker or a provider does not accept.

A rewrite changes no value: it expresses the same function in another form. It reads the element types that the exporter
stored, so it runs before they are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def apply(graph: Any) -> None:
    """Rewrites `graph` (onnx.GraphProto) in place."""
    types = _element_types(graph)
    nodes = [new for node in graph.node for new in _rewritten(node, types, graph)]
    del graph.node[:]
    graph.node.extend(nodes)


def _element_types(graph: Any) -> dict[str, int]:
    """ONNX's number for the element type, by the name of the tensor."""
    described = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return described | {t.name: t.data_type for t in graph.initializer}


def _rewritten(node: Any, types: Mapping[str, int], graph: Any) -> list[Any]:
    """The nodes that replace `node`; constants that they need are added to the initialisers of `graph`."""
    if node.op_type == "Einsum":
        return _permuting_einsum(node)
    if node.op_type == "ArgMax":
        return _integer_argmax(node, types, graph)
    return _mixed_concat(node, types) if node.op_type == "Concat" else [node]


def _permuting_einsum(node: Any) -> list[Any]:
    """A Transpose in place of an Einsum that only permutes: ONNX has no Einsum in bf16, and DiT's patches need one."""
    from onnx import helper

    permutation = permutation_of(helper.get_node_attr_value(node, "equation"))
    if permutation is None:
        return [node]
    return [helper.make_node("Transpose", node.input, node.output, name=node.name, perm=permutation)]


def permutation_of(equation: str | bytes) -> list[int] | None:
    """For each letter of an Einsum's result, its position in the input: "ab->ba" gives [1, 0]. None if it does more
    than permute."""
    text = equation.decode() if isinstance(equation, bytes) else equation
    given, _, result = text.replace(" ", "").partition("->")
    if not result.isalpha() or len(set(given)) != len(given) or sorted(given) != sorted(result):
        return None
    return [given.index(letter) for letter in result]


def _integer_argmax(node: Any, types: Mapping[str, int], graph: Any) -> list[Any]:
    """TopK with k = 1 in place of an ArgMax of integers, by which SDXL's second text encoder finds the end of the
    prompt.

    ONNX Runtime's CUDA provider has ArgMax for floating point only. An integer ArgMax would run on the CPU, and the
    host would wait for the GPU in the middle of the network. The provider's TopK takes integers. By ONNX's definition
    both give the lowest index where several elements are the largest.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    integer = types.get(node.input[0]) in {TensorProto.INT32, TensorProto.INT64}
    if not integer or given.get("select_last_index", 0):
        return [node]
    axis, keeps, name = given.get("axis", 0), given.get("keepdims", 1), node.output[0]
    index = name if keeps else f"{name}_kept"
    graph.initializer.append(numpy_helper.from_array(np.array([1]), f"{name}_k"))
    top = helper.make_node("TopK", [node.input[0], f"{name}_k"], [f"{name}_max", index], name=f"{name}_top", axis=axis)
    if keeps:
        return [top]
    graph.initializer.append(numpy_helper.from_array(np.array([axis]), f"{name}_axis"))
    return [top, helper.make_node("Squeeze", [index, f"{name}_axis"], [name], name=f"{name}_squeeze")]


def _mixed_concat(node: Any, types: Mapping[str, int]) -> list[Any]:
    """Casts before a Concat of several types: torch.cat promotes them, but ONNX's Concat takes one type only.

    SDXL's U-Net in half precision concatenates the pooled text with an embedding of sizes that is always fp32.
    """
    from onnx import helper

    wanted = types.get(node.output[0])
    other = [name for name in dict.fromkeys(node.input) if wanted and types.get(name, wanted) != wanted]
    casts = {name: f"{node.output[0]}_{name}" for name in other}
    joined = helper.make_node("Concat", [casts.get(n, n) for n in node.input], node.output, name=node.name)
    joined.attribute.extend(node.attribute)
    return [*(helper.make_node("Cast", [name], [cast], name=cast, to=wanted) for name, cast in casts.items()), joined]
