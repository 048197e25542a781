"""One NVIDIA GPU through torch and NVML. Written against the real API; not yet proven on hardware.

Peak memory has three figures that differ: allocated (live tensors), reserved (what torch's allocator holds) and
driver (what NVML says the whole device uses, CUDA context and engines of other libraries included). Energy is the
difference of NVML's total-energy counter in millijoules (Volta and newer), never an average of power readings.
"""

from __future__ import annotations

import os
from typing import Any

from harness.devices import EnergyMeter
from harness.devices.cpu import NO_PEAK, cpu_model, host_counters, host_peak_bytes, host_state, reset_host_peak
from harness.types import Samples


def unavailable() -> str | None:
    """Why there is no CUDA device, or None where there is one."""
    import torch

    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    if torch.cuda.is_available():
        return None
    return "no NVIDIA GPU or driver answers (torch.cuda.is_available() is False)"


class NvmlEnergy:
    source = "NVML total energy counter"

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def joules(self) -> float:
        import pynvml

        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1e-3


class Cuda:
    name = "cuda"
    torch_device = "cuda"

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize()

    def reset_memory_peaks(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats()
        self._host_refused = reset_host_peak()

    def memory_peaks(self) -> tuple[Samples, dict[str, str]]:
        import pynvml
        import torch

        samples = {
            "peak_allocated_bytes": [float(torch.cuda.max_memory_allocated())],
            "peak_reserved_bytes": [float(torch.cuda.max_memory_reserved())],
        }
        missing: dict[str, str] = {}
        host = host_peak_bytes()
        if host is None or self._host_refused:
            missing["peak_host_bytes"] = self._host_refused or NO_PEAK
        else:
            samples["peak_host_bytes"] = [float(host)]
        handle = nvml_handle()
        if isinstance(handle, str):
            missing["peak_driver_bytes"] = handle
        else:
            try:
                samples["peak_driver_bytes"] = [float(pynvml.nvmlDeviceGetMemoryInfo(handle).used)]
            except pynvml.NVMLError as error:
                missing["peak_driver_bytes"] = f"NVML: {error}"
        return samples, missing

    def energy_meter(self) -> EnergyMeter | str:
        import pynvml

        handle = nvml_handle()
        if isinstance(handle, str):
            return handle
        try:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except pynvml.NVMLError as error:
            return f"NVML has no energy counter for this device: {error}"
        return NvmlEnergy(handle)

    def start_block(self) -> dict[str, Any]:
        return host_counters()

    def block_state(self, before: dict[str, Any]) -> dict[str, Any]:
        return {**host_state(before), "gpu": _gpu_state()}

    def describe(self) -> dict[str, Any]:
        import torch

        properties = torch.cuda.get_device_properties(0)
        gpu = {"name": properties.name, "memory_bytes": properties.total_memory, **_gpu_identity()}
        driver = gpu.pop("driver")
        return {
            "device": "cuda",
            "device_name": properties.name,
            "host_cpu": cpu_model(),
            "gpus": [gpu],
            "driver": driver,
            "cuda": torch.version.cuda,
        }


def nvml_handle() -> Any | str:
    """NVML's handle of torch's device 0 (found by UUID, since CUDA_VISIBLE_DEVICES reorders), or the reason why not."""
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    except pynvml.NVMLError as error:
        return f"NVML: {error}"


def _gpu_identity() -> dict[str, Any]:
    handle = nvml_handle()
    found: dict[str, Any] = dict.fromkeys(("uuid", "power_limit_w", "mig", "driver"))
    if isinstance(handle, str):
        return found
    import pynvml

    reads = {
        "uuid": lambda: pynvml.nvmlDeviceGetUUID(handle),
        "power_limit_w": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000.0,
        "mig": lambda: bool(pynvml.nvmlDeviceGetMigMode(handle)[0]),
        "driver": lambda: pynvml.nvmlSystemGetDriverVersion(),
    }
    return {name: _read(read) for name, read in reads.items()}


def _gpu_state() -> dict[str, Any]:
    handle = nvml_handle()
    if isinstance(handle, str):
        return {"unavailable": handle}
    import pynvml

    reads = {
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0,
        "throttle_reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
        "foreign_processes": lambda: _foreign(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    }
    return {name: _read(read) for name, read in reads.items()}


def _foreign(processes: list[Any]) -> int:
    """Compute processes that are not this one. In a PID namespace NVML's numbers are the host's: then one is ours."""
    others = [process for process in processes if process.pid != os.getpid()]
    return len(others) if len(others) < len(processes) else max(0, len(others) - 1)


def _read(read: Any) -> Any:
    """One NVML value, None where this device does not support the call."""
    import pynvml

    try:
        return read()
    except pynvml.NVMLError:
        return None
