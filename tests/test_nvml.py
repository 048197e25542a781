"""NVML through the real nvidia-ml-py, over a library of our own that plays what a GPU's driver says (nvml_stub.c)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from harness import contention
from harness.devices import SensorLost, nvml
from harness.probes.energy import energy
from harness.timing import Timer
from harness.types import Case, Protocol

GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(GCC is None, reason="no gcc to compile the stub of libnvidia-ml.so.1 with")

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST = 3, 4, 9, 15
INTEGERS = {
    "init": 0,
    "error": 0,
    "energy_error": 0,
    "instant_supported": 1,
    "is_mig": 0,
    "mig_mode": 0,
    "processes": 0,
}
COUNTERS = {"reasons": 0, "thermal_ns": 0, "power_ns": 0}
REALS = {"watts": 300.0, "period_s": 0.02, "clock_s": -1.0}


class Stub:
    """The library's variables as attributes: `stub.watts = 500.0`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.__dict__["library"] = library
        self.reset()

    def reset(self) -> None:
        for name, value in {**INTEGERS, **COUNTERS, **REALS}.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = ctypes.c_int if name in INTEGERS else ctypes.c_ulonglong if name in COUNTERS else ctypes.c_double
        kind.in_dll(self.library, f"stub_{name}").value = value

    def run_processes(self, *pids: int) -> None:
        (ctypes.c_uint * 8).in_dll(self.library, "stub_pids")[: len(pids)] = pids
        self.processes = len(pids)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_stub.c")
    command = [str(GCC), "-shared", "-fPIC", "-w", "-o", str(path), str(source)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture
def stub(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return Stub(library)


def gpu() -> nvml.Gpu:
    found = nvml.gpu("stub")
    assert isinstance(found, nvml.Gpu), found
    return found


def meter() -> nvml.NvmlEnergy:
    found = nvml.energy_meter(gpu())
    assert isinstance(found, nvml.NvmlEnergy), found
    return found


def test_identity_and_memory(stub: Stub) -> None:
    assert nvml.identity(gpu()) == {"uuid": "GPU-stub", "power_limit_w": 700.0, "mig": False, "driver": "595.10"}
    assert nvml.memory_used_bytes(gpu()) == 3 * 2**30
    assert not gpu().is_mig
    assert isinstance(nvml.gpu("GPU-stub"), nvml.Gpu)


def test_the_energy_counters_own_period_is_measured(stub: Stub) -> None:
    stub.period_s = 0.05
    assert meter().period_s == pytest.approx(0.05, rel=0.3)


def test_joules_are_counter_differences_from_the_opening_on(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s = 1000.0
    opened = meter()
    start = opened.joules()
    stub.clock_s = 1010.0
    assert opened.joules() - start == pytest.approx(3000.0)
    assert opened.watts() == 300.0


def test_a_counter_that_stands_still_has_no_period_and_gives_no_energy(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s = 5.0
    opened = meter()
    assert opened.period_s is None
    assert opened.joules() == 0


def test_power_is_the_instantaneous_one_where_there_is_one(stub: Stub) -> None:
    assert nvml.power_w(gpu()) == 300.0
    stub.instant_supported = 0
    assert nvml.power_w(gpu()) == 150.0
    found = gpu()
    stub.error = NOT_SUPPORTED
    assert nvml.power_w(found) is None


def test_what_is_not_supported_is_none_and_energy_a_reason(stub: Stub) -> None:
    found = gpu()
    stub.energy_error = NOT_SUPPORTED
    assert "Not Supported" in str(nvml.energy_meter(found))
    stub.error = NO_PERMISSION
    assert set(nvml.state(found, nvml.counters(found)).values()) == {None}
    assert set(nvml.identity(found).values()) == {None}
    assert "NVML" in str(nvml.memory_used_bytes(found))


def test_a_function_that_an_old_library_lacks_is_none(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu()
    monkeypatch.setattr(pynvml, "nvmlLib", SimpleNamespace())
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    assert set(nvml.state(found, {}).values()) == {None}
    assert "Function Not Found" in str(nvml.energy_meter(found))


def test_no_driver_is_a_reason(stub: Stub) -> None:
    stub.init = DRIVER_NOT_LOADED
    assert nvml.gpu("stub") == "NVML: Driver Not Loaded"


def test_a_gpu_that_nvml_does_not_know_is_a_reason(stub: Stub) -> None:
    assert nvml.gpu("another") == "NVML: Not Found"


def test_throttling_is_named_and_contends(stub: Stub) -> None:
    found = gpu()
    before = nvml.counters(found)
    stub.reasons, stub.thermal_ns, stub.power_ns = 0x04 | 0x40 | 0x800, 300_000_000, 2_000_000_000
    state = nvml.state(found, before)
    assert state["throttled_by"] == ["software power cap", "hardware thermal slow-down", "unknown bits 0x800"]
    assert state["thermal_throttled_s"] == pytest.approx(0.3)
    assert state["power_throttled_s"] == pytest.approx(2.0)
    block = {"elapsed_s": 10.0, "gpu": state}
    assert contention.contended(block) == "heat held the GPU's clocks down for 3% of the time"
    stub.thermal_ns = 0
    block["gpu"] = {**state, "thermal_throttled_s": 0.0}
    assert contention.contended(block) == "the GPU slowed down (hardware thermal)"


def test_power_capping_alone_is_no_contention(stub: Stub) -> None:
    found = gpu()
    before = nvml.counters(found)
    stub.reasons, stub.power_ns = 0x04, 9_000_000_000
    assert contention.contended({"elapsed_s": 10.0, "gpu": nvml.state(found, before)}) is None


def test_a_foreign_process_is_counted_and_contends(stub: Stub) -> None:
    found = gpu()
    stub.run_processes(os.getpid())
    assert nvml.state(found, {})["foreign_processes"] == 0
    stub.run_processes(os.getpid(), 4242)
    state = nvml.state(found, {})
    assert state["foreign_processes"] == 1
    assert contention.contended({"elapsed_s": 1.0, "gpu": state}) == "1 other process computed on the GPU"


def test_in_a_pid_namespace_one_unknown_process_is_ours(stub: Stub) -> None:
    stub.run_processes(70001)
    assert nvml.state(gpu(), {})["foreign_processes"] == 0
    stub.run_processes(70001, 70002)
    assert nvml.state(gpu(), {})["foreign_processes"] == 1


def test_a_mig_instance_has_no_energy_of_its_own(stub: Stub) -> None:
    stub.is_mig, stub.mig_mode = 1, 1
    found = gpu()
    assert found.is_mig
    assert "MIG instance" in str(nvml.energy_meter(found))
    assert nvml.identity(found) == {"uuid": "MIG-stub", "power_limit_w": 700.0, "mig": True, "driver": "595.10"}
    assert nvml.state(found, {})["sm_clock_mhz"] == 1980


def trial(device_meter: Any, step: Any = lambda: None) -> Any:
    return SimpleNamespace(
        device=SimpleNamespace(energy_meter=lambda: device_meter),
        timer=Timer(lambda: None),
        protocol=Protocol(energy_window_s=0.2),
        case=Case(model="m", batch_size=4),
        step=step,
    )


def test_the_window_is_stretched_over_the_counters_period_and_power_agrees(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    monkeypatch.setattr("harness.probes.energy.PERIODS", 25)
    stub.watts = 100.0
    opened = meter()
    found = energy(trial(opened))
    assert found.facts["energy_window_s"] >= 24 * 0.02
    assert found.facts["integrated_power_j"] == pytest.approx(100.0 * found.facts["energy_window_s"], rel=0.02)
    assert found.samples["mean_power_w"][0] == pytest.approx(100.0, rel=0.15)
    assert not found.warnings


def test_a_counter_and_a_power_reading_that_disagree_are_flagged(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    stub.instant_supported = 0  # the lagging mean says half
    found = energy(trial(meter()))
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("energy: the counter says")


def test_a_driver_that_is_lost_in_the_window_is_a_reason(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    opened = meter()

    def lose() -> None:
        stub.error = GPU_IS_LOST

    found = energy(trial(opened, lose))
    assert found.samples == {}
    assert found.missing["energy_per_image_j"] == "NVML total energy counter: NVML: GPU is lost"
    with pytest.raises(SensorLost):
        opened.joules()


def test_a_reloaded_driver_is_no_negative_energy(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s = 1000.0
    opened = meter()
    stub.clock_s = 1.0
    with pytest.raises(SensorLost, match="reloaded"):
        opened.joules()
