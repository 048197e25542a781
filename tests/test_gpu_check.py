"""The checks of the device itself, as far as a machine without a GPU allows, and how the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dying_checks
import pytest
import torch

from benches import gpu_check
from benches.gpu_check import LeftOut, sensor_process, sensors
from harness.measuring.trial import Findings
from harness.reasons import Reason


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


@pytest.mark.parametrize(
    ("integrated_w", "sound"), [(100.0, True), (80.0, True), (65.0, True), (0.1, False), (250.0, False), (None, True)]
)
def test_a_counter_and_a_power_that_disagree_are_shown_and_a_wrong_unit_fails(
    integrated_w: float | None, sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "idle_w": 40.0,
        "energy_window_s": 2.0,
        "energy_counter_period_s": 0.02,
        "energy_counter_j": 200.0,
        "integrated_power_j": None if integrated_w is None else integrated_w * 2.0,
    }
    if integrated_w is None:
        facts["integrated_power_missing"] = "the device does not report its power"
    if integrated_w is None or 75.0 <= integrated_w <= 125.0:
        seen = Findings(samples={"mean_power_w": [100.0]}, facts=facts, warnings=("energy: the counter says",))
    else:  # what the probe does not believe it does not publish
        seen = Findings(missing={"mean_power_w": "energy: the counter says"}, facts=facts)
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


@pytest.mark.parametrize("error", ["Not Found", "Unknown Error", "GPU is lost"])
def test_a_gpu_that_torch_uses_and_nvml_does_not_know_is_no_part_left_out(
    error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = Reason("nvml_error", {"error": error})
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
    missing = Reason("mig_instance_has_no_counter")
    nvml_of(monkeypatch, SimpleNamespace(is_mig=False, handle=1))
    monkeypatch.setattr(sensors, "_gemm", lambda: (SimpleNamespace(energy_meter=lambda: missing), lambda: None))
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
