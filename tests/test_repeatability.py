"""A network that changes its input, its weights or its answer is not timed as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.measuring import process_settings
from harness.measuring.repeatability import Mismatch, guarded, private_batch, repeat_error, same_values, snapshot
from harness.numerics import precision
from harness.numerics.tolerance import repeat_ceiling
from harness.processes import measure
from harness.types import Case, Measurement, Protocol, Run

RunSuite = Callable[..., Run]


def one(run: Run, **axes: str) -> Measurement:
    (found,) = [m for m in run.measurements if all(getattr(m.case, a) == v for a, v in axes.items())]
    return found


def test_a_network_that_writes_into_its_input_is_invalid_and_the_backend_that_does_it_right_is_ok(
    run_suite: RunSuite,
) -> None:
    run = run_suite("  - {model: planted_writes_input, batch_size: 4, backend: [eager, onnxruntime, torch_compile]}")
    for backend in ("eager", "torch_compile"):
        broken = one(run, backend=backend)
        assert broken.status == "invalid"
        assert str(broken.reason).startswith("the network classifier writes to its input, so every later")
    right = one(run, backend="onnxruntime")
    assert (right.status, max(right.samples["relative_error"])) == ("ok", pytest.approx(0, abs=1e-5))


def test_calibrating_with_such_a_network_leaves_the_timed_batch_as_it_is(run_suite: RunSuite) -> None:
    run = run_suite("  - {model: planted_writes_input, batch_size: 4, backend: onnxruntime, precision: int8_static}")
    (found,) = run.measurements
    assert found.status == "ok", found.reason


def test_an_input_that_is_changed_after_the_first_call_is_found_at_the_end(run_suite: RunSuite) -> None:
    (found,) = run_suite("  - {model: planted_writes_input_later, batch_size: 4}").measurements
    assert found.status == "invalid"
    assert str(found.reason).startswith("the timed batch was changed while it was timed")


@pytest.mark.parametrize("model", ["planted_counts", "planted_drops_out"])
def test_a_network_that_keeps_a_state_or_draws_random_numbers_is_invalid(run_suite: RunSuite, model: str) -> None:
    (found,) = run_suite(f"  - {{model: {model}, batch_size: 4}}").measurements
    assert found.status == "invalid"
    assert "the network keeps state or draws random numbers" in str(found.reason)
    assert found.facts["repeat_error"] > 0.001


def test_last_digits_that_differ_are_a_warning(run_suite: RunSuite) -> None:
    (found,) = run_suite("  - {model: planted_jitters, batch_size: 4}").measurements
    assert found.status == "ok", found.reason
    assert 0 < found.facts["repeat_error"] < 1e-5
    assert any(w.kind == "not_repeatable" for w in found.warnings)


def test_a_network_that_changes_its_weights_is_invalid(run_suite: RunSuite) -> None:
    (found,) = run_suite("  - {model: planted_learns, batch_size: 4}").measurements
    assert (found.status, str(found.reason)) == (
        "invalid",
        "the weights of classifier changed while the row was measured",
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("planted_double_default", "torch's default dtype from float32 to float64"),
        ("planted_threads", "the number of threads from "),
        ("planted_medium_products", "torch's fp32 matmul precision from highest to medium"),
        ("planted_autocast", "torch's autocast on the CPU from off to on"),
    ],
)
def test_a_network_that_changes_the_whole_process_is_invalid(run_suite: RunSuite, model: str, words: str) -> None:
    (found,) = run_suite(f"  - {{model: {model}, batch_size: 4}}").measurements
    assert found.status == "invalid"
    assert f"the row changed a process-wide setting: {words}" in str(found.reason)


def test_what_a_row_changed_in_the_process_is_set_back() -> None:
    before = process_settings.read()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(before.threads + 1)
        torch.set_autocast_enabled("cpu", True)
    finally:
        process_settings.set_back(before)
    assert process_settings.read() == before
    assert process_settings.fault(before) is None


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        (lambda: torch.set_float32_matmul_precision("high"), "torch's fp32 matmul precision from highest to high"),
        (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "matmul precision from highest to high"),
        (
            lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
            "precision from highest to a mix",
        ),
        (lambda: setattr(torch.backends.cudnn, "allow_tf32", True), "TF32 in cuDNN from off to on"),
        (lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"), "TF32 in cuDNN from off to a mix"),
        (lambda: setattr(torch.backends, "fp32_precision", "tf32"), "torch.backends.fp32_precision from none to tf32"),
    ],
)
def test_tf32_that_a_build_switches_on_ends_the_row_before_anything_is_timed(
    switch: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchao below 0.18 made the first of these changes whenever it quantised."""
    from harness.backends.eager import Eager
    from harness.devices.cpu import Cpu

    real, before = Eager.build, process_settings.read()
    monkeypatch.setattr(Eager, "build", lambda self, *given: (real(self, *given), switch())[0])
    monkeypatch.setattr(measure, "_first_call", lambda *_: pytest.fail("a call under settings that are not the row's"))
    job = measure.Job(
        case=Case(model="planted_ok", image_size=8),
        replicate=0,
        protocol=Protocol(),
        device="cpu",
        folder=tmp_path,
        cache=tmp_path / "cache",
        threads=1,
    )
    with pytest.raises(Mismatch, match=f"the row changed a process-wide setting: .*{words}"):
        measure.measure(job, Cpu(), lambda _phase: None)
    assert process_settings.read() == before


@pytest.mark.parametrize("asked", ["medium", "high"])
def test_what_a_plugin_sets_for_the_whole_process_does_not_reach_an_fp32_row(asked: str) -> None:
    """Many scripts set it when they are imported; a row of fp32 would compute in another precision, or fail."""
    torch.set_float32_matmul_precision(asked)
    try:
        with precision.applied("fp32"):
            assert process_settings.read().matmul_precision == "highest"
        assert precision.matmul_precision() == asked
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_network_that_is_called_several_times_is_judged_by_the_inputs_as_they_were_given(run_suite: RunSuite) -> None:
    run = run_suite("  - {model: planted_calls_thrice, batch_size: 4, backend: [onnxruntime, eager]}")
    assert one(run, backend="onnxruntime").status == "ok", one(run, backend="onnxruntime").reason
    assert one(run, backend="eager").status == "invalid"


def test_a_batch_of_any_class_is_watched(run_suite: RunSuite) -> None:
    (found,) = run_suite("  - {model: planted_plain_batch, batch_size: 4}").measurements
    assert found.status == "invalid"
    assert str(found.reason).startswith("the timed batch was changed while it was timed")


def test_which_of_several_inputs_was_changed_is_said() -> None:
    def second(_a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return b.add_(1)

    with pytest.raises(Mismatch, match=r"^the network unet writes to input 2 of 2, so"):
        guarded("unet", second)(torch.zeros(2), torch.zeros(2))


def test_not_a_number_equals_itself_and_nothing_else() -> None:
    holes = torch.tensor([1.0, float("nan")])
    assert same_values(holes, holes.clone())
    assert not same_values(holes, torch.tensor([1.0, 2.0]))
    assert not same_values(holes, holes.double())


def test_tensors_anywhere_in_a_batch_are_watched() -> None:
    @dataclass
    class Pair:
        images: torch.Tensor
        more: dict[str, list[torch.Tensor]]

    batch = Pair(torch.ones(2), {"masks": [torch.ones(2)]})
    before, own = snapshot(batch), private_batch(batch)
    own.more["masks"][0].zero_()
    assert before.fault(batch) is None, "the copy is another batch"
    batch.more["masks"][0].zero_()
    assert str(before.fault(batch)).startswith("the timed batch was changed")


def test_the_error_between_outputs_is_that_of_the_worst_item_of_any_of_them() -> None:
    first = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    off = first.clone()
    off[1, 0] = 1.5
    assert repeat_error([first, first.clone()]) == 0.0
    assert repeat_error([first, first.clone(), off]) == pytest.approx(0.5 / 2**0.5)
    assert repeat_error([first, off[:1]]) == float("inf")


def test_a_narrow_precision_may_differ_by_more() -> None:
    assert repeat_ceiling("fp32", "logits") < repeat_ceiling("bf16", "logits") < repeat_ceiling("bf16", "images")
