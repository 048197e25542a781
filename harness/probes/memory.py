"""Memory: the weights as they lie there, and the peaks over a few iterations of their own."""

from __future__ import annotations

from harness.probes import probe
from harness.trial import Findings, Trial
from harness.types import Kind, Metric

ITERATIONS = 2


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
    "peak_driver_bytes", "Driver memory", "advisory", "what the driver says the whole device uses after the pass"
)


@probe("memory", order=30, metrics=(WEIGHTS, DISK, HOST, ALLOCATED, RESERVED, DRIVER), first_process_only=True)
def memory(trial: Trial) -> Findings:
    """Bytes of the weights, and peaks of host and device over a pass of their own."""
    trial.device.reset_memory_peaks()
    for _ in range(ITERATIONS):
        trial.step()
    trial.device.synchronize()
    samples, missing = trial.device.memory_peaks()
    if trial.build.replays and samples.pop(ALLOCATED.name, None) is not None:
        missing[ALLOCATED.name] = "a replayed CUDA graph asks the allocator for nothing: what it uses is reserved"
    if not trial.build.keeps_modules:
        for name in (ALLOCATED.name, RESERVED.name):
            if samples.pop(name, None) is not None:
                missing[name] = "the backend has an allocator of its own, which torch does not see"
    sizes = {"weights_bytes": trial.build.weights_bytes, "disk_bytes": trial.build.disk_bytes()}
    return Findings(samples={**{name: [float(size)] for name, size in sizes.items()}, **samples}, missing=missing)
