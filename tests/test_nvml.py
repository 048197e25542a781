"""NVML through the real nvidia-ml-py, over a library of our own that plays what a GPU's driver says (nvml_stub.c)."""

from __future__ import annotations

import builtins
import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from nvml_fixture import (
    DRIVER_NOT_LOADED,
    GCC,
    GPU_IS_LOST,
    NO_GCC,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Stub,
    gpu,
    installed,
)

from harness.devices import neighbours, nvml
from harness.measuring import contention
from harness.reasons import Reason

pytestmark = pytest.mark.skipif(GCC is None, reason=NO_GCC)


def test_identity_and_memory(stub: Stub) -> None:
    assert nvml.identity(gpu()) == {"uuid": "GPU-stub", "power_limit_w": 700.0, "mig": False, "driver": "595.10"}
    assert nvml.memory_used_bytes(gpu()) == 3 * 2**30
    assert not gpu().is_mig
    assert isinstance(nvml.gpu("GPU-stub"), nvml.Gpu)


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
    installed(SimpleNamespace(), monkeypatch)
    assert set(nvml.state(found, {}).values()) == {None}
    assert "Function Not Found" in str(nvml.energy_meter(found))


def test_no_driver_is_a_reason(stub: Stub) -> None:
    stub.init = DRIVER_NOT_LOADED
    found = nvml.gpu("stub")
    assert (found, str(found)) == (Reason("nvml_error", {"error": "Driver Not Loaded"}), "NVML: Driver Not Loaded")


def test_a_gpu_that_nvml_does_not_know_is_a_reason(stub: Stub) -> None:
    assert nvml.gpu("another") == Reason("nvml_error", {"error": "Not Found"})


def test_throttling_is_named_and_contends(stub: Stub) -> None:
    found = gpu()
    before = nvml.counters(found)
    stub.reasons, stub.thermal_ns, stub.power_ns = 0x04 | 0x40 | 0x800, 300_000_000, 2_000_000_000
    state = nvml.state(found, before)
    assert state["throttled_by"] == ["software power cap", "hardware thermal slow-down", "unknown bits 0x800"]
    assert state["thermal_throttled_s"] == pytest.approx(0.3)
    assert state["power_throttled_s"] == pytest.approx(2.0)
    block = {"elapsed_s": 10.0, "gpu": state}
    assert (
        str(contention.contended(block))
        == "contended: the GPU was thermally throttled for 3 % of the time during the measurement"
    )
    stub.thermal_ns = 0
    block["gpu"] = {**state, "thermal_throttled_s": 0.0}
    assert (
        str(contention.contended(block)) == "contended: the GPU was throttled (hardware thermal) during the measurement"
    )


def test_the_seconds_of_every_policy_are_counted(stub: Stub) -> None:
    found = gpu()
    before = nvml.counters(found)
    stub.power_ns, stub.thermal_ns, stub.policy_ns = 3_000_000_000, 2_000_000_000, 100_000_000
    state = nvml.state(found, before)
    counted = {name: state[name] for name in nvml.COUNTED}
    assert counted == {
        "power_throttled_s": pytest.approx(3.0),
        "thermal_throttled_s": pytest.approx(2.0),
        "sync_boost_throttled_s": pytest.approx(0.1),
        "board_limit_throttled_s": pytest.approx(0.2),
        "low_utilization_s": pytest.approx(0.3),
        "reliability_throttled_s": pytest.approx(0.4),
        "below_application_clocks_s": pytest.approx(0.5),
        "below_base_clocks_s": pytest.approx(0.6),
    }


def test_only_counters_whose_numbers_never_moved_are_read() -> None:
    """CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN is 251 or 269, depending on the versions of nvidia-ml-py and the driver."""
    assert {getattr(pynvml, name) for name in nvml.COUNTED.values()} == set(range(74, 82))


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
    assert contention.contended({"elapsed_s": 1.0, "gpu": state}) == Reason("contended_gpu_processes", {"count": 1})


def test_who_computed_and_what_held_the_clocks_down_is_what_was_seen_at_either_end(stub: Stub) -> None:
    """A neighbour that left before the end, and a slow-down that was over by then, are not forgotten."""
    found = gpu()
    stub.reasons = 0x40
    stub.run_processes(os.getpid(), 4242, 4243)
    before = nvml.counters(found)
    stub.reasons = 0x01
    stub.run_processes(os.getpid())
    state = nvml.state(found, before)
    assert state["throttle_reasons"] == 0x41
    assert state["foreign_processes"] == 2
    assert contention.contended({"elapsed_s": 1.0, "gpu": state}) == Reason("contended_gpu_processes", {"count": 2})
    assert nvml.state(found, nvml.counters(found))["foreign_processes"] == 0


def test_in_a_pid_namespace_one_unknown_process_is_ours(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "in_namespace", lambda: True)
    hidden = ([(0,), 0], [(0, 0), 1], [(0, 0, 0), 2], [(os.getpid(), 0), 1])  # a number of none in particular
    for pids, others in ([(70001,), 0], [(70001, 70002), 1], [(os.getpid(), 70002), 1], [(), None], *hidden):
        stub.run_processes(*pids)
        assert nvml.state(gpu(), {})["foreign_processes"] == others, pids


def test_on_the_host_a_process_that_is_not_ours_is_somebody_elses(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "in_namespace", lambda: False)
    stub.run_processes(70001)
    assert nvml.state(gpu(), {})["foreign_processes"] == 1
    stub.run_processes()
    assert nvml.state(gpu(), {})["foreign_processes"] == 0


@pytest.mark.parametrize(("link", "inside"), [("pid:[4026531836]", False), ("pid:[4026532597]", True), (None, False)])
def test_a_pid_namespace_is_known_by_its_number(
    link: str | None, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "PROC", tmp_path)
    if link is not None:
        (tmp_path / "self/ns").mkdir(parents=True)
        (tmp_path / "self/ns/pid").symlink_to(link)
    assert neighbours.in_namespace() == inside


def test_a_list_of_processes_that_grows_while_it_is_read_is_read_again(stub: Stub) -> None:
    stub.run_processes(os.getpid(), 4242)
    stub.growing = 2
    assert nvml.state(gpu(), {})["foreign_processes"] == 1
    stub.growing = 100
    assert nvml.state(gpu(), {})["foreign_processes"] is None


def test_what_is_not_available_is_no_number(stub: Stub) -> None:
    """NVML's "not available" has all bits set: 4,294,967 W, if it is believed."""
    found = gpu()
    stub.not_available = 1
    stub.run_processes(os.getpid())
    unknown = nvml.state(found, nvml.counters(found))
    assert unknown.pop("foreign_processes") == 0
    assert set(unknown.values()) == {None}
    assert nvml.identity(found)["power_limit_w"] is None
    assert "not available" in str(nvml.memory_used_bytes(found))
    assert "not available" in str(nvml.energy_meter(found))


def test_functions_that_were_renamed_are_found_by_their_old_names(
    stub: Stub, nvml_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.reasons = 0x20
    stub.run_processes(os.getpid(), 4242)
    names = (
        "nvmlInitWithFlags",
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses_v2",
    )
    installed(SimpleNamespace(**{name: getattr(nvml_library, name) for name in names}), monkeypatch)
    state = nvml.state(gpu(), {})
    assert (state["throttle_reasons"], state["foreign_processes"]) == (0x20, 1)


def test_without_nvidia_ml_py_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name == "pynvml":
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert nvml.gpu("stub") == Reason("nvml_not_installed")


def test_a_mig_instance_has_no_energy_of_its_own(stub: Stub) -> None:
    stub.is_mig, stub.mig_mode = 1, 1
    found = gpu()
    assert found.is_mig
    assert "MIG instance" in str(nvml.energy_meter(found))
    assert nvml.identity(found) == {"uuid": "MIG-stub", "power_limit_w": 700.0, "mig": True, "driver": "595.10"}
    assert nvml.state(found, {})["sm_clock_mhz"] == 1980


def test_a_whole_gpu_that_is_split_is_nobodys_energy(stub: Stub) -> None:
    """What torch names may be the GPU around the instance that it computes on."""
    found = gpu()
    stub.mig_mode = 1
    assert not found.is_mig
    assert str(nvml.energy_meter(found)).startswith("MIG is on")
    stub.run_processes(os.getpid(), 4242)
    assert nvml.power_w(found) is None
    assert nvml.identity(found)["mig"] is True
    assert str(nvml.memory_used_bytes(found)).startswith("MIG is on")
    assert nvml.state(found, {})["foreign_processes"] is None, "who computes in the other instances is no neighbour"


CALLED = (
    "nvmlInitWithFlags",
    "nvmlErrorString",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetUUID",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetMemoryInfo",
)
CODES = (NOT_SUPPORTED, NO_PERMISSION, 1, 2, 7, 10, DRIVER_NOT_LOADED, GPU_IS_LOST, 16, 24, 25, 999, 12345)


class Broken:
    """The stub, of which one function answers with an error, or is not there at all (None)."""

    def __init__(self, library: ctypes.CDLL, name: str, code: int | None) -> None:
        self._library, self._name, self._code = library, name, code

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._library, name)
        if self._code is None:
            raise AttributeError(name)
        return lambda *_arguments: self._code


@pytest.mark.parametrize("name", [name for name in CALLED if name != "nvmlErrorString"])
def test_whatever_one_function_answers_nothing_raises_and_the_rest_is_read(
    name: str, stub: Stub, nvml_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.0)
    stub.clock_s = 5.0
    stub.run_processes(os.getpid())
    found = gpu()
    sound = {**nvml.identity(found), **nvml.state(found, nvml.counters(found))}
    for code in (None, *CODES):
        installed(Broken(nvml_library, name, code), monkeypatch)
        again = nvml.gpu("stub")
        assert isinstance(again, nvml.Gpu) or again.kind in {"nvml_error", "nvml_error_number"}, code
        read = {**nvml.identity(found), **nvml.state(found, nvml.counters(found))}
        changed = {key: value for key, value in read.items() if value != sound[key]}
        assert set(changed.values()) <= {None, 150.0}, code  # 150 W: the other reading of the power
        # Whether a GPU is split must be known before its figures are taken for this process's own.
        unknown = name == "nvmlDeviceGetMigMode" and code not in {None, NOT_SUPPORTED, 13}
        # The second version of the call is read where need be.
        assert isinstance(nvml.memory_used_bytes(found), Reason if unknown else int)
        assert isinstance(nvml.energy_meter(found), Reason) == (
            name == "nvmlDeviceGetTotalEnergyConsumption" or unknown
        )


def test_a_temperature_below_zero_has_its_sign_by_either_name(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.celsius = -5
    assert nvml.state(gpu(), {})["temperature_c"] == -5
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTemperatureV")
    assert nvml.state(gpu(), {})["temperature_c"] == -5


def test_a_field_that_comes_back_untouched_is_no_zero(stub: Stub) -> None:
    """An older driver may say success and write nothing: 0 W, and never throttled, if it is believed."""
    stub.fields_known = 0
    assert nvml.power_w(gpu()) == 150.0  # the other call's
    counted = nvml.counters(gpu())
    assert (counted["power_throttled_s"], counted["thermal_throttled_s"]) == (None, None)


def test_what_only_a_newer_name_gives_is_read(
    stub: Stub, nvml_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gpu()
    names = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetMemoryInfo_v2")
    installed(SimpleNamespace(**{name: getattr(nvml_library, name) for name in names}), monkeypatch)
    assert nvml.state(found, {})["temperature_c"] == 61
    assert nvml.memory_used_bytes(found) == 3 * 2**30, "the driver's own share included, as by the first version"


def test_an_nvidia_ml_py_that_lacks_a_call_gives_none(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu()
    for name in ("NVML_FI_DEV_POWER_INSTANT", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetCurrentClocksEventReasons"):
        monkeypatch.delattr(pynvml, name)
    assert nvml.power_w(found) == 150.0
    state = nvml.state(found, {})
    assert (state["temperature_c"], state["throttle_reasons"]) == (61, 0)
