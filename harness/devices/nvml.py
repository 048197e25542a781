"""The sensors of one NVIDIA GPU through NVML (nvidia-ml-py): energy, power, clocks, throttling, identity, processes.

Nothing here needs torch or CUDA. A reading that the device, the driver or the permissions do not give is None or a
reason, never 0. A MIG instance has no energy counter and no power reading of its own. Those of its GPU would
include the work of other instances, so they are not used. A value that the driver marks as not available (all bits set)
is missing, too. Tested against a stub of the library; not yet proven on hardware.
"""

from __future__ import annotations

import functools
import operator
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from harness.devices import SensorLost
from harness.devices.neighbours import foreign
from harness.devices.nvml_calls import (
    NOT_AVAILABLE,
    NOT_AVAILABLE_64,
    failure,
    failures,
    field,
    never_split,
    number,
    processes,
    read,
    throttle_reasons,
)
from harness.reasons import Reason
from harness.timing import perf_counter

TICKS: Final = 4  # periods of the energy counter whose median is its period
FEWEST_TICKS: Final = 2  # accepted if the counter is slow
PATIENCE_S: Final = 5.0  # NVML's slowest known counter moves every 100 ms; one of 1 s is measured too
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
    0x200: "board limit",
    0x400: "reliability",
}
# Seconds since boot in which each policy lowered the clocks, by NVML's counter; then those below two clocks. The
# counters of single thermal reasons (CLOCKS_EVENT_REASON_*_SLOWDOWN) are not read: their numbers were moved from 251 to
# 269 between nvidia-ml-py 13.580.65 and 13.580.82, so that the same number is another quantity with another driver.
COUNTED: Final = {
    "power_throttled_s": "NVML_FI_DEV_PERF_POLICY_POWER",
    "thermal_throttled_s": "NVML_FI_DEV_PERF_POLICY_THERMAL",
    "sync_boost_throttled_s": "NVML_FI_DEV_PERF_POLICY_SYNC_BOOST",
    "board_limit_throttled_s": "NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT",
    "reliability_throttled_s": "NVML_FI_DEV_PERF_POLICY_RELIABILITY",
    "low_utilization_s": "NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION",
    "below_application_clocks_s": "NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS",
    "below_base_clocks_s": "NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS",
}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, or a MIG instance. Readings of the instance use `handle`, those of the GPU use `whole`."""

    handle: Any
    whole: Any
    is_mig: bool


def gpu(uuid: str) -> Gpu | Reason:
    """The GPU of that UUID, with or without its "GPU-" or "MIG-", or the reason why NVML cannot give it."""
    try:
        import pynvml
    except ImportError:
        return Reason("nvml_not_installed")

    given = uuid.removeprefix("GPU-").removeprefix("MIG-")
    first: Exception | None = None
    try:
        pynvml.nvmlInit()
    except failures() as error:
        return failure(error)
    for prefix in [p for p in ("GPU-", "MIG-") if uuid == given or uuid.startswith(p)]:
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"{prefix}{given}")
        except failures() as error:
            first = first or error
            continue
        return _placed(handle, prefix == "MIG-")
    return failure(first)


def _placed(handle: Any, named_mig: bool) -> Gpu:
    import pynvml

    is_mig = named_mig or bool(getattr(read(lambda: pynvml.nvmlDeviceIsMigDeviceHandle(handle)), "value", 0))
    whole = read(lambda: pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)) if is_mig else handle
    return Gpu(handle=handle, whole=whole if whole is not None else handle, is_mig=is_mig)


def mig_mode(device: Gpu) -> bool | Reason | None:
    """Whether the GPU is split into MIG instances now; None if it has no MIG, the reason if the driver does not report
    it."""
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMigMode(device.whole)[0]) == 1
    except never_split():
        return None
    except failures() as error:
        return Reason("mig_unknown", {"reason": failure(error)})


def not_ours_alone(device: Gpu) -> Reason | None:
    """Why the counters of the whole GPU do not show only what this process did, or None."""
    if device.is_mig:
        return Reason("mig_instance_has_no_counter")
    return _split(device)


def _split(device: Gpu) -> Reason | None:
    """Why the figures of `device.handle` include other MIG instances, or may include them; None if they do not."""
    if device.is_mig:
        return None
    mode = mig_mode(device)
    if isinstance(mode, Reason):
        return mode
    return Reason("mig_counts_all") if mode else None


class NvmlEnergy:
    """The total-energy counter of a GPU (Volta and newer), in joules since it was opened, and the power right now.

    `period_s` is the measured time between two updates; None if there were fewer than FEWEST_TICKS in PATIENCE_S.
    """

    source = "NVML total energy counter"

    def __init__(self, device: Gpu) -> None:
        self._gpu = device
        self._last = 0
        self._lost: Reason | None = None
        self._start = self._millijoules()
        self.period_s = counter_period(self._millijoules)

    def joules(self) -> float:
        """Raises SensorLost, now and in every later call, if the driver no longer answers or the counter went
        backwards."""
        return (self._millijoules() - self._start) * 1e-3

    def watts(self) -> float | None:
        return power_w(self._gpu)

    def _millijoules(self) -> int:
        import pynvml

        try:
            value = int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu.handle))
        except failures() as error:
            raise self._lose(failure(error)) from None
        if self._lost is not None:
            raise SensorLost(self._lost)
        if value == NOT_AVAILABLE_64:
            raise self._lose(Reason("nvml_counter_not_available"))
        if value < self._last:
            raise self._lose(Reason("nvml_counter_went_backwards"))
        self._last = value
        return value

    def _lose(self, reason: Reason) -> SensorLost:
        """Stores the reason, because joules from before and after a loss must not be subtracted."""
        self._lost = self._lost or reason
        return SensorLost(self._lost)


def energy_meter(device: Gpu) -> NvmlEnergy | Reason:
    """A meter of the GPU's counter, or the reason why there is none."""
    if reason := not_ours_alone(device):
        return reason
    try:
        return NvmlEnergy(device)
    except SensorLost as error:
        return Reason("no_energy_counter", {"reason": error.reason})


def counter_period(value: Callable[[], int], clock: Callable[[], float] = perf_counter) -> float | None:
    """Median seconds between changes of a counter, over TICKS of its periods, or as many as PATIENCE_S allows; None if
    those are fewer than FEWEST_TICKS."""
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
    import statistics  # late: it imports decimal and random, and every command imports this module

    return statistics.median(gaps) if len(gaps) >= FEWEST_TICKS else None


def power_w(device: Gpu) -> float | None:
    """The present power in watts: the instantaneous reading if there is one (Hopper's other one is a mean over a
    second). None if it would include other MIG instances."""
    import pynvml

    if not_ours_alone(device):
        return None
    instant = field(device.handle, "NVML_FI_DEV_POWER_INSTANT")
    if instant:  # 0 is no reading: a GPU that is on draws power
        return instant / 1000.0
    average = number(lambda: pynvml.nvmlDeviceGetPowerUsage(device.handle))
    return average / 1000.0 if average else None


def identity(device: Gpu) -> dict[str, Any]:
    """UUID, enforced power limit in watts, MIG or not, driver; None for what cannot be read."""
    import pynvml

    limit = number(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(device.whole))
    mode = True if device.is_mig else mig_mode(device)
    return {
        "uuid": read(lambda: pynvml.nvmlDeviceGetUUID(device.handle)),
        "power_limit_w": None if limit is None else limit / 1000.0,
        "mig": None if isinstance(mode, Reason) else mode,
        "driver": read(pynvml.nvmlSystemGetDriverVersion),
    }


def memory_used_bytes(device: Gpu) -> int | Reason:
    """The memory in use on the whole device (for a MIG instance: in the instance), including the driver's own share; or
    why the driver does not report it."""
    import pynvml

    if reason := _split(device):
        return reason
    reserved = 0
    try:
        used = int(pynvml.nvmlDeviceGetMemoryInfo(device.handle).used)
    except failures() as error:
        second = read(lambda: pynvml.nvmlDeviceGetMemoryInfo(device.handle, version=pynvml.nvmlMemory_v2))
        if second is None:
            return failure(error)
        used, reserved = int(second.used), int(second.reserved)  # one figure in the first version
    return Reason("nvml_memory_not_available") if NOT_AVAILABLE_64 in (used, reserved) else used + reserved


def counters(device: Gpu) -> dict[str, Any]:
    """Seconds since boot in which the clocks were held down, by cause (COUNTED); only differences of them are
    meaningful. Also what holds the clocks down at this moment, and how many other processes compute."""
    found = {name: field(device.handle, identifier) for name, identifier in COUNTED.items()}
    pids = None if _split(device) else processes(device.handle)
    return {
        **{name: None if nanoseconds is None else nanoseconds * 1e-9 for name, nanoseconds in found.items()},
        "throttle_reasons": throttle_reasons(device.whole),
        "foreign_processes": None if pids is None else foreign(pids, os.getpid()),
    }


def state(device: Gpu, before: dict[str, Any]) -> dict[str, Any]:
    """The GPU now, and what its counters counted since `before`; None for what cannot be read.

    The causes that held the clocks down and the other processes are those seen before or after.
    """
    after = counters(device)
    reasons = _either(before, after, "throttle_reasons", operator.or_)
    return {
        **sensors(device),
        "throttle_reasons": reasons,
        "throttled_by": None if reasons is None else throttled_by(reasons),
        "foreign_processes": _either(before, after, "foreign_processes", max),
        **{name: _difference(before.get(name), after[name]) for name in COUNTED},
    }


def sensors(device: Gpu) -> dict[str, Any]:
    """Clocks in MHz, temperature, power in watts and what holds the clocks down at this moment; None for what cannot
    be read."""
    import pynvml

    reasons = throttle_reasons(device.whole)
    return {
        "sm_clock_mhz": number(lambda: pynvml.nvmlDeviceGetClockInfo(device.whole, pynvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": number(lambda: pynvml.nvmlDeviceGetClockInfo(device.whole, pynvml.NVML_CLOCK_MEM)),
        "temperature_c": _temperature_c(device),
        "power_w": power_w(device),
        "throttled_by": None if reasons is None else throttled_by(reasons),
    }


def _temperature_c(device: Gpu) -> int | None:
    """Uses the older call if the driver lacks the newer one, which alone gives the sign."""
    import pynvml

    sensor = pynvml.NVML_TEMPERATURE_GPU
    for name, absent in (("nvmlDeviceGetTemperatureV", -1), ("nvmlDeviceGetTemperature", NOT_AVAILABLE)):
        found = number(lambda name=name: getattr(pynvml, name)(device.whole, sensor), absent)  # type: ignore[misc]
        if found is not None:
            return found - 2**32 if found >= 2**31 else found
    return None


def _either(before: dict[str, Any], after: dict[str, Any], name: str, both: Callable[[int, int], int]) -> int | None:
    """`both` of the two readings; the only reading if there is one; None if there is none."""
    there: list[int] = [found[name] for found in (before, after) if found.get(name) is not None]
    return functools.reduce(both, there) if there else None


def _difference(before: float | None, after: float | None) -> float | None:
    """After minus before; None if one is missing, or if the counter went backwards because the driver was reloaded."""
    return None if before is None or after is None or after < before else after - before


def throttled_by(reasons: int) -> list[str]:
    """NVML's bits in words; bits that this version does not know stay numbers."""
    known = [words for bit, words in THROTTLE_REASONS.items() if reasons & bit]
    rest = reasons & ~sum(THROTTLE_REASONS)
    return [*known, *([f"unknown bits 0x{rest:x}"] if rest else [])]
