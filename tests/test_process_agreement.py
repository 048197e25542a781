"""The processes of one row that measured different things are not pooled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from suite_fixture import QUICK

from baselines.stored import store
from harness.measuring import process_agreement
from harness.reasons import Reason
from harness.types import Case, Measurement, Run

RunSuite = Callable[..., Run]
TWICE = QUICK.replace("replicates: 1", "replicates: 2, ratio_interval: null")
FACTS = {"weights_hash": "w", "output_hash": "o", "output_kind": "logits", "output_shape": [1, 10]}


def process(replicate: int = 0, status: Any = "ok", **facts: Any) -> Measurement:
    reason = None if status == "ok" else "planted"
    case = Case(model="m")
    return Measurement(case=case, replicate=replicate, status=status, reason=reason, facts={**FACTS, **facts})


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"weights_hash": "a" * 64}, r"had different weights \(weights_hash: w and aaaaaaaaaaaa\)"),
        ({"output_shape": [1, 9]}, r"had different output shapes \(output_shape: \[1, 10\] and \[1, 9\]\)"),
        ({"output_hash": "p", "first_process_error": 1e-4}, r"gave different outputs \(relative error 0.0001\)"),
    ],
)
def test_a_process_that_proves_something_else_is_invalid(facts: dict[str, Any], words: str) -> None:
    found = process_agreement.checked(process(), process(1, **facts), "cpu")
    assert found.status == "invalid"
    with pytest.raises(AssertionError, match=f"^the processes of this row {words}$"):
        raise AssertionError(found.reason)


@pytest.mark.parametrize("name", process_agreement.EQUAL_FACTS)
def test_every_fact_that_proves_the_work_is_held_against_the_first(name: str) -> None:
    found = process_agreement.checked(
        process(**{name: {"classifier": 1}}), process(1, **{name: {"classifier": 2}}), "cuda"
    )
    assert found.status == "invalid"
    assert f"{name}: classifier: 1 and 2" in str(found.reason)


def test_facts_that_one_process_alone_has_are_not_compared() -> None:
    assert process_agreement.checked(process(nodes={"a": 1}), process(1), "cpu").status == "ok"


def test_on_a_gpu_outputs_that_rounding_explains_are_a_warning_and_others_invalid() -> None:
    close = process_agreement.checked(process(), process(1, output_hash="p", first_process_error=1e-5), "cuda")
    assert (close.status, close.warnings) == ("ok", (Reason("outputs_differ", {"error": 1e-5}),))
    far = process_agreement.checked(process(), process(1, output_hash="p", first_process_error=0.2), "cuda")
    assert far.status == "invalid"
    unknown = process_agreement.checked(
        process(), process(1, output_hash="p", first_process_error=float("nan")), "cuda"
    )
    assert unknown.status == "invalid"


def test_an_output_that_was_not_compared_by_value_is_other_work_only_where_equality_is_asked_for() -> None:
    """The first output is gone when further processes are added to a finished run; `ab` never keeps one."""
    loose, strict = (
        process_agreement.checked(process(), process(1, output_hash="p"), "cpu", strict=s) for s in (False, True)
    )
    assert (loose.status, strict.status) == ("ok", "invalid")
    assert str(loose.warnings[0]) == "the processes of this row gave different outputs (not compared by value)"
    assert strict.reason == loose.warnings[0]


def test_a_measurement_of_an_older_version_is_compared_too() -> None:
    first, other = (
        replace(m, facts={"output_hash": m.facts["output_hash"]}) for m in (process(), process(1, output_hash="p"))
    )
    assert process_agreement.checked(first, other, "cuda").status == "ok"


def test_on_a_cpu_the_order_of_a_sum_is_a_warning() -> None:
    found = process_agreement.checked(process(), process(1, output_hash="p", first_process_error=1e-7), "cpu")
    assert found.status == "ok"
    assert str(found.warnings[0]) == "the processes of this row gave different outputs (relative error 1e-07)"


def test_a_row_that_does_not_repeat_itself_to_the_last_bit_need_not_between_processes() -> None:
    jitter = process(1, output_hash="p", first_process_error=1e-6, repeat_error=1e-6)
    assert process_agreement.checked(process(), jitter, "cpu").status == "ok"


def test_other_weights_are_named_also_where_the_output_is_invalid_already() -> None:
    found = process_agreement.checked(process(), process(1, "invalid", weights_hash="v", output_hash="p"), "cpu")
    assert str(found.reason).startswith("the processes of this row had different weights")
    other = process_agreement.checked(process(), process(1, "invalid", output_hash="p"), "cpu")
    assert str(other.reason) == "planted"
    failed = process_agreement.checked(process(), process(1, "failed", weights_hash="v"), "cpu")
    assert str(failed.reason) == "planted"


def test_the_lowest_process_that_is_ok_is_the_first() -> None:
    found = process_agreement.firsts([process(2), process(0, "failed"), process(1)])
    assert [m.replicate for m in found.values()] == [1]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("planted_of_process", "gave different outputs (relative error"),
        ("planted_weights_of_process", "had different weights"),
    ],
)
def test_a_row_whose_processes_differ_is_invalid_and_no_baseline(
    run_suite: RunSuite, tmp_path: Path, model: str, words: str
) -> None:
    run = run_suite(f"  - {{model: {model}, batch_size: 4}}", TWICE)
    assert [m.status for m in run.measurements] == ["ok", "invalid"]
    assert f"the processes of this row {words}" in str(run.measurements[1].reason)
    with pytest.raises(store.BaselineRefused, match="invalid"):
        store.save(run, "a new machine", tmp_path / "baselines")


def test_a_cache_of_no_value_is_no_difference(run_suite: RunSuite) -> None:
    run = run_suite("  - {model: planted_cache, batch_size: 4}", TWICE)
    assert [m.status for m in run.measurements] == ["ok", "ok"], [m.reason for m in run.measurements]


def test_processes_that_measured_the_same_stay_ok(run_suite: RunSuite) -> None:
    backends = "[eager, onnxruntime, openvino]"
    cases = f"  - {{model: planted_fresh, batch_size: 4, backend: {backends}, precision: [fp32, int8_static]}}"
    run = run_suite(cases, TWICE)
    assert {m.status for m in run.measurements} == {"ok"}, [m.reason for m in run.measurements]
    assert len(run.by_case) == 6
    assert all(len(processes) >= 2 for processes in run.by_case.values())
