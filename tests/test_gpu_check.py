"""The GPU check as far as a machine without one allows: what it would run is sound, and how it judges what it sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import dying_checks
import pytest
import torch

from benches import gpu_check
from benches.gpu_check import Check, LeftOut, plain_vit, rows, sensor_process, sensors
from benches.gpu_check import __main__ as command
from harness import optimizations, suite
from harness.measure import Job, Outcome
from harness.registry import BACKENDS
from harness.trial import Findings
from harness.types import Case, Measurement
from harness.worker import Workers


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
    broken = "TensorRT cannot be imported: ImportError: libnvinfer.so.11"  # in the worker alone
    assert rows._row(Measurement(case=case, replicate=0, status="skipped", reason=broken), 1.0).result == "FAILED"


def test_a_missing_package_and_spent_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKENDS["eager"], "unavailable", lambda *_: None)
    case = Case(model="check_vit")
    assert rows._left_out(case, 0.0) is None
    for elapsed_s in (gpu_check.BUDGET_S - gpu_check.LEAST_S + 1, gpu_check.BUDGET_S + 1):
        assert "time" in str(rows._left_out(case, elapsed_s))
    monkeypatch.setattr(rows, "NEEDS", {"check_vit": ("no_such_package",)})
    assert "no_such_package is not installed" in str(rows._left_out(case, 0.0))


def test_no_row_outlasts_the_eight_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that begins with 30 s left has 30 s, and one that they do not suffice for says nothing of its backend."""
    asked: list[Job] = []

    def stopped(_self: Workers, job: Job, _report: object) -> Outcome:
        asked.append(job)
        late = Measurement(case=job.case, replicate=0, status="timeout", reason="no result")
        return Outcome(measurement=late)

    clock = iter([0.0, 0.0, 0.0, *[gpu_check.BUDGET_S - 30.0] * 3, *[gpu_check.BUDGET_S - 1.0] * 9])
    monkeypatch.setattr(rows, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Workers, "measure", stopped)
    monkeypatch.setattr(BACKENDS["eager"], "unavailable", lambda *_: None)
    cases = list(rows.cases())[:3]
    monkeypatch.setattr(rows, "cases", lambda: cases)
    found = list(rows.rows(0.0, lambda _check: None))
    assert [c.result for c in found] == ["FAILED", "left out", "left out"]
    assert [job.protocol.timeout_s for job in asked] == [gpu_check.ROW_TIMEOUT_S, 30.0]
    assert gpu_check.BUDGET_S + 15 <= 8 * 60  # ending a worker that hangs takes seconds


def test_energy_is_measured_in_few_rows_and_quality_in_none() -> None:
    with_energy = [case for case in rows.cases() if "energy" in rows._probes(case)]
    assert [case.precision for case in with_energy] == ["fp32", "bf16"]
    assert all({"latency", "fidelity", "memory"} <= set(rows._probes(case)) for case in rows.cases())
    assert not gpu_check.QUICK.quality


def test_without_nvml_its_own_checks_are_left_out_and_torchs_figures_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for check in (sensors.identity, sensors.state):
        with pytest.raises(LeftOut, match="nvidia-ml-py is not installed"):
            check()
    allocated = (0.0, float(sensors.GIB))
    missing = {"peak_driver_bytes": "nvidia-ml-py is not installed"}
    peaks = iter([({"peak_allocated_bytes": [bytes_]}, missing) for bytes_ in allocated])
    monkeypatch.setattr("harness.devices.cuda.Cuda.memory_peaks", lambda _self: next(peaks))
    monkeypatch.setattr("harness.devices.cuda.Cuda.reset_memory_peaks", lambda _self: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "empty", lambda *_a, **_k: None)
    assert "no driver memory: nvidia-ml-py is not installed" in sensors.memory()[0]


@pytest.mark.parametrize(("integrated_w", "sound"), [(100.0, True), (80.0, True), (0.1, False), (None, True)])
def test_a_counter_and_a_power_that_disagree_are_shown_and_a_wrong_unit_fails(
    integrated_w: float | None, sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "idle_w": 40.0,
        "energy_window_s": 2.0,
        "energy_counter_period_s": 0.02,
        "integrated_power_j": None if integrated_w is None else integrated_w * 2.0,
    }
    if integrated_w is None:
        facts["integrated_power_missing"] = "the device tells no power of its own"
    seen = Findings(samples={"mean_power_w": [100.0]}, facts=facts, warnings=("energy: the counter says",))
    monkeypatch.setattr("harness.probes.energy.energy", lambda _trial: seen)
    device = SimpleNamespace(energy_meter=lambda: object(), synchronize=lambda: None)
    monkeypatch.setattr(sensors, "_gemm", lambda: (device, lambda: None))
    found = sensor_process.single("energy", sensors.energy)
    assert found.result == ("ok" if sound else "FAILED")
    assert ("energy: the counter says" in found.detail) == sound


def test_whatever_a_check_raises_is_its_result() -> None:
    def missing() -> gpu_check.Found:
        raise LeftOut("no counter")

    def wrong() -> gpu_check.Found:
        gpu_check.expect(1 > 2, "1 is not above 2")
        raise AssertionError("not reached")

    def broken() -> gpu_check.Found:
        raise RuntimeError("driver lost")

    found = [sensor_process.single(name, check) for name, check in (("a", missing), ("b", wrong), ("c", broken))]
    assert [(c.result, c.detail) for c in found] == [
        ("left out", "no counter"),
        ("FAILED", "AssertionError: 1 is not above 2"),
        ("FAILED", "RuntimeError: driver lost"),
    ]
    assert command.verdict(found) == "FAILED: 0 ok, 2 failed, 1 left out"
    assert command.verdict([Check(what="x", result="ok", detail="")]) == "PASSED: 1 ok, 0 failed, 0 left out"


@pytest.mark.parametrize(
    ("measured", "code", "last"),
    [
        ([Check(what="x", result="ok", detail="1 ms")], 0, "PASSED: 1 ok, 0 failed, 0 left out"),
        ([Check(what="x", result="left out", detail="no torch")], 1, "FAILED: 0 ok, 1 failed, 1 left out"),
        (ImportError("cannot import name 'Job'"), 1, "FAILED: 0 ok, 1 failed, 0 left out"),
    ],
)
def test_a_check_that_measured_no_row_is_not_passed(
    measured: list[Check] | ImportError,
    code: int,
    last: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def played(_began: float, say: Callable[[Check], None]) -> Iterator[Check]:
        if isinstance(measured, ImportError):
            raise measured
        for check in measured:
            say(check)
            yield check

    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    monkeypatch.setattr(sensor_process, "CHECKS", ())
    monkeypatch.setattr(command, "rows", played)
    assert command.main([]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


class NoLibrary(Exception):
    """What nvidia-ml-py raises where the driver's library is not installed."""


def nvml_of(monkeypatch: pytest.MonkeyPatch, found: object, init: Exception | None = None) -> None:
    """A nvidia-ml-py whose `nvmlInit` may raise, and what is found of torch's GPU through it."""

    def begin() -> None:
        if init is not None:
            raise init

    library = SimpleNamespace(
        nvmlInit=begin,
        NVMLError_LibraryNotFound=NoLibrary,
        NVMLError=OSError,
        NVMLError_NotSupported=FileNotFoundError,
        nvmlDeviceGetTotalEnergyConsumption=lambda _handle: 1,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr("harness.devices.cuda.own_gpu", lambda: found)


@pytest.mark.parametrize("reason", ["NVML: Not Found", "NVML: Unknown Error", "NVML: GPU is lost"])
def test_a_gpu_that_torch_uses_and_nvml_does_not_know_is_no_part_left_out(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml_of(monkeypatch, reason)
    monkeypatch.setattr(sensors, "_gemm", lambda: (SimpleNamespace(energy_meter=lambda: reason), lambda: None))
    for check in (sensors.identity, sensors.state, sensors.energy):
        found = sensor_process.single("x", check)
        assert (found.result, found.detail) == ("FAILED", f"AssertionError: {reason}")
    nvml_of(monkeypatch, reason, init=NoLibrary())
    assert sensor_process.single("x", sensors.state).detail == "libnvidia-ml.so.1 is not installed"


def test_a_counter_is_left_out_where_the_gpu_has_none_and_fails_where_it_should_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml_of(monkeypatch, SimpleNamespace(is_mig=False, handle=1))
    monkeypatch.setattr(sensors, "_gemm", lambda: (SimpleNamespace(energy_meter=lambda: "no counter"), lambda: None))
    monkeypatch.setattr("harness.devices.nvml.mig_mode", lambda _gpu: None)
    assert sensor_process.single("energy", sensors.energy).result == "FAILED"
    monkeypatch.setattr("harness.devices.nvml.mig_mode", lambda _gpu: True)
    assert sensor_process.single("energy", sensors.energy).result == "left out"
    monkeypatch.setattr("harness.devices.nvml.mig_mode", lambda _gpu: None)

    def unsupported(_handle: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(sys.modules["pynvml"], "nvmlDeviceGetTotalEnergyConsumption", unsupported)
    assert sensor_process.single("energy", sensors.energy).result == "left out"


@pytest.mark.slow
def test_a_check_that_kills_its_process_or_hangs_has_failed_and_the_next_ones_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sensor_process, "CHECKS", tuple((name, None) for name in dying_checks.NAMES))
    monkeypatch.setattr(sensor_process, "LONGEST_S", 15.0)
    found = {check.what: (check.result, check.detail) for check in sensor_process.checked(dying_checks.send)}
    assert found == {
        "sound": ("ok", "seen"),
        "killed": ("FAILED", "its process ended with exit code 139 and no result"),
        "sound again": ("ok", "seen"),
        "hangs": ("FAILED", "no result after 15 s"),
        "last": ("ok", "seen"),
    }


def test_a_backend_that_cannot_say_whether_it_can_run_costs_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError("libcublas.so.13: cannot open shared object file")

    monkeypatch.setattr(BACKENDS["eager"], "unavailable", broken)
    found = rows._not_measured(Case(model="check_vit"), 0.0)
    assert found is not None
    assert (found.result, found.detail) == ("FAILED", "OSError: libcublas.so.13: cannot open shared object file")


def test_a_package_that_is_installed_and_cannot_be_imported_is_no_part_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    found = rows._not_measured(Case(model="check_vit", backend="tensorrt", precision="fp16"), 0.0)
    assert found is not None
    assert (found.result, found.detail) == (
        "FAILED",
        "TensorRT cannot be imported: ImportError: libnvinfer.so.11 is missing",
    )


END_BESIDE_A_CHILD = """
import multiprocessing, sys, time
from benches.gpu_check.__main__ import end

def run():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    print(child.pid)
    {ending}

if __name__ == "__main__":
    end(run)
"""


@pytest.mark.parametrize(
    ("ending", "code"), [("return 2", 2), ("raise OSError('no space left')", 1), ("raise KeyboardInterrupt", 130)]
)
def test_the_end_does_not_wait_for_a_process_that_hangs(tmp_path: Path, ending: str, code: int) -> None:
    (script := tmp_path / "script.py").write_text(END_BESIDE_A_CHILD.format(ending=ending))
    with (tmp_path / "said").open("w") as said:  # no pipe: the child would keep it open
        ended = subprocess.run([sys.executable, script], stdout=said, timeout=50, check=False)
    os.kill(int((tmp_path / "said").read_text()), signal.SIGKILL)  # it was alive when the program had ended
    assert ended.returncode == code
