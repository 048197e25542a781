"""What makes an output a wrong answer: its direction, its scale, or one item among many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trial_fixture import trial_of

from harness.measuring import reference, reference_process
from harness.probes import fidelity
from harness.reasons import Reason
from harness.registry import PRECISIONS
from harness.types import Case, Run

RunSuite = Callable[..., Run]
KINDS = ("logits", "images")


def outputs(kind: str) -> torch.Tensor:
    """Ten items."""
    made = torch.rand((10, 3, 8, 8) if kind == "images" else (10, 50), generator=torch.Generator().manual_seed(0))
    return made if kind == "images" else made * 8 - 4


def verdict(own: torch.Tensor, wanted: torch.Tensor, kind: str, precision: str) -> Reason | None:
    samples, _ = fidelity.closeness(own, wanted, kind)
    return fidelity.fault(samples, fidelity.tolerance(precision, kind))


def contrast(images: torch.Tensor, share: float) -> torch.Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * share + mean


@pytest.mark.parametrize(
    ("kind", "right", "close", "wrong"),
    [
        ("logits", [[0.5], [-0.2], [1.5]], [[0.501], [-0.201], [1.499]], [[0.5], [1.9], [1.5]]),  # one logit an item
        ("logits", [[0.5]], [[0.501]], [[-0.5]]),
        ("logits", [[0, 0, 0], [1, 0, 2]], [[0, 0, 0], [1, 0, 2]], [[0, 0, 0], [0, 1, 2]]),  # a map without an object
        ("logits", [[3, 3, 3]], [[3, 3, 3]], [[3, 5, 9]]),
        ("features", [[0.5, 1.5, 0.1]], [[0.501, 1.499, 0.1]], [[1.5, 0.5, 0.1]]),
    ],
)
def test_outputs_without_a_spread_are_told_apart_too(kind: str, right: Any, close: Any, wrong: Any) -> None:
    assert verdict(torch.tensor(close), torch.tensor(right), kind, "fp32") is None
    assert verdict(torch.tensor(wrong), torch.tensor(right), kind, "int8_static") is not None


def test_agreement_is_of_items_and_of_the_positions_of_a_map() -> None:
    wanted = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 0.0]], [[0.0, 1.0]]]])  # (2, 2 classes, 1, 2)
    own = wanted.clone()
    own[1, :, 0, 1] = torch.tensor([1.0, 0.0])
    assert fidelity.agreement(own, wanted) == [1.0, 0.5]
    assert fidelity.agreement(torch.eye(2), torch.eye(2).flip(0)) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (torch.rand(2, 1), "logits"),
        (torch.rand(2), "logits"),
        (torch.zeros(2, 5, dtype=torch.int64), "logits"),
        (torch.rand(2, 5), "features"),
        (torch.rand(2, 3, 4, 4), "images"),
    ],
)
def test_an_output_that_names_no_class_has_a_reason_and_no_agreement(output: torch.Tensor, kind: str) -> None:
    assert fidelity.without_class(output, kind)
    assert fidelity.without_class(torch.rand(2, 5), "logits") is None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_of_another_scale_is_wrong_in_any_precision(kind: str, precision: str) -> None:
    right = outputs(kind)
    assert verdict(right * 1.001, right, kind, precision) is None
    for own in [contrast(right, 0.3), contrast(right, 2.0)] if kind == "images" else [right * 5, right * 0.3]:
        samples, _ = fidelity.closeness(own, right, kind)
        assert min(samples["cosine_similarity"]) > 0.9999  # a cosine is blind to it
        assert str(verdict(own, right, kind, precision)).startswith("the relative error of ")
    assert verdict(right * 5, right, kind, precision) is not None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_wrong_item_of_ten_is_wrong_in_any_precision(kind: str, precision: str) -> None:
    right = outputs(kind)
    for garbage in (right[5], right[4].flip(-1), torch.zeros_like(right[4])):
        own = right.clone()
        own[4] = garbage
        reason = verdict(own, right, kind, precision)
        assert reason is not None
        assert reason.kind in {"cosine_below", "error_above", "item_error_above"}
        assert reason.kind != "item_error_above" or reason.data["item"] == 4
    forgiven = right.clone()
    forgiven[4] *= 1.001
    assert verdict(forgiven, right, kind, precision) is None


def test_what_is_not_a_number_is_not_within_a_tolerance() -> None:
    right = outputs("logits")
    assert verdict(right * float("nan"), right, "logits", "int8_static") is not None


def test_the_worst_item_is_named_and_the_tolerance_stands_in_the_facts(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_garbage_item, precision: [fp32, bf16], batch_size: 10}\n"
        " - {model: planted_scaled, precision: [fp32, bf16], batch_size: 10}\n"
        " - {model: planted_ok, precision: bf16, batch_size: 10}\n"
    )
    reference, garbage, also_reference, scaled, sound = run.measurements
    assert (reference.status, also_reference.status, sound.status) == ("ok", "ok", "ok")
    assert (garbage.status, scaled.status) == ("invalid", "invalid")
    assert str(garbage.reason).startswith("item 7 of 10 has a relative error of ")
    assert str(scaled.reason).startswith("the relative error of 4.")
    tolerance = {"cosine_floor": 0.99, "error_ceiling": 0.1}
    assert {name: sound.facts[name] for name in tolerance} == tolerance
    assert sound.facts["item_error_ceiling"] == pytest.approx(0.3)
    assert len(sound.samples["relative_error"]) == 10
    assert max(sound.samples["relative_error"]) < 0.1


NO_ROOM = [
    torch.OutOfMemoryError(),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", NO_ROOM)
def test_a_reference_that_the_gpu_has_no_room_for_is_computed_on_the_cpu_and_every_row_says_so(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timed model lies beside it; its latency, memory and energy were measured already."""
    asked: list[str] = []

    def computed(device: str, *_arguments: Any) -> tuple[torch.Tensor, str]:
        asked.append(device)
        raise error

    def apart(request: reference_process.Request, limit_s: float) -> reference_process.Result:
        asked.append("cpu")
        assert (request.case, request.plugins, limit_s) == (case, ("plugin",), 5.0)
        return reference_process.Result(output=torch.ones(1).numpy(), weights_hash="w")

    monkeypatch.setattr(reference, "computed_on", computed)
    monkeypatch.setattr(reference_process, "computed", apart)
    case = Case(model="m", precision="bf16")
    trial = trial_of(case, tmp_path, "cuda")
    assert reference.device_warnings(trial, "timed batch") == ()
    assert reference.output(trial, "timed batch", lambda: torch.zeros(1)) == torch.ones(1)
    assert asked == ["cuda", "cpu"]
    (warning,) = reference.device_warnings(trial, "timed batch")
    assert warning == Reason("reference_on_cpu", {"what": "timed batch"})
    other = trial_of(case.with_(precision="fp16"), tmp_path, "cuda")
    assert reference.output(other, "timed batch", lambda: torch.zeros(1)) == torch.ones(1)
    assert (len(asked), reference.device_warnings(other, "timed batch")) == (2, (warning,)), (
        "the row that finds it says so, too"
    )
    assert reference.device_warnings(trial, "quality set") == ()
    trial.device.torch_device, trial.device.is_gpu = "cpu", False
    with pytest.raises(type(error)):
        reference._compute(trial, "timed batch")


def test_another_failure_of_the_reference_on_the_gpu_is_not_taken_for_a_lack_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(reference, "computed_on", broken)
    monkeypatch.setattr(reference_process, "computed", lambda *_: pytest.fail("it is not memory"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        reference._compute(trial_of(Case(model="m"), tmp_path, "cuda"), "timed batch")
