"""How much of a network is quantised, as a row says it, and what a share that is small or none means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from build_request_fixture import build_request
from torch import nn

from harness import frames
from harness.backends.onnx import export as onnx_export
from harness.numerics import precision, share
from harness.numerics.calibration import Recorded
from harness.numerics.share import Share
from harness.types import Component, Run

RunSuite = Callable[..., Run]
pytestmark = pytest.mark.usefixtures("one_thread")


class Mixed(nn.Module):
    """A convolution of 96 elements, a position table of 32, and linear layers of 320 and 100."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 2, 2)
        self.table = nn.Parameter(torch.randn(1, 32))
        self.first, self.second = nn.Linear(32, 10), nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.convolution(x).flatten(1) + self.table
        return self.second(self.first(found).relu())


def mixed() -> tuple[Mixed, torch.Tensor]:
    torch.manual_seed(0)
    return Mixed().eval().requires_grad_(False), torch.randn(4, 3, 4, 4)


@pytest.mark.parametrize("wanted", ["int8_dynamic", "int8_dynamic_classic", "int8_weight_only"])
def test_every_matrix_counts_and_no_vector_does(wanted: str) -> None:
    found = share.of_module(precision.cast(mixed()[0], wanted))
    assert found == Share(quantised=420, elements=96 + 32 + 420, largest_left=("convolution.weight", 96))


def test_a_shared_matrix_counts_once_and_an_int8_buffer_is_no_weight() -> None:
    tied = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    tied[1].weight = tied[0].weight
    tied.register_buffer("mask", torch.ones(9, 9, dtype=torch.int8))
    assert share.of_module(tied) == Share(quantised=0, elements=64, largest_left=("0.weight", 64))


@pytest.mark.parametrize(
    ("recipe", "quantised"),
    [("fp32", 0), ("int8_dynamic", 420), ("int8_weight_only", 320 + 10 * 32), ("int8_static", 420)],
)
def test_the_share_of_an_onnx_file(recipe: str, quantised: int, tmp_path: Path) -> None:
    """MatMulNBits fills 10 rows up to a block of 32. The convolution reads the input, and stays as it is."""
    module, x = mixed()
    request = build_request(
        tmp_path, calibration=lambda: Recorded(calls={"net": [(x,)]}, source="the batch"), precision=recipe
    )
    file = onnx_export.exported([Component(name="net", module=module, inputs=(x,))], request, recipe)[0]
    assert file.share.quantised == quantised
    assert file.share.elements - quantised == 96 + 32 + (420 if recipe == "fp32" else 0)
    assert (onnx_export.shares([file], recipe) == {}) == (recipe == "fp32")


def test_a_matrix_that_two_products_share_is_transposed_once(tmp_path: Path) -> None:
    """ONNX Runtime's quantiser transposed the weight of a Gemm as often as a Gemm reads it. The file is the backend's
    for this CPU: with weights of 8 bits the kernels of an x86 CPU without VNNI saturate."""
    import onnxruntime

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x).relu())

    torch.manual_seed(0)
    module, x = Twice().eval().requires_grad_(False), torch.randn(8, 16)
    component = Component(name="net", module=module, inputs=(x,))
    request = build_request(tmp_path, precision="int8_dynamic")
    file = onnx_export.exported([component], request, onnx_export.for_cpu("int8_dynamic"))[0]
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    output = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    assert float(nn.functional.cosine_similarity(output, module(x)).min()) > 0.999
    assert (file.share.quantised, file.operators["MatMulInteger"]) == (256, 2)


HALF = Share(quantised=50, elements=100, largest_left=("w", 50))
LITTLE = Share(quantised=10, elements=100, largest_left=("w", 80))
NONE = Share(quantised=0, elements=100, largest_left=("w", 100))


@pytest.mark.parametrize(
    ("shares", "warning"),
    [
        ({}, None),
        ({"a": HALF}, None),
        (
            {"a": HALF, "b": LITTLE},
            "partly quantised: 30 % of the elements of the weight matrices are quantised "
            "(the largest matrix that is not quantised is b.w with 40 % of the elements)",
        ),
    ],
)
def test_less_than_half_is_warned_of(shares: dict[str, Share], warning: str | None) -> None:
    found = share.warnings(shares)
    assert [(told.kind, told.name, str(told)) for told in found] == (
        [("partly_quantised", "partly quantised", warning)] if warning else []
    )


def test_none_at_all_is_no_row() -> None:
    reason = "int8_dynamic was requested, but none of the 100 elements of the weight matrices is quantised"
    assert str(share.fault({"a": NONE}, "int8_dynamic")) == reason
    assert share.fault({"a": NONE, "b": LITTLE}, "int8_dynamic") is None
    assert share.fault({}, "fp32") is None
    assert share.facts({}) == {}
    assert share.facts({"a": NONE, "b": HALF}) == {
        "quantised_share": 0.25,
        "quantised_weights": {"a": {"quantised": 0, "elements": 100}, "b": {"quantised": 50, "elements": 100}},
    }


def test_rows_say_how_much_of_them_is_quantised(run_suite: RunSuite) -> None:
    """The planted attention is nn.MultiheadAttention; the planted convolution carries an int8 buffer."""
    run = run_suite(
        " - {model: planted_attention, precision: [fp32, int8_dynamic, int8_dynamic_classic, int8_weight_only]}\n"
        " - {model: planted_attention, precision: int8_static}\n"
        " - {model: planted_attention, backend: onnxruntime, precision: int8_dynamic}\n"
        " - {model: planted_convolution, precision: [int8_dynamic, int8_static]}\n"
    )
    found: Any = frames.cases_frame(run)
    rows = {(r.model, r.backend, r.precision): r for r in found.itertuples()}
    quantised = 2 * 32 * 64 + 32 * 10
    elements = quantised + 4 * 32 * 32 + 3 * 4 * 4 * 32
    words = "3 of 4; 1 left: nn.MultiheadAttention reads its weight without calling the layer"
    assert len(run.measurements) == 8
    for m in run.measurements[1:5]:
        row = rows["planted_attention", "eager", m.case.precision]
        assert (row.status, row.quantised_share) == ("ok", quantised / elements), row.reason
        assert m.facts["quantised_layers"] == {"classifier": words}
        told = dict(zip(row.warnings, row.warning_texts, strict=True))["partly quantised"]
        assert told.startswith("partly quantised: 43.9 % of the elements")
    assert run.measurements[0].facts.get("quantised_share") is None
    assert rows["planted_attention", "onnxruntime", "int8_dynamic"].quantised_share > 0.7
    for wanted in ("int8_dynamic", "int8_static"):
        row = rows["planted_convolution", "eager", wanted]
        assert (row.status, row.quantised_share) == ("invalid", 0.0)
        assert "none of the 30 elements of the weight matrices is quantised" in row.reason
