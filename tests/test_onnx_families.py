"""Every network of every digits family in half precision and fp8: exported, checked, and in fp16 and fp8 run once for
its answer."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from build_request_fixture import build_request
from test_onnx_fp8 import as_it_stands

from harness import onnx_export, onnx_rewrites
from harness.backends import BuildRequest
from harness.calibration import Calls, Recorded
from harness.registry import MODELS
from harness.types import Case, Component

pytestmark = pytest.mark.usefixtures("one_thread")
BLOCKS = 2
KINDS = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


def networks(model: str) -> list[Component]:
    """The model's networks, transformers cut to BLOCKS blocks: they are all alike, and each takes seconds."""
    case = Case(model=model, weights="digits", batch_size=2, **MODELS[model].axes)
    found = list(MODELS[model].build(case).components)
    for component in found:
        for owner in list(component.module.modules()):
            for name in ("blocks", "transformer_blocks"):
                if isinstance(blocks := getattr(owner, name, None), torch.nn.ModuleList | torch.nn.Sequential):
                    setattr(owner, name, blocks[:BLOCKS])
    return found


def request_in(folder: Path, precision: str, calls: Calls | None = None) -> BuildRequest:
    changes = {"calibration": lambda: Recorded(calls=calls, source="its inputs")} if calls else {}
    return build_request(folder, precision=precision, exports=folder / "exports", **changes)


@pytest.mark.parametrize("model", ["digits_vit", "digits_dit", "digits_sd"])
def test_every_network_can_be_had_in_half_precision(model: str, kept_exports: Path) -> None:
    components = networks(model)
    references = {c.name: answer(c) for c in components}
    for precision, kind in KINDS.items():
        casts = [replace(c, module=copy.deepcopy(c.module)) for c in components]
        for file in onnx_export.exported(casts, request_in(kept_exports / model, precision), precision):
            graph = onnx.load(file.path).graph  # checked, with full shape inference, by the export
            assert not [n for n in graph.node if n.op_type == "Einsum"], file.component
            assert kind in {t.data_type for t in graph.initializer}
            if precision == "fp16":
                component = next(c for c in components if c.name == file.component)
                assert cosine(run(file.path, component), references[component.name]) > 0.999, file.component


@pytest.mark.parametrize("model", ["digits_vit", "digits_dit", "digits_sd"])
def test_every_network_can_be_had_in_fp8(model: str, kept_exports: Path) -> None:
    components = networks(model)
    request = request_in(kept_exports / model, "fp8_e4m3", {c.name: [c.inputs] for c in components})
    files = onnx_export.exported(components, request, "fp8_e4m3")
    for file, component in zip(files, components, strict=True):
        held = Counter(t.data_type for t in onnx.load(file.path).graph.initializer)
        assert held[onnx.TensorProto.INT8] == 0
        assert (held[onnx.TensorProto.FLOAT8E4M3FN] > 0) == (file.integer_layers > 0), file.component
        assert cosine(run(file.path, component, np.float32), answer(component)) > 0.99, file.component
    assert all(f.integer_layers for f in files)  # a VAE, too, has an attention


def answer(component: Component) -> torch.Tensor:
    with torch.no_grad():
        return component.module(*component.inputs)


def run(path: Path, component: Component, dtype: Any = np.float16) -> torch.Tensor:
    """The file's answer; in fp8 as it stands (`test_onnx_fp8.py`)."""
    session = onnxruntime.InferenceSession(str(path), as_it_stands(), providers=["CPUExecutionProvider"])
    feeds = {
        i.name: x.numpy().astype(dtype if x.is_floating_point() else np.int64)
        for i, x in zip(session.get_inputs(), component.inputs, strict=True)
    }
    return torch.from_numpy(session.run(None, feeds)[0]).float()


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
