"""Sensors over fake trees: RAPL with wrap-around and refusals, host counters, and the energy probe's arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import backends, devices
from harness.devices import cgroup, cpu
from harness.devices.cpu import Cpu
from harness.numerics import precision
from harness.numerics.optimizations import OPTIMIZATIONS
from harness.probes.energy import energy
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.timing import Timer
from harness.types import Case, Protocol


def zone(root: Path, name: str, energy_uj: int, wraps_at: int = 1000, label: str = "package-0") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (folder / "name").write_text(f"{label}\n")
    return folder


def test_rapl_adds_packages_ignores_subzones_and_survives_the_wrap(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 900), zone(tmp_path, "intel-rapl:1", 10)
    zone(tmp_path, "intel-rapl:0:0", 500, label="core")
    zone(tmp_path, "intel-rapl:2", 700, label="psys")
    meter = cpu.rapl_meter(tmp_path)
    assert isinstance(meter, cpu.Rapl)
    assert meter.joules() == 0
    (first / "energy_uj").write_text("100")  # 900 -> wrap at 1000 -> 100
    (second / "energy_uj").write_text("60")
    assert meter.joules() == pytest.approx((200 + 50) * 1e-6)


def test_rapl_says_why_it_cannot(tmp_path: Path) -> None:
    assert "no RAPL energy counter" in str(cpu.rapl_meter(tmp_path / "none"))
    zone(tmp_path, "intel-rapl:0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("not a number")
    assert "cannot be read" in str(cpu.rapl_meter(tmp_path))


def test_rapl_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", 1)

    def refuse(_zone: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cpu.Rapl, "_read", staticmethod(refuse))
    assert "no permission" in str(cpu.rapl_meter(tmp_path))


def test_unreadable_counters_are_none_not_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "PROC", tmp_path)
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    state = cpu.host_state(cpu.host_counters())
    assert {
        k: state[k] for k in ("pressure_cpu_us", "steal_s", "other_cpu_s", "throttled_periods", "cpu_mhz")
    } == dict.fromkeys(("pressure_cpu_us", "steal_s", "other_cpu_s", "throttled_periods", "cpu_mhz"))
    device = cpu.Cpu()
    device.reset_memory_peaks()
    samples, missing = device.memory_peaks()
    assert samples == {}
    assert "peak_host_bytes" in missing


def test_a_rapl_zone_that_goes_away_is_lost_and_not_zero(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", 900)
    meter = cpu.rapl_meter(tmp_path)
    assert isinstance(meter, cpu.Rapl)
    (folder / "energy_uj").unlink()
    with pytest.raises(devices.SensorLost, match="intel-rapl:0 can no longer be read"):
        meter.joules()


def write_proc(root: Path, *, busy: int, steal: int, pressure_us: int, mhz: float) -> None:
    """A /proc as far as it is read: ticks of the whole machine, pressure stall information, the frequency."""
    (root / "pressure").mkdir(parents=True, exist_ok=True)
    lines = [f"{name} {busy} 0 0 99 0 0 0 {steal} 0 0" for name in ("cpu ", "cpu0")]
    (root / "stat").write_text("\n".join([*lines, "intr 1 2 3", ""]))
    (root / "pressure/cpu").write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={pressure_us}\n")
    (root / "cpuinfo").write_text(f"cpu MHz\t\t: {mhz}\ncpu MHz\t\t: {mhz + 100}\n")


def test_the_state_of_the_host_is_what_its_counters_moved_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "PROC", tmp_path)
    monkeypatch.setattr(cpu, "ALLOWED_CPUS", (0,))
    monkeypatch.setattr(cpu.os, "sysconf", lambda _name: 100)
    write_proc(tmp_path, busy=1000, steal=10, pressure_us=5000, mhz=2000)
    before = cpu.host_counters()
    write_proc(tmp_path, busy=1000 + 10_000_000, steal=60, pressure_us=7500, mhz=2500)
    state = cpu.host_state(before)
    assert state["steal_s"] == pytest.approx(0.5)
    assert state["pressure_cpu_us"] == 2500
    assert state["cpu_mhz"] == 2550
    assert state["other_cpu_s"] == pytest.approx(100_000 - state["own_cpu_s"])


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_anywhere_above_the_process_counts(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "cgroup" / ("cpu,cpuacct" if version == 1 else "")
    inner = mount / "pod" / "container"
    inner.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    name = "3:cpu,cpuacct:" if version == 1 else "0::"
    (tmp_path / "self/cgroup").write_text(f"9:cpuset:/elsewhere\n{name}/pod/container\n")
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    assert (cgroup.allowed_cores(), cgroup.throttled_periods()) == (None, None)

    def limit(group: Path, quota: int | None, throttled: int) -> None:
        (group / "cpu.stat").write_text(f"nr_periods 50\nnr_throttled {throttled}\nthrottled_usec 9\n")
        if version == 2:
            (group / "cpu.max").write_text(f"{'max' if quota is None else quota} 100000\n")
        else:
            (group / "cpu.cfs_quota_us").write_text(f"{-1 if quota is None else quota}\n")
            (group / "cpu.cfs_period_us").write_text("100000\n")

    limit(inner, None, 0)
    assert (cgroup.allowed_cores(), cgroup.throttled_periods()) == (None, 0)
    limit(mount / "pod", 150_000, 3)
    assert (cgroup.allowed_cores(), cgroup.throttled_periods()) == (1.5, 3)
    limit(inner, 50_000, 4)
    assert (cgroup.allowed_cores(), cgroup.throttled_periods()) == (0.5, 7)


def test_a_group_that_the_container_does_not_see_has_no_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/hidden.scope\n")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cpu.max").write_text("200000 100000\n")
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    assert cgroup.allowed_cores() == 2


def test_the_peak_of_host_memory_is_reset() -> None:
    device = cpu.Cpu()
    large = bytearray(200 * 2**20)
    large[:: 2**12] = b"x" * len(large[:: 2**12])
    peak_before = cpu.host_peak_bytes()
    del large
    device.reset_memory_peaks()
    samples, missing = device.memory_peaks()
    assert "peak_host_bytes" not in missing
    assert samples["peak_host_bytes"][0] < peak_before - 150 * 2**20  # type: ignore[operator]


class Meter:
    """100 J a second on the fake clock below: 40 W idle, 100 W at work."""

    source = "planted"
    period_s: float | None = 0.001

    def watts(self) -> float | None:
        return None

    def __init__(self, readings: list[float]) -> None:
        self._readings = iter(readings)

    def joules(self) -> float:
        return next(self._readings)


def trial(meter: Any, stamps: list[float]) -> Any:
    clock = iter(stamps)
    return SimpleNamespace(
        device=SimpleNamespace(energy_meter=lambda: meter),
        timer=Timer(lambda: None, lambda: next(clock)),
        protocol=Protocol(energy_window_s=10),
        case=Case(model="m", batch_size=4),
        step=lambda: None,
    )


def test_energy_is_counter_differences_gross_and_net_of_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.time.sleep", lambda _s: None)
    # idle: 2 s, 80 J. work: two iterations of 4 images in 10 s, 1000 J.
    found = energy(trial(Meter([0, 80, 80, 1080]), [0, 2, 2, 7, 12]))
    assert found.samples == {"energy_per_image_j": [125.0], "mean_power_w": [100.0], "energy_net_per_image_j": [75.0]}
    assert found.facts["idle_w"] == 40


def test_the_device_settles_before_its_idle_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power of a device falls slowly after work, so the idle window begins SETTLE_S after the preceding work."""
    order: list[Any] = []
    monkeypatch.setattr("harness.probes.energy.time.sleep", order.append)
    meter = Meter([0, 80, 80, 1080])
    asked = trial(meter, [0, 2, 2, 7, 12])
    asked.timer.synchronize = lambda: order.append("synchronize")
    read = meter.joules
    monkeypatch.setattr(meter, "joules", lambda: order.append("counter") or read())
    energy(asked)
    assert order[:4] == ["synchronize", 3.0, "synchronize", "counter"]
    assert order[4:6] == [2.0, "counter"]


def test_no_counter_and_a_stuck_counter_are_reasons_not_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.time.sleep", lambda _s: None)
    assert energy(trial("no counter here", [])).missing["energy_per_image_j"] == "no counter here"
    stuck = energy(trial(Meter([5, 5, 5, 5]), [0, 2, 2, 2, 7, 12, 12]))
    assert stuck.samples == {}
    assert str(stuck.missing["mean_power_w"]) == "planted did not change in 10.0 s"


def test_a_counter_that_only_moves_at_work_gives_no_net_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle device draws something: 0 J is a counter that was too slow to see it."""
    monkeypatch.setattr("harness.probes.energy.time.sleep", lambda _s: None)
    found = energy(trial(Meter([5, 5, 5, 1005]), [0, 2, 2, 7, 12]))
    assert found.samples == {"energy_per_image_j": [125.0], "mean_power_w": [100.0]}
    assert str(found.missing["energy_net_per_image_j"]) == "planted did not change while the device was idle"
    assert found.facts["idle_w"] is None


def test_an_unknown_or_absent_device_is_one_line() -> None:
    with pytest.raises(devices.NoSuchDevice, match="unknown device 'tpu'; known: cpu, cuda"):
        devices.device("tpu")


def test_the_precision_read_back_must_be_the_one_asked_for() -> None:
    assert precision.mismatch({"bfloat16": 10}, "bf16") is None
    assert "no weight is bfloat16" in str(precision.mismatch({"float32": 10}, "bf16"))
    assert "several dtypes" in str(precision.mismatch({"float32": 1, "float16": 9}, "fp16"))
    assert precision.mismatch({"int8": 9, "float32": 1, "int64": 1}, "int8_dynamic") is None


def test_tf32_switches_are_restored() -> None:
    import torch

    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    with precision.applied("fp32"):
        assert not torch.backends.cudnn.allow_tf32
    with precision.applied("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_fp32_eager_and_other_precisions_of_a_module() -> None:
    import torch

    for wanted, itemsize in (("fp32", 4), ("bf16", 2), ("fp16", 2), ("int8_dynamic", 1)):
        module = precision.cast(torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False)), wanted)
        read = precision.weights_of(module)
        assert precision.mismatch(read["elements_by_dtype"], wanted) is None, wanted
        assert 64 * 64 * itemsize <= read["bytes"] < 64 * 64 * itemsize + 64 * 9, wanted
        output = precision.bordered(module, wanted, "cpu")(torch.randn(2, 64))
        assert (output.dtype, output.shape) == (torch.float32, (2, 64))


def test_tf32_that_a_plugin_switched_on_is_no_fp32_row() -> None:
    with precision.applied("fp32"):
        assert not torch.backends.cudnn.allow_tf32
    torch.backends.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError, match="a plugin set torch"), precision.applied("fp32"):
            pass
        with precision.applied("tf32"):
            assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.fp32_precision = "none"
    with precision.applied("bf16"):
        assert not torch.backends.cuda.matmul.allow_tf32


class OtherName(Cpu):
    name = "other"
    torch_device = "cuda:1"
    is_gpu = True


def test_torchs_type_of_a_device_decides_and_not_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin may give an NVIDIA GPU, or a CPU, another name."""
    monkeypatch.setitem(DEVICES._entries, "other", OtherName())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert (devices.kind("other"), devices.is_gpu("other")) == ("cuda", True)
    assert (devices.kind("cpu"), devices.is_gpu("cpu")) == ("cpu", False)
    assert backends.unavailable("eager", "tf32", "other") is None
    assert backends.unavailable("cuda_graphs", "fp32", "other") is None
    assert "other" in OPTIMIZATIONS["attention_flash"].devices
    assert backends.unavailable("openvino", "fp32", "other") == Reason("openvino_on_gpu")
    waits = backends.unavailable("eager", "int8_dynamic", "other")
    assert waits is not None
    assert waits.kind == "waits_for_gpu"
    monkeypatch.setattr(OtherName, "torch_device", "cpu")
    monkeypatch.setattr(OtherName, "is_gpu", False)
    assert backends.unavailable("openvino", "fp32", "other") is None
    assert backends.unavailable("eager", "int8_dynamic_classic", "other") is None
    assert "other" not in OPTIMIZATIONS["attention_flash"].devices
