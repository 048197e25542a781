"""The GPU check as far as a machine without one allows: what it would run is sound, and how it judges what it sees."""

from __future__ import annotations

import pytest
import torch

from benches import gpu_check
from benches.gpu_check import Check, LeftOut, plain_vit, rows
from benches.gpu_check import __main__ as command
from harness import optimizations, suite
from harness.registry import BACKENDS
from harness.types import Case, Measurement


def test_without_a_gpu_it_says_so_and_passes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: "no driver")
    assert command.main([]) == 2
    assert capsys.readouterr().out == "no GPU to check: no driver\n"


def test_every_case_is_one_that_a_suite_could_ask_for() -> None:
    asked = list(rows.cases())
    assert [reason for case in asked if (reason := suite.check(case))] == []
    assert len({case.id for case in asked}) == len(asked)
    gpu_only = {"cuda_graphs", "tensorrt", "onnxruntime_tensorrt", "torch_compile_reduce_overhead"}
    assert gpu_only <= {case.backend for case in asked} <= set(BACKENDS)
    assert [reason for case in asked if (reason := optimizations.unavailable(case, "cuda"))] == []


def test_its_own_model_needs_no_model_library() -> None:
    workload = plain_vit.check_vit(Case(model="check_vit", batch_size=2, image_size=224))
    forwards = {c.name: c.module for c in workload.components}
    with torch.no_grad():
        output = workload.iterate(forwards, workload.batch)
    assert tuple(output.shape) == workload.output_shape == (2, 1000)
    assert bool(torch.isfinite(output).all())
    assert 20e6 < workload.identity["parameters"]["classifier"] < 24e6  # ViT-S


def test_rows_are_ok_failed_or_left_out_with_their_words() -> None:
    case = Case(model="check_vit")
    samples = {"latency_s": [0.002, 0.004, 0.003], "cosine_similarity": [0.9991], "device_time_s": [0.0029]}
    sound = rows._row(Measurement(case=case, replicate=0, status="ok", samples=samples, warnings=("w",)), 1.0)
    assert (sound.result, sound.detail) == ("ok", "3.00 ms, 2.90 ms by events, cosine 0.9991, w")
    wrong = rows._row(Measurement(case=case, replicate=0, status="invalid", reason="cosine 0.1"), 1.0)
    assert (wrong.result, wrong.detail) == ("FAILED", "invalid: cosine 0.1")
    without = rows._row(Measurement(case=case, replicate=0, status="skipped", reason="no fp8"), 1.0)
    assert (without.result, without.detail) == ("left out", "no fp8")


def test_a_missing_package_and_spent_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKENDS["eager"], "unavailable", lambda *_: None)
    case = Case(model="check_vit")
    assert rows._left_out(case, 0.0) is None
    assert "time" in str(rows._left_out(case, gpu_check.BUDGET_S + 1))
    monkeypatch.setattr(rows, "NEEDS", {"check_vit": ("no_such_package",)})
    assert "no_such_package is not installed" in str(rows._left_out(case, 0.0))


def test_whatever_a_check_raises_is_its_result() -> None:
    def missing() -> gpu_check.Found:
        raise LeftOut("no counter")

    def wrong() -> gpu_check.Found:
        gpu_check.expect(1 > 2, "1 is not above 2")
        raise AssertionError("not reached")

    def broken() -> gpu_check.Found:
        raise RuntimeError("driver lost")

    found = [command.single(name, check) for name, check in (("a", missing), ("b", wrong), ("c", broken))]
    assert [(c.result, c.detail) for c in found] == [
        ("left out", "no counter"),
        ("FAILED", "AssertionError: 1 is not above 2"),
        ("FAILED", "RuntimeError: driver lost"),
    ]
    assert command.verdict(found) == "FAILED: 0 ok, 2 failed, 1 left out"
    assert command.verdict([Check(what="x", result="ok", detail="")]) == "PASSED: 1 ok, 0 failed, 0 left out"
