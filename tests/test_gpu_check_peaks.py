"""The peaks and joules of a GPU check, run on the CPU in the GPU's place, over a fake energy counter."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_check_fixture import sound

from benches.gpu_check import Check, LeftOut, energy, joules, must_run, peaks, sensor_process, verdict
from benches.gpu_check.record import Record
from harness.reasons import Reason

GPU = SimpleNamespace(handle=1)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch creates on the CPU the tensors that are requested on the GPU; the GPU is an H100."""

    def here(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args, device=None, **options: make(*args, **options)

    for name in ("randn", "empty", "randint", "ones"):
        monkeypatch.setattr(torch, name, here(getattr(torch, name)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**40, 2**40))
    monkeypatch.setattr(peaks, "SIZES", (32, 48))
    monkeypatch.setattr(joules, "SIZES", (32, 48))
    monkeypatch.setattr(peaks, "SECONDS", 0.005)
    monkeypatch.setattr(peaks, "STRETCH_S", 0.001)


@pytest.mark.usefixtures("on_cpu")
def test_a_peak_is_found_in_every_precision() -> None:
    words, figures = peaks.gemm_peaks()
    assert {*figures} - {"missing"} | {*figures["missing"]} == {*peaks._products((9, 0))}
    assert {"fp32", "tf32", "bf16", "fp16", "int8", "fp8"} <= {*figures}
    assert all(flops > 0 for name, flops in figures.items() if name != "missing")
    assert "TFLOP/s" in words


@pytest.mark.usefixtures("on_cpu")
def test_a_product_that_this_gpu_cannot_do_is_named_and_one_that_every_gpu_can_do_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(torch, "_int_mm", refused)
    assert peaks.gemm_peaks()[1]["missing"] == {"int8": "RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED"}
    monkeypatch.setattr(torch, "mm", refused)
    found = sensor_process.single("GEMM peaks", peaks.gemm_peaks)
    assert found.result == "FAILED"
    assert "bf16" in found.detail


@pytest.mark.usefixtures("on_cpu")
def test_tf32_is_on_for_its_own_product_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, bool]] = []
    real = torch.mm

    def watched(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seen.append((a.dtype, torch.backends.cuda.matmul.allow_tf32))
        return real(a, b, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    before = torch.backends.cuda.matmul.allow_tf32
    peaks.gemm_peaks()
    assert {(torch.float32, False), (torch.float32, True)} <= {*seen}
    assert not any(on for dtype, on in seen if dtype != torch.float32)
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.usefixtures("on_cpu")
def test_the_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "COPY_BYTES", 2**20)
    monkeypatch.setattr(peaks, "repeated", lambda *_a: (0.5, 1))
    assert peaks.copy_bandwidth()[1] == {"bytes_per_s": 2**22, "buffer_bytes": 2**20}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**20, 2**30))
    with pytest.raises(LeftOut, match="are free"):
        peaks.copy_bandwidth()


def fake_energy(monkeypatch: pytest.MonkeyPatch, watts: float, meter_watts: float) -> None:
    """A counter that runs at `meter_watts`, and readings that give `watts`, on a simulated clock."""
    now = [0.0]

    def work(_timer: object, _work: object, seconds: float) -> tuple[float, int]:
        now[0] += seconds
        return 1e-3, round(seconds * 1e3)

    meter = SimpleNamespace(period_s=0.02, joules=lambda: now[0] * meter_watts)
    monkeypatch.setattr("harness.devices.cuda.Cuda.energy_meter", lambda _self: meter)
    monkeypatch.setattr(joules, "repeated", work)
    monkeypatch.setattr(joules, "Timer", lambda _sync: SimpleNamespace(now=lambda: now[0]))
    monkeypatch.setattr("harness.devices.nvml.identity", lambda _gpu: {"power_limit_w": 300.0})

    class Readings:
        def __init__(self, read: Callable[[], float | None]) -> None:
            self.read = read

        def __enter__(self) -> Readings:
            return self

        def __exit__(self, *_error: object) -> None:
            return None

        def mean_w(self) -> float | str:
            return watts

    monkeypatch.setattr(joules, "PowerReadings", Readings)


def decided(figures: dict[str, Any]) -> dict[str, str]:
    whole = sound()
    check = Check(what=energy.CHECK, result="ok", detail="", figures=figures)
    record = Record(**{**vars(whole), "checks": {**whole.checks, energy.CHECK: check}})
    return {c.what: c.result for c in verdict.decide(record).found if c.what.startswith("energy: ")}


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("watts", "agrees"), [(200.0, True), (230.0, True), (600.0, False), (66.0, False)])
def test_a_counter_is_held_against_both_powers_over_the_same_window(
    watts: float, agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_energy(monkeypatch, watts, meter_watts=200.0)
    words, figures = joules.joules(GPU)
    assert words == "32: 200 W, 48: 200 W"
    assert figures["sizes"]["32"]["seconds"] == pytest.approx(joules.WINDOW_S)  # what came before it is not counted
    assert figures["sizes"]["32"]["flops"] == pytest.approx(2 * 32**3 * 2000)
    found = decided(figures)
    assert found[must_run.INSTANT] == found[must_run.AVERAGE] == ("ok" if agrees else "FAILED")
    assert found[must_run.LIMIT] == "ok"


@pytest.mark.usefixtures("on_cpu")
def test_a_mean_power_above_the_limit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_energy(monkeypatch, 400.0, meter_watts=400.0)
    assert decided(joules.joules(GPU)[1])[must_run.LIMIT] == "FAILED"


@pytest.mark.usefixtures("on_cpu")
def test_without_a_counter_the_joules_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = Reason("mig_instance_has_no_counter")
    monkeypatch.setattr("harness.devices.cuda.Cuda.energy_meter", lambda _self: reason)
    found = sensor_process.single(energy.CHECK, lambda: joules.joules(GPU))
    assert (found.result, found.detail) == ("left out", str(reason))
