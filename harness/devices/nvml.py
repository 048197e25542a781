"""The sensors of one NVIDIA GPU through NVML (nvidia-ml-py): energy, power, clocks, throttling, identity, neighbours.

Nothing here needs torch or CUDA. Every reading that the device, the driver or the permissions do not give is None or a
reason in words, never 0. A MIG instance has no energy counter and no power of its own: its GPU's would count other
people's work, so there is none. Tested against a stub of the library; not yet proven on hardware.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar

from harness.devices import SensorLost
from harness.timing import perf_counter

T = TypeVar("T")

TICKS: Final = 4  # changes of the energy counter that its period is measured from
PATIENCE_S: Final = 1.5  # NVML's slowest known counter moves every 100 ms
POLL_S: Final = 0.0005
THROTTLE_REASONS: Final = {  # NVML's clock event reasons
    0x01: "idle",
    0x02: "clocks set by a user",
    0x04: "software power cap",
    0x08: "hardware slow-down",
    0x10: "sync boost",
    0x20: "software thermal slow-down",
    0x40: "hardware thermal slow-down",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, or a MIG instance. `handle` answers for what is asked of an instance, `whole` for the GPU around it."""

    handle: Any
    whole: Any
    is_mig: bool


def gpu(uuid: str) -> Gpu | str:
    """The GPU of that UUID, with or without its "GPU-" or "MIG-", or the reason why NVML cannot give it."""
    import pynvml

    given = uuid.removeprefix("GPU-").removeprefix("MIG-")
    failure: Exception | None = None
    try:
        pynvml.nvmlInit()
    except failures() as error:
        return in_words(error)
    for prefix in ("GPU-", "MIG-"):
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"{prefix}{given}")
        except failures() as error:
            failure = failure or error
            continue
        return _placed(handle, prefix == "MIG-")
    return in_words(failure)


def _placed(handle: Any, named_mig: bool) -> Gpu:
    import pynvml

    is_mig = named_mig or bool(getattr(read(lambda: pynvml.nvmlDeviceIsMigDeviceHandle(handle)), "value", 0))
    whole = read(lambda: pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)) if is_mig else handle
    return Gpu(handle=handle, whole=whole if whole is not None else handle, is_mig=is_mig)


def in_words(error: Exception | None) -> str:
    """ "NVML: Not Supported"."""
    try:
        return f"NVML: {error}"
    except failures():  # the library cannot even name its error
        return f"NVML: error {getattr(error, 'value', 'unknown')}"


def failures() -> tuple[type[Exception], ...]:
    """What nvidia-ml-py raises; its own error of a library that is older than the call is no NVMLError."""
    import pynvml

    return pynvml.NVMLError, pynvml.NVMLLibraryMismatchError


def read(call: Callable[[], T]) -> T | None:
    """One reading; None where this device, driver or permission does not give it."""
    try:
        return call()
    except failures():
        return None


class NvmlEnergy:
    """The total-energy counter of a GPU (Volta and newer), in joules since it was opened, and the power right now.

    `period_s` is how often the counter moves, measured; None where it did not move in PATIENCE_S.
    """

    source = "NVML total energy counter"

    def __init__(self, device: Gpu) -> None:
        self._gpu = device
        self._start = self._millijoules()
        self.period_s = counter_period(self._millijoules)

    def joules(self) -> float:
        """Raises SensorLost where the driver no longer answers, or the counter went backwards (a driver reload)."""
        moved = self._millijoules() - self._start
        if moved < 0:
            raise SensorLost("NVML's energy counter went backwards: the driver was reloaded")
        return moved * 1e-3

    def watts(self) -> float | None:
        return power_w(self._gpu)

    def _millijoules(self) -> int:
        import pynvml

        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu.handle))
        except failures() as error:
            raise SensorLost(in_words(error)) from None


def energy_meter(device: Gpu) -> NvmlEnergy | str:
    """A meter of the GPU's counter, or the reason why there is none."""
    if device.is_mig:
        return "a MIG instance has no energy counter: its GPU's counts the other instances too"
    try:
        return NvmlEnergy(device)
    except SensorLost as error:
        return f"no energy counter of this device: {error}"


def counter_period(value: Callable[[], int], clock: Callable[[], float] = perf_counter) -> float | None:
    """Median seconds between changes of a counter, from TICKS of them; None where it does not move that often."""
    stamps: list[float] = []
    last, began = value(), clock()
    while len(stamps) <= TICKS:
        now = value()
        stamp = clock()
        if now != last:
            stamps.append(stamp)
            last = now
        elif stamp - began > PATIENCE_S:
            break
        time.sleep(POLL_S)
    gaps = [after - before for before, after in pairwise(stamps)]
    return statistics.median(gaps) if gaps else None


def power_w(device: Gpu) -> float | None:
    """Watts right now: the instantaneous reading where there is one (Hopper's other one is a mean over a second)."""
    import pynvml

    instant = _field(device, pynvml.NVML_FI_DEV_POWER_INSTANT)
    if instant is not None:
        return instant / 1000.0
    average = read(lambda: pynvml.nvmlDeviceGetPowerUsage(device.handle))
    return None if average is None else average / 1000.0


def _field(device: Gpu, number: int) -> float | None:
    """One field value, by the type that NVML says it has; None where it is not supported."""
    import pynvml

    found = read(lambda: pynvml.nvmlDeviceGetFieldValues(device.handle, [number]))
    if found is None or found[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    members = {
        pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
        pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
        pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    }
    member = members.get(found[0].valueType)
    return None if member is None else float(getattr(found[0].value, member))


def identity(device: Gpu) -> dict[str, Any]:
    """UUID, enforced power limit in watts, MIG or not, driver; None for what cannot be read."""
    import pynvml

    limit = read(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(device.whole))
    mode = read(lambda: pynvml.nvmlDeviceGetMigMode(device.whole))
    return {
        "uuid": read(lambda: pynvml.nvmlDeviceGetUUID(device.handle)),
        "power_limit_w": None if limit is None else limit / 1000.0,
        "mig": True if device.is_mig else None if mode is None else bool(mode[0]),
        "driver": read(pynvml.nvmlSystemGetDriverVersion),
    }


def memory_used_bytes(device: Gpu) -> int | str:
    """What the driver says is used on the whole device (of a MIG instance: in it), or why it does not say."""
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(device.handle).used)
    except failures() as error:
        return in_words(error)


def counters(device: Gpu) -> dict[str, float | None]:
    """Seconds since boot that the clocks were held down by power and by heat; only differences mean anything."""
    import pynvml

    fields = {
        "power_throttled_s": pynvml.NVML_FI_DEV_PERF_POLICY_POWER,
        "thermal_throttled_s": pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
    }
    found = {name: _field(device, number) for name, number in fields.items()}
    return {name: None if nanoseconds is None else nanoseconds * 1e-9 for name, nanoseconds in found.items()}


def state(device: Gpu, before: dict[str, float | None]) -> dict[str, Any]:
    """The GPU now, and what its counters counted since `before`; None for what cannot be read."""
    import pynvml

    after = counters(device)
    reasons = read(lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(device.whole))
    processes = read(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(device.handle))
    return {
        "sm_clock_mhz": read(lambda: pynvml.nvmlDeviceGetClockInfo(device.whole, pynvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": read(lambda: pynvml.nvmlDeviceGetClockInfo(device.whole, pynvml.NVML_CLOCK_MEM)),
        "temperature_c": read(lambda: pynvml.nvmlDeviceGetTemperature(device.whole, pynvml.NVML_TEMPERATURE_GPU)),
        "power_w": power_w(device),
        "throttle_reasons": reasons,
        "throttled_by": None if reasons is None else throttled_by(reasons),
        "foreign_processes": None if processes is None else foreign([p.pid for p in processes], os.getpid()),
        **{name: _difference(before.get(name), value) for name, value in after.items()},
    }


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def throttled_by(reasons: int) -> list[str]:
    """NVML's bits in words; bits that this version does not know stay numbers."""
    known = [words for bit, words in THROTTLE_REASONS.items() if reasons & bit]
    rest = reasons & ~sum(THROTTLE_REASONS)
    return [*known, *([f"unknown bits 0x{rest:x}"] if rest else [])]


def foreign(pids: Sequence[int], own: int) -> int:
    """Compute processes that are not this one. In a PID namespace NVML's numbers are the host's: then one is ours."""
    others = [pid for pid in pids if pid != own]
    return len(others) if len(others) < len(pids) else max(0, len(others) - 1)
