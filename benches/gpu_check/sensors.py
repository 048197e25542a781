"""The checks of the device itself: its identity, its clocks, its memory, its energy counter and its state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from benches.gpu_check import QUICK, Found, LeftOut, expect, joules, peaks
from harness.devices.nvml_calls import NOT_AVAILABLE_64
from harness.reasons import Reason
from harness.timing import Timer
from harness.types import Case

if TYPE_CHECKING:
    from harness.devices.nvml import Gpu

GIB: Final = 2**30
CLOCKS_S: Final = 0.2  # of the products that both clocks time
LOAD_S: Final = 0.5  # of the products during which the state is read
MIG_WORDS: Final = {True: "on", False: "off", None: "not supported"}


def _gemm(size: int = 4096) -> tuple[Any, Callable[[], Any]]:
    """(device, a 16-bit matrix product on it): work that occupies any GPU."""
    import torch

    from harness.devices.cuda import Cuda

    a, b = (torch.randn(size, size, device="cuda", dtype=peaks.half()) for _ in range(2))
    return Cuda(), lambda: a @ b


def _own_gpu() -> Gpu:
    """The GPU by NVML. Raises LeftOut where nvidia-ml-py or the driver's library is not installed: where both are, a
    GPU that torch computes on and NVML does not know is a fault."""
    from harness.devices.cuda import own_gpu

    try:
        import pynvml
    except ImportError:
        raise LeftOut("nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise LeftOut("libnvidia-ml.so.1 is not installed") from None
    found = own_gpu()
    if isinstance(found, Reason):
        raise AssertionError(str(found))
    return found


def identity() -> Found:
    from harness.devices import nvml
    from harness.devices.cuda import Cuda

    own = _own_gpu()
    mode = True if own.is_mig else nvml.mig_mode(own)
    expect(not isinstance(mode, Reason), str(mode))
    found = Cuda().describe()
    gpu = found["gpus"][0]
    expect(found["driver"] is not None, "NVML gives no driver version")
    expect(str(gpu["uuid"]).startswith(("GPU-", "MIG-")), f"NVML gives the UUID {gpu['uuid']!r}")
    limit = "no power limit" if gpu["power_limit_w"] is None else f"{gpu['power_limit_w']:.0f} W"
    words = f"{gpu['name']}, {gpu['memory_bytes'] / GIB:.0f} GiB, driver {found['driver']}, CUDA {found['cuda']}"
    return f"{words}, {limit}, MIG {MIG_WORDS[gpu['mig']]}", found


def clocks() -> Found:
    from harness.devices.cuda import CudaEvents

    device, work = _gemm()
    timer = Timer(device.synchronize, device_clock=CudaEvents())
    once, _ = peaks.repeated(timer, work, LOAD_S)
    wall = timer.seconds(work, max(1, round(CLOCKS_S / once)))
    events = timer.last_device_s or 0.0
    expect(events > 0, "CUDA events gave no time")
    expect(abs(events / wall - 1) < 0.05, f"wall clock {wall * 1e3:.3f} ms, CUDA events {events * 1e3:.3f} ms")
    tflops = 2 * 4096**3 / events * 1e-12
    return (
        f"a product of 4096: {wall * 1e6:.0f} µs by wall clock, {events * 1e6:.0f} µs by events, {tflops:.0f} TFLOP/s",
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
    expect(abs(grown - GIB) < 2**20, f"a tensor of 1 GiB changed the allocated peak by {grown:.0f} bytes")
    del kept
    if "peak_driver_bytes" not in after:
        reason = str(missing["peak_driver_bytes"])
        with suppress(LeftOut):  # nvidia-ml-py or the driver's library is not installed
            expect(_shared(_own_gpu()), reason)
        return f"a tensor of 1 GiB: allocated +{grown / GIB:.2f} GiB; no driver memory: {reason}", {}
    driver = after["peak_driver_bytes"][0] - before["peak_driver_bytes"][0]
    expect(driver > 0.9 * GIB, f"a tensor of 1 GiB changed the driver's figure by {driver:.0f} bytes")
    return f"a tensor of 1 GiB: allocated +{grown / GIB:.2f}, driver +{driver / GIB:.2f} GiB", {"driver_bytes": driver}


def _shared(gpu: Gpu) -> bool:
    """Whether NVML's figures are of a GPU that MIG instances share."""
    from harness.devices import nvml

    return gpu.is_mig or nvml.mig_mode(gpu) is True


def _has_counter(gpu: Gpu) -> bool:
    """Whether the GPU has an energy counter (Volta and newer) that counts this process alone. Raises NVMLError for any
    other error."""
    import pynvml

    if _shared(gpu):
        return False
    try:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)) != NOT_AVAILABLE_64
    except pynvml.NVMLError_NotSupported:
        return False


def energy() -> Found:
    """Compares the joules of the counter with those of the integrated power over one window. The probe gives both even
    if they differ so much that it gives no energy. A factor of two means a wrong unit and fails the check."""
    from types import SimpleNamespace

    from harness.probes.energy import energy as probe

    device, work = _gemm()
    meter = device.energy_meter()
    if isinstance(meter, Reason):
        expect(not _has_counter(_own_gpu()), str(meter))
        raise LeftOut(str(meter))
    trial: Any = SimpleNamespace(
        device=SimpleNamespace(energy_meter=lambda: meter),
        timer=Timer(device.synchronize),
        protocol=QUICK,
        case=Case(model="gemm"),
        step=lambda: [work() for _ in range(20)],
    )
    found = probe(trial)
    facts = found.facts
    expect(bool(facts.get("energy_counter_j")), str(found.missing))
    watts = facts["energy_counter_j"] / facts["energy_window_s"]
    expect(facts["idle_w"] is not None, "the counter did not change while the device was idle")
    expect(watts > facts["idle_w"], f"{watts:.0f} W under load, {facts['idle_w']:.0f} W idle")
    integrated_w = None
    if facts["integrated_power_j"] is not None:
        integrated_w = facts["integrated_power_j"] / facts["energy_window_s"]
        expect(
            0.5 < integrated_w / watts < 2, f"{watts:.0f} W by the counter, {integrated_w:.0f} W by the power readings"
        )
    by_power = facts.get("integrated_power_missing") or f"{integrated_w:.0f} W by the power readings"
    period_ms = facts["energy_counter_period_s"] * 1e3
    words = [
        f"idle {facts['idle_w']:.0f} W, under load {watts:.0f} W by the counter, {by_power}",
        f"the counter updates every {period_ms:.0f} ms, window {facts['energy_window_s']:.1f} s",
        *map(str, found.warnings),
        *([] if found.samples else dict.fromkeys(map(str, found.missing.values()))),
    ]
    return "; ".join(words), {**facts, "mean_power_w": watts}


def state() -> Found:
    from harness.measuring import contention

    _own_gpu()
    device, work = _gemm()
    before = device.start_span()
    peaks.repeated(Timer(device.synchronize), work, LOAD_S)
    found = device.span_state(before)
    gpu = found["gpu"]
    expect("unavailable" not in gpu, str(gpu.get("unavailable")))
    expect(bool(gpu["sm_clock_mhz"]), f"no SM clock: {gpu}")
    held = None if gpu["throttled_by"] is None else ", ".join(gpu["throttled_by"]) or "nothing"
    words = (
        f"SM {gpu['sm_clock_mhz']} MHz, {_told(gpu['temperature_c'])} °C, throttled by {_told(held)}, "
        f"other processes: {_told(gpu['foreign_processes'])}; contended: {contention.contended(found) or 'no'}"
    )
    return words, gpu


def _told(reading: object) -> str:
    return "unknown" if reading is None else str(reading)


CHECKS: Final[tuple[tuple[str, Callable[[], Found]], ...]] = (
    ("identity", identity),
    ("clocks", clocks),
    ("memory", memory),
    ("GEMM peaks", peaks.gemm_peaks),
    ("copy bandwidth", peaks.copy_bandwidth),
    ("energy", energy),
    ("joules of GEMMs", lambda: joules.joules(_own_gpu())),
    ("state", state),
)
