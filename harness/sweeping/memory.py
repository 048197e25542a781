"""Whether the models of some rows fit into memory together, from what each needed alone.

On a CPU a process counts with its largest resident set, which includes the libraries that all processes share, so the
sum errs on the safe side. On a GPU it counts with what torch's allocator held, and with the context of its process. The
use of memory of a GPU is not proven on hardware yet.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from harness.devices import cgroup, nvml
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.stored_types import Environment
from harness.types import Measurement

SHARE: Final = 0.85  # of the free memory; the rest is for what grows beside the models
CONTEXT_BYTES: Final = 700 * 2**20  # of a CUDA process: driver context, kernels and libraries
HOST, RESERVED, ALLOCATED = "peak_host_bytes", "peak_reserved_bytes", "peak_allocated_bytes"


def needed_bytes(measurement: Measurement, *, gpu: bool) -> float | None:
    """The memory that a row's process needs on the device; None if it was not measured."""
    for name in (RESERVED, ALLOCATED) if gpu else (HOST,):
        if values := measurement.samples.get(name):
            return statistics.fmean(values) + (CONTEXT_BYTES if gpu else 0)
    return None


def fit(measurements: Sequence[Measurement], free_bytes: float | None, *, gpu: bool) -> bool:
    """Whether processes that measured these need at most SHARE of the free memory together. False if anything is
    unknown."""
    needed = [needed_bytes(m, gpu=gpu) for m in measurements]
    known = [value for value in needed if value is not None]
    return free_bytes is not None and len(known) == len(needed) and sum(known) <= SHARE * free_bytes


def is_gpu(environment: Environment) -> bool:
    return bool(DEVICES[environment["device"]].is_gpu)


def free_bytes(environment: Environment) -> int | None:
    """The free memory of the run's device at this moment; None if it cannot be read."""
    if not is_gpu(environment):
        return cgroup.free_memory_bytes()
    found = (environment.get("gpus") or [{}])[0]
    total, uuid = found.get("memory_bytes"), found.get("uuid")
    if total is None or not uuid:
        return None
    device = nvml.gpu(uuid)
    used = device if isinstance(device, Reason) else nvml.memory_used_bytes(device)
    return None if isinstance(used, Reason) else total - used
