"""What this machine can measure, and what is missing for the rest: rows of (what, status, detail)."""

from __future__ import annotations

import shutil
from typing import Any

from harness import devices, environment
from harness.registry import BACKENDS
from harness.types import PRECISIONS
from harness.units import format_value


def findings() -> list[dict[str, Any]]:
    """One row a capability, status "yes" or "no", with what was found or the reason why not."""
    name = devices.default()
    found = environment.collect((name, None))
    device = devices.device(name)
    return [
        _row(
            "device",
            True,
            f"{found['device_name']}, {found['threads']} threads, {format_value(found['memory_bytes'], 'B')}",
        ),
        _cuda(),
        *_backends(name),
        _energy(device.energy_meter()),
        _memory(device),
        _pressure(device.start_block()),
        _row("C++ compiler", bool(shutil.which("g++") or shutil.which("clang++")), "for torch_compile on a CPU"),
        _row("quality", True, "digits: data and trained weights are in the repository"),
        *(_row(package, True, version) for package, version in found["versions"].items()),
    ]


def _row(what: str, works: bool, detail: str) -> dict[str, Any]:
    return {"what": what, "status": "yes" if works else "no", "detail": detail}


def _cuda() -> dict[str, Any]:
    from harness.devices.cuda import unavailable

    reason = unavailable()
    return _row("CUDA", reason is None, reason or "a device answers")


def _backends(device: str) -> list[dict[str, Any]]:
    rows = []
    for name, backend in BACKENDS.items():
        reasons = {p: backend.unavailable(p, device) for p in PRECISIONS}
        able = [p for p, reason in reasons.items() if reason is None]
        rows.append(_row(f"backend {name}", bool(able), ", ".join(able) or str(reasons["fp32"])))
    return rows


def _energy(meter: devices.EnergyMeter | str) -> dict[str, Any]:
    return _row("energy", not isinstance(meter, str), meter if isinstance(meter, str) else meter.source)


def _memory(device: devices.Device) -> dict[str, Any]:
    device.reset_memory_peaks()
    samples, missing = device.memory_peaks()
    works = "peak_host_bytes" in samples
    return _row("peak host memory", works, "VmHWM, reset before each pass" if works else missing["peak_host_bytes"])


def _pressure(counters: dict[str, Any]) -> dict[str, Any]:
    works = counters["pressure_cpu_us"] is not None
    return _row("contention (PSI)", works, "/proc/pressure/cpu" if works else "this kernel has no /proc/pressure")
