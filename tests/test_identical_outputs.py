"""Rows that ask for different work and have one output, bit for bit."""

from __future__ import annotations

from typing import Any

import baseline_fixture
import pytest

from harness.frames import cases_frame
from harness.identical_outputs import identical_outputs
from harness.types import Case, Measurement, Run

BASE = Case(model="sd15", scheduler="ddim", num_steps=4, guidance_scale=4.0, prompt="a cat", image_size=64)


def row(output: str = "same", work: str = "w", weights_hash: str = "h", status: Any = "ok", **axes: Any) -> Measurement:
    facts = {"output_hash": output, "work_hash": work, "weights_hash": weights_hash}
    reason = None if status == "ok" else "why"
    return Measurement(case=BASE.with_(**axes), replicate=0, status=status, reason=reason, facts=facts)


def run_of(*measurements: Measurement) -> Run:
    return baseline_fixture.run_of(list(measurements))


@pytest.mark.parametrize(
    ("axis", "value"),
    [("scheduler", "dpmpp_2m"), ("num_steps", 5), ("guidance_scale", 1.0), ("prompt", "a dog")],
)
def test_another_thing_asked_for_and_one_output_is_a_warning_of_both_rows(axis: str, value: Any) -> None:
    first, second = row(), row(**{axis: value})
    found = identical_outputs(run_of(first, second))
    assert {found[m.case.id].axes for m in (first, second)} == {(axis,)}
    assert found[first.case.id].other == second.case
    frame = cases_frame(run_of(first, second))
    assert list(frame["warnings"]) == [["same output"]] * 2
    assert all(f"the difference in {axis} had no effect" in text for (text,) in frame["warning_texts"])
    assert identical_outputs(run_of(first, row(output="other", **{axis: value}))) == {}


@pytest.mark.parametrize(
    "axes", [{"backend": "onnxruntime"}, {"precision": "bf16"}, {"optimizations": "channels_last"}, {"model": "sd21"}]
)
def test_backends_precisions_optimizations_and_models_are_not_compared(axes: dict[str, Any]) -> None:
    assert identical_outputs(run_of(row(), row(**axes))) == {}
    assert len(identical_outputs(run_of(row(), row(**axes), row(scheduler="euler")))) == 2


def test_a_seed_and_weights_count_where_the_rows_say_that_the_work_is_another() -> None:
    assert identical_outputs(run_of(row(), row(seed=1))) == {}
    assert identical_outputs(run_of(row(), row(weights="/copy/of/the/same"))) == {}
    assert len(identical_outputs(run_of(row(), row(seed=1, work="w2")))) == 2
    assert len(identical_outputs(run_of(row(), row(weights="/others", weights_hash="h2", work="w2")))) == 2


def test_rows_that_did_not_end_well_are_not_compared() -> None:
    assert identical_outputs(run_of(row(), row(scheduler="euler", status="invalid"))) == {}


def test_many_rows_name_one_and_count_the_others() -> None:
    names = ("ddim", "euler", "heun", "lms")
    found = identical_outputs(run_of(*(row(scheduler=name) for name in names)))
    assert len(found) == 4
    assert {f.more for f in found.values()} == {2}
    assert str(found[BASE.id].warning) == (
        "same output: the output is bit-identical to that of the row with scheduler euler and of 2 more, so the "
        "difference in scheduler had no effect"
    )


def test_what_a_user_writes_cannot_split_a_warning() -> None:
    rows = row(prompt="a; b"), row(prompt="c; d")
    assert [len(texts) for texts in cases_frame(run_of(*rows))["warning_texts"]] == [1, 1]
