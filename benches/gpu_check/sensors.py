"""The checks of the device itself: who it is, its clocks, its memory, its energy counter and its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benches.gpu_check import QUICK, Found, LeftOut, expect
from harness.timing import Timer
from harness.types import Case

GIB: Final = 2**30


def _gemm(size: int = 4096) -> tuple[Any, Callable[[], Any]]:
    """(device, a bf16 matrix product on it): work that keeps any GPU busy."""
    import torch

    from harness.devices.cuda import Cuda

    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return Cuda(), lambda: a @ b


def identity() -> Found:
    from harness.devices.cuda import Cuda

    found = Cuda().describe()
    gpu = found["gpus"][0]
    expect(found["driver"] is not None, "NVML gives no driver version")
    expect(str(gpu["uuid"]).startswith(("GPU-", "MIG-")), f"NVML gives the UUID {gpu['uuid']!r}")
    limit = "no power limit" if gpu["power_limit_w"] is None else f"{gpu['power_limit_w']:.0f} W"
    words = f"{gpu['name']}, {gpu['memory_bytes'] / GIB:.0f} GiB, driver {found['driver']}, CUDA {found['cuda']}"
    return f"{words}, {limit}, MIG {'on' if gpu['mig'] else 'off'}", found


def clocks() -> Found:
    from harness.devices.cuda import CudaEvents

    device, work = _gemm()
    timer = Timer(device.synchronize, device_clock=CudaEvents())
    for _ in range(5):
        timer.seconds(work, 20)
    wall = timer.seconds(work, 50)
    events = timer.last_device_s or 0.0
    expect(events > 0, "CUDA events gave no time")
    expect(abs(events / wall - 1) < 0.05, f"wall clock {wall * 1e3:.3f} ms, CUDA events {events * 1e3:.3f} ms")
    tflops = 2 * 4096**3 / events * 1e-12
    return (
        f"a product of 4096: {wall * 1e6:.0f} µs by the wall, {events * 1e6:.0f} µs by events, {tflops:.0f} TFLOP/s",
        {
            "wall_s": wall,
            "events_s": events,
            "tflops": tflops,
        },
    )


def memory() -> Found:
    import torch

    from harness.devices.cuda import Cuda

    device = Cuda()
    torch.cuda.empty_cache()
    device.reset_memory_peaks()
    before, _ = device.memory_peaks()
    kept = torch.empty(GIB, dtype=torch.uint8, device="cuda")
    after, missing = device.memory_peaks()
    grown = after["peak_allocated_bytes"][0] - before["peak_allocated_bytes"][0]
    expect(abs(grown - GIB) < 2**20, f"a tensor of 1 GiB moved the allocated peak by {grown:.0f} bytes")
    expect("peak_driver_bytes" in after, f"no driver memory: {missing.get('peak_driver_bytes')}")
    driver = after["peak_driver_bytes"][0] - before["peak_driver_bytes"][0]
    expect(driver > 0.9 * GIB, f"a tensor of 1 GiB moved the driver's figure by {driver:.0f} bytes")
    del kept
    return f"1 GiB is seen: allocated +{grown / GIB:.2f}, driver +{driver / GIB:.2f} GiB", {"driver_bytes": driver}


def energy() -> Found:
    from types import SimpleNamespace

    from harness.probes.energy import energy as probe

    device, work = _gemm()
    meter = device.energy_meter()
    if isinstance(meter, str):
        raise LeftOut(meter)
    trial: Any = SimpleNamespace(
        device=SimpleNamespace(energy_meter=lambda: meter),
        timer=Timer(device.synchronize),
        protocol=QUICK,
        case=Case(model="gemm"),
        step=lambda: [work() for _ in range(20)],
    )
    found = probe(trial)
    expect(bool(found.samples), str(found.missing))
    facts, watts = found.facts, found.samples["mean_power_w"][0]
    expect(watts > facts["idle_w"], f"{watts:.0f} W at work, {facts['idle_w']:.0f} W idle")
    expect(not found.warnings, "; ".join(found.warnings))
    period = facts["energy_counter_period_s"]
    expect(period is not None, "the energy counter's period could not be measured")
    words = f"idle {facts['idle_w']:.0f} W, at work {watts:.0f} W; the counter moves every {period * 1e3:.0f} ms"
    return f"{words}, window {facts['energy_window_s']:.1f} s", {**facts, "mean_power_w": watts}


def state() -> Found:
    from harness import contention

    device, work = _gemm()
    before = device.start_block()
    for _ in range(2000):
        work()
    device.synchronize()
    found = device.block_state(before)
    gpu = found["gpu"]
    expect("unavailable" not in gpu, str(gpu.get("unavailable")))
    expect(bool(gpu["sm_clock_mhz"]), f"no SM clock: {gpu}")
    words = f"SM {gpu['sm_clock_mhz']} MHz, {gpu['temperature_c']} °C, held down by {gpu['throttled_by'] or 'nothing'}"
    others = gpu["foreign_processes"]
    return f"{words}, other processes: {others}; contended: {contention.contended(found) or 'no'}", gpu


CHECKS: Final[tuple[tuple[str, Callable[[], Found]], ...]] = (
    ("identity", identity),
    ("clocks", clocks),
    ("memory", memory),
    ("energy", energy),
    ("state", state),
)
