"""Every network of every digits model in half precision, and in int8 and fp8 over it: exported, checked, and run once
for its answer: fp16 by ONNX Runtime, bf16 with int8 and fp8 by ONNX's own evaluator, which computes in these types."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from short_networks_fixture import networks, request_in

from harness.backends.onnx import export as onnx_export
from harness.backends.onnx import rewrites as onnx_rewrites
from harness.backends.onnx import static as onnx_static
from harness.numerics.tolerance import relative_errors, tolerance
from harness.types import Component

pytestmark = pytest.mark.usefixtures("one_thread")
INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
SINUSOID = 128  # elements: the frequencies of a timestep's sinusoid, which torch computes in fp32
KINDS = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["digits_vit", "digits_dit", "digits_sd"])
def test_every_network_can_be_had_in_half_precision(model: str, kept_exports: Path) -> None:
    components = networks(model)
    references = {c.name: answer(c) for c in components}
    for precision, kind in KINDS.items():
        casts = [replace(c, module=copy.deepcopy(c.module)) for c in components]
        files = onnx_export.exported(casts, request_in(kept_exports / model, precision), precision)
        assert [file.component for file in files] == [c.name for c in components]
        for file in files:
            graph = onnx.load(file.path).graph  # checked, with full shape inference, by the export
            assert not [n for n in graph.node if n.op_type == "Einsum"], file.component
            assert kind in {t.data_type for t in graph.initializer}
            if precision == "fp16":
                component = next(c for c in components if c.name == file.component)
                assert cosine(run(file.path, component), references[component.name]) > 0.999, file.component


OVER = {
    "int8_static_fp16": (onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16),
    "int8_static_bf16": (onnx.TensorProto.INT8, onnx.TensorProto.BFLOAT16),
    "fp8_e4m3": (onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.BFLOAT16),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["digits_vit", "digits_dit", "digits_sd"])
def test_every_network_can_be_had_in_int8_and_fp8_over_half_precision(model: str, kept_exports: Path) -> None:
    components = networks(model)
    for precision, (narrow, base) in OVER.items():
        request = request_in(kept_exports / model, precision, {c.name: [c.inputs] for c in components})
        files = onnx_export.exported(components, request, precision)
        for file, component in zip(files, components, strict=True):
            held = Counter(t.data_type for t in onnx.load(file.path).graph.initializer)
            assert held.keys() - {base, narrow} <= {*INTEGERS, onnx.TensorProto.FLOAT}
            assert held[narrow] >= 2 * file.integer_layers > 0, file.component  # a VAE, too, has an attention
            assert {kind for kinds in of_layers(file.path) for kind in kinds} == {base}, file.component
            assert largest_in_fp32(file.path) <= SINUSOID, file.component
            found = run(file.path, component) if base == onnx.TensorProto.FLOAT16 else evaluated(file.path, component)
            errors = relative_errors(found, answer(component))
            assert sum(errors) / len(errors) < tolerance(precision, "logits").error_ceiling, file.component
            assert cosine(found, answer(component)) > 0.99, file.component


def of_layers(path: Path) -> list[set[int]]:
    """The types that each convolution and matrix product reads and gives, by the inference of the checker."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    types |= {t.name: t.data_type for t in graph.initializer}
    layers = [node for node in graph.node if node.op_type in onnx_static.HEAVY]
    return [{types[name] for name in (*node.input, *node.output)} for node in layers]


def largest_in_fp32(path: Path) -> int:
    """Elements of the largest constant in fp32."""
    stored = onnx.load(path).graph.initializer
    return max((math.prod(t.dims) for t in stored if t.data_type == onnx.TensorProto.FLOAT), default=0)


def answer(component: Component) -> torch.Tensor:
    with torch.no_grad():
        return component.module(*component.inputs)


def run(path: Path, component: Component) -> torch.Tensor:
    """The answer of a file in fp16, by ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = feeds([i.name for i in session.get_inputs()], component, np.float16)
    return torch.from_numpy(session.run(None, given)[0]).float()


def evaluated(path: Path, component: Component) -> torch.Tensor:
    """The answer of a file in bf16, by ONNX's own evaluator."""
    model = onnx.load(path)
    given = feeds([i.name for i in model.graph.input], component, ml_dtypes.bfloat16)
    return torch.from_numpy(ReferenceEvaluator(model).run(None, given)[0].astype(np.float32))


def feeds(names: list[str], component: Component, dtype: Any) -> dict[str, Any]:
    return {
        name: x.numpy().astype(dtype if x.is_floating_point() else np.int64)
        for name, x in zip(names, component.inputs, strict=True)
    }


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).min())


@pytest.mark.parametrize(
    ("equation", "permutation"),
    [
        ("nhwpqc->nchpwq", [0, 5, 1, 3, 2, 4]),
        ("ij -> ji", [1, 0]),
        ("ij,jk->ik", None),
        ("ii->i", None),
        ("ij->i", None),
        ("...ij->...ji", None),
        ("ij", None),
    ],
)
def test_an_einsum_that_only_permutes_is_told_from_others(equation: str, permutation: list[int] | None) -> None:
    assert onnx_rewrites.permutation_of(equation) == permutation
    assert onnx_rewrites.permutation_of(equation.encode()) == permutation
