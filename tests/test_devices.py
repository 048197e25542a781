"""Sensors over fake trees: RAPL with wrap-around and refusals, host counters, and the energy probe's arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import devices, precision
from harness.devices import cpu
from harness.probes.energy import energy
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
    monkeypatch.setattr(cpu, "CGROUP", tmp_path)
    state = cpu.host_state(cpu.host_counters())
    assert {
        k: state[k] for k in ("pressure_cpu_us", "steal_s", "other_cpu_s", "throttled_periods", "cpu_mhz")
    } == dict.fromkeys(("pressure_cpu_us", "steal_s", "other_cpu_s", "throttled_periods", "cpu_mhz"))
    device = cpu.Cpu()
    device.reset_memory_peaks()
    samples, missing = device.memory_peaks()
    assert samples == {}
    assert "peak_host_bytes" in missing


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
    period_s: float | None = None

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


def test_no_counter_and_a_stuck_counter_are_reasons_not_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.time.sleep", lambda _s: None)
    assert energy(trial("no counter here", [])).missing["energy_per_image_j"] == "no counter here"
    stuck = energy(trial(Meter([5, 5, 5, 5]), [0, 2, 2, 2, 7, 12, 12]))
    assert stuck.samples == {}
    assert stuck.missing["mean_power_w"] == "planted did not move in 10.0 s"


def test_an_unknown_or_absent_device_is_one_line() -> None:
    with pytest.raises(devices.NoSuchDevice, match="unknown device 'tpu'; one of cpu, cuda"):
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
