"""Memory: the weights as they are stored, and the peaks over a few iterations of their own.

torch's allocator and the kernel keep peaks themselves. The driver does not, so a thread reads the driver's figure while
the pass runs. Nothing is timed in this pass.
"""

from __future__ import annotations

from typing import Any

from harness.devices import Device
from harness.devices.readings import Readings
from harness.measuring.trial import Findings, Trial
from harness.probes import probe
from harness.reasons import Reason
from harness.types import Kind, Metric

ITERATIONS = 2
PERIOD_S = 0.005


def _bytes(name: str, label: str, kind: Kind, description: str) -> Metric:
    return Metric(
        name=name,
        unit="B",
        label=label,
        better="lower",
        kind=kind,
        description=description,
        summary="max",
    )


WEIGHTS = _bytes(
    "weights_bytes", "Weights", "exact", "bytes of parameters and buffers as the backend holds them, read back"
)
DISK = _bytes(
    "disk_bytes",
    "Size on disk",
    "near_exact",
    "bytes of the file to ship: torch's saved state dict, the ONNX file, the TensorRT engine",
)
HOST = _bytes(
    "peak_host_bytes",
    "Peak host memory",
    "advisory",
    "largest resident set of the worker over two iterations after warm-up, loaded libraries included (VmHWM)",
)
ALLOCATED = _bytes("peak_allocated_bytes", "Peak allocated", "near_exact", "largest sum of live tensors on the device")
RESERVED = _bytes(
    "peak_reserved_bytes", "Peak reserved", "advisory", "largest amount that torch's allocator held on the device"
)
DRIVER = _bytes(
    "peak_driver_bytes",
    "Driver memory",
    "advisory",
    f"largest use of the device that the driver reports, read every {PERIOD_S * 1e3:.0f} ms during the pass and once "
    "after it; a peak between two readings is not seen",
)


@probe("memory", order=30, metrics=(WEIGHTS, DISK, HOST, ALLOCATED, RESERVED, DRIVER), first_process_only=True)
def memory(trial: Trial) -> Findings:
    """Bytes of the weights, and peaks of host and device over a pass of their own."""
    trial.device.reset_memory_peaks()
    with Readings(lambda: _driver(trial.device), PERIOD_S, "driver memory") as driver:
        for _ in range(ITERATIONS):
            trial.step()
        trial.device.synchronize()
    samples, told = trial.device.memory_peaks()
    missing: dict[str, Reason | str] = dict(told)
    facts: dict[str, Any] = {}
    if DRIVER.name in samples and (error := driver.error()):
        del samples[DRIVER.name]
        missing[DRIVER.name] = Reason("driver_memory_not_read", {"error": error})
    if DRIVER.name in samples:
        samples[DRIVER.name] = [max(*samples[DRIVER.name], *driver.values())]
        facts["driver_memory_readings"] = len(driver.values()) + 1
    if trial.build.replays and samples.pop(ALLOCATED.name, None) is not None:
        missing[ALLOCATED.name] = Reason("replayed_cuda_graph")
    if not trial.build.keeps_modules:
        for name in (ALLOCATED.name, RESERVED.name):
            if samples.pop(name, None) is not None:
                missing[name] = Reason("own_allocator")
    sizes = {"weights_bytes": trial.build.weights_bytes, "disk_bytes": trial.build.disk_bytes()}
    return Findings(
        samples={**{name: [float(size)] for name, size in sizes.items()}, **samples}, missing=missing, facts=facts
    )


def _driver(device: Device) -> float | None:
    used = device.driver_memory_bytes()
    return None if isinstance(used, Reason | str) else float(used)
