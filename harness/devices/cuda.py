"""One NVIDIA GPU through torch and NVML. Written against the real API; not yet proven on hardware.

Time is measured by the host's wall clock around synchronised work, and also by CUDA events (`stopwatch()`). Peak memory
has three different figures: allocated (live tensors), reserved (what torch's allocator holds) and driver (what NVML
reports for the whole device, including the CUDA context and the engines of other libraries). `harness.devices.nvml`
calls NVML.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

from harness.devices import EnergyMeter, Stopwatch, nvml
from harness.devices.cpu import NO_PEAK, cpu_model, host_counters, host_difference, host_peak_bytes, reset_host_peak
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.types import Samples


def unavailable() -> Reason | None:
    """Why there is no CUDA device, or None if there is one. Only torch can say that there is one; it is not imported
    where its build or the missing driver rules one out."""
    from harness.devices import cuda_ruled_out

    if "torch" not in sys.modules and (reason := cuda_ruled_out.without_torch()) is not None:
        return reason
    import torch

    if torch.version.cuda is None:
        return Reason("torch_without_cuda")
    if torch.cuda.is_available():
        return None
    return cuda_ruled_out.no_driver() or Reason("no_cuda_device")


def _forked_too_late() -> Reason | None:
    """Why this process cannot use CUDA, or None: its fork server used CUDA before the fork, as a plugin's import may
    do."""
    import torch

    if not torch.cuda._is_in_bad_fork():
        return None
    return Reason("cuda_asked_before_fork")


class CudaEvents:
    """Seconds of the GPU's own clock between two events on torch's current stream."""

    def __init__(self) -> None:
        import torch

        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def start(self) -> None:
        self._begin.record()

    def stop(self) -> None:
        self._end.record()

    def seconds(self) -> float:
        """Seconds between the last start and stop. Call it after a synchronisation."""
        return float(self._begin.elapsed_time(self._end)) * 1e-3


@DEVICES.add("cuda")
class Cuda:
    name = "cuda"
    torch_device = "cuda"
    is_gpu = True
    preference = 1
    shortest_sample_s = 4e-3

    def unavailable(self) -> Reason | None:
        return unavailable()

    def unusable(self) -> Reason | None:
        return _forked_too_late()

    def cache_bytes(self) -> int | Reason:
        import torch

        size = int(torch.cuda.get_device_properties(0).L2_cache_size)
        return size or Reason("l2_size_unknown")

    def release_memory(self) -> None:
        import torch

        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize()

    def stopwatch(self) -> Stopwatch:
        return CudaEvents()

    def reset_memory_peaks(self) -> None:
        """Also frees the memory that only the build needed, which torch's allocator would keep otherwise."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self._host_refused = reset_host_peak()

    def memory_peaks(self) -> tuple[Samples, dict[str, Reason]]:
        import torch

        samples = {
            "peak_allocated_bytes": [float(torch.cuda.max_memory_allocated())],
            "peak_reserved_bytes": [float(torch.cuda.max_memory_reserved())],
        }
        missing: dict[str, Reason] = {}
        host = host_peak_bytes()
        if host is None or self._host_refused:
            missing["peak_host_bytes"] = self._host_refused or NO_PEAK
        else:
            samples["peak_host_bytes"] = [float(host)]
        used = self.driver_memory_bytes()
        if isinstance(used, Reason):
            missing["peak_driver_bytes"] = used
        else:
            samples["peak_driver_bytes"] = [float(used)]
        return samples, missing

    def driver_memory_bytes(self) -> int | Reason:
        gpu = own_gpu()
        return gpu if isinstance(gpu, Reason) else nvml.memory_used_bytes(gpu)

    def energy_meter(self) -> EnergyMeter | Reason:
        gpu = own_gpu()
        return gpu if isinstance(gpu, Reason) else nvml.energy_meter(gpu)

    def sensors(self) -> Callable[[], dict[str, Any]] | None:
        gpu = own_gpu()
        return None if isinstance(gpu, Reason) else functools.partial(nvml.sensors, gpu)

    def start_span(self) -> dict[str, Any]:
        gpu = own_gpu()
        seen = {} if isinstance(gpu, Reason) else nvml.counters(gpu)
        return {**host_counters(), "gpu": seen}

    def span_state(self, before: dict[str, Any]) -> dict[str, Any]:
        after = host_counters()  # first, so that it does not include the cost of NVML's calls
        gpu = own_gpu()
        host = host_difference({name: before[name] for name in after}, after)
        if isinstance(gpu, Reason):
            return {**host, "gpu": {"unavailable": str(gpu)}}
        return {**host, "gpu": {**nvml.state(gpu, before["gpu"]), "elapsed_s": host["elapsed_s"]}}

    def describe(self) -> dict[str, Any]:
        import torch

        properties, gpu = torch.cuda.get_device_properties(0), own_gpu()
        unknown = dict.fromkeys(("uuid", "power_limit_w", "mig", "driver"))
        found = unknown if isinstance(gpu, Reason) else nvml.identity(gpu)
        driver = found.pop("driver")
        return {
            "device": "cuda",
            "device_name": properties.name,
            "host_cpu": cpu_model(),
            "gpus": [{"name": properties.name, "memory_bytes": properties.total_memory, **found}],
            "driver": driver,
            "cuda": torch.version.cuda,
        }


def own_gpu() -> nvml.Gpu | Reason:
    """torch's device 0 in NVML, found by UUID because CUDA_VISIBLE_DEVICES reorders devices; or the reason why not."""
    import torch

    return nvml.gpu(str(torch.cuda.get_device_properties(0).uuid))
