"""The CPU: peak host memory from the kernel, energy from RAPL, and the state of a shared machine.

Peak host memory is VmHWM of this worker, reset through /proc/self/clear_refs (5) before the memory pass: `ru_maxrss`
cannot be reset, and a fork inherits the parent's. VmHWM counts every resident page of the process, including those of
libraries that were loaded before the model.

The CPU time of other processes is read for the CPUs that this process may use. On a host with 64 cores, load on the
other 62 does not count as contention of a container with two.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from harness.devices import EnergyMeter, SensorLost, Stopwatch, cgroup
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.timing import perf_counter
from harness.types import Samples

PROC = Path("/proc")
POWERCAP = Path("/sys/class/powercap")
CPUS: Final = Path("/sys/devices/system/cpu")
UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30}
NO_MEMORY: Final = Reason("memory_of_host")
NO_PEAK: Final = Reason("no_host_peak")
COUNTED_S: Final = 0.05  # own CPU time after which the counters of a kernel that counts have advanced
# Read at import, before a worker is bound to fewer: processes on the others still compete for caches and memory.
ALLOWED_CPUS: Final = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


@DEVICES.add("cpu")
class Cpu:
    name = "cpu"
    torch_device = "cpu"
    is_gpu = False
    preference = 0
    shortest_sample_s = 2e-4

    def unavailable(self) -> Reason | None:
        """None: a CPU is always available."""
        return None

    def unusable(self) -> Reason | None:
        """None: every process can use the CPU."""
        return None

    def cache_bytes(self) -> int | Reason:
        return last_level_bytes(CPUS, ALLOWED_CPUS)

    def release_memory(self) -> None:
        """Does nothing: torch keeps no memory on a CPU."""

    def synchronize(self) -> None:
        """Does nothing: work on a CPU is done when the call returns."""

    def stopwatch(self) -> Stopwatch | Reason:
        return Reason("clock_of_host")

    def reset_memory_peaks(self) -> None:
        self._refused = reset_host_peak()

    def memory_peaks(self) -> tuple[Samples, dict[str, Reason]]:
        missing = dict.fromkeys(("peak_allocated_bytes", "peak_reserved_bytes", "peak_driver_bytes"), NO_MEMORY)
        peak = host_peak_bytes()
        if peak is None or self._refused:
            return {}, {**missing, "peak_host_bytes": self._refused or NO_PEAK}
        return {"peak_host_bytes": [float(peak)]}, missing

    def driver_memory_bytes(self) -> int | Reason:
        return NO_MEMORY

    def energy_meter(self) -> EnergyMeter | Reason:
        return rapl_meter(POWERCAP)

    def sensors(self) -> Callable[[], dict[str, Any]] | None:
        return None

    def start_span(self) -> dict[str, Any]:
        return host_counters()

    def span_state(self, before: dict[str, Any]) -> dict[str, Any]:
        return host_state(before)

    def describe(self) -> dict[str, Any]:
        return {"device": "cpu", "device_name": cpu_model() or "unknown CPU", "gpus": [], "driver": None, "cuda": None}


def reset_host_peak() -> Reason | None:
    """Sets the peak resident set of this process to its present size. Returns why the kernel did not, or None."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError as error:
        return Reason("host_peak_not_reset", {"error": str(error.strerror)})
    return None


def host_peak_bytes() -> int | None:
    """Peak resident bytes of this process since the last reset; None if /proc does not report them."""
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int | None:
    for line in _lines(PROC / "self/status"):
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def cpu_model() -> str | None:
    return next(
        (line.split(":", 1)[1].strip() for line in _lines(PROC / "cpuinfo") if line.startswith("model name")), None
    )


class Rapl:
    """Joules of all CPU packages; each counter wraps at its max_energy_range_uj, and every read adds the difference."""

    source = "RAPL"
    period_s: float | None = 0.001  # RAPL's period, from the processor's manual

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last = [self._read(zone) for zone in zones]
        self._total = 0

    @staticmethod
    def _read(zone: Path) -> int:
        return int((zone / "energy_uj").read_text())

    def watts(self) -> float | None:
        """None: RAPL counts energy only."""
        return None

    def joules(self) -> float:
        """The joules counted so far. Raises SensorLost if a zone can no longer be read."""
        for i, zone in enumerate(self._zones):
            try:
                value = self._read(zone)
            except (OSError, ValueError) as error:
                raise SensorLost(Reason("rapl_zone_lost", {"zone": zone.name, "error": str(error)})) from None
            step = value - self._last[i]
            self._total += step if step >= 0 else step + self._ranges[i]
            self._last[i] = value
        return self._total * 1e-6


def rapl_meter(root: Path) -> Rapl | Reason:
    """A meter over the package zones below `root`, or the reason why there is none."""
    zones = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    if not zones:
        return Reason("no_rapl_zone", {"folder": str(root)})
    try:
        # "psys" is the whole platform and holds the packages, which would count twice.
        packages = [z for z in zones if (z / "name").read_text().startswith("package")]
        return Rapl(packages) if packages else Reason("no_rapl_package", {"folder": str(root)})
    except PermissionError:
        return Reason("rapl_not_permitted", {"file": str(zones[0] / "energy_uj")})
    except (OSError, ValueError) as error:
        return Reason("rapl_unreadable", {"error": str(error)})


def host_counters() -> dict[str, Any]:
    """Monotonic counters that show whether other processes used the machine; None for one that cannot be read."""
    usage, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    busy, steal = _cpu_ticks()
    return {
        "elapsed_s": perf_counter(),
        "pressure_cpu_us": _pressure("cpu"),
        "pressure_memory_us": _pressure("memory"),
        "steal_ticks": steal,
        "busy_ticks": busy,
        "own_cpu_s": sum(u.ru_utime + u.ru_stime for u in (usage, children)),
        "involuntary_switches": usage.ru_nivcsw,
        "throttled_periods": cgroup.throttled_periods(),
    }


def host_state(before: dict[str, Any]) -> dict[str, Any]:
    """What changed since `before`, with the number of CPUs that were watched, the load average and the CPU frequency.

    `other_cpu_s` is the CPU time that other processes used meanwhile, which shows contention. It and `steal_s` are None
    if the kernel does not count them.
    """
    return host_difference(before, host_counters())


def host_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The same between two readings of `host_counters`."""
    changed = {k: after[k] - before[k] if None not in (after[k], before[k]) else None for k in after}
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    busy = changed.pop("busy_ticks")
    steal = changed.pop("steal_ticks")
    own = after["own_cpu_s"] - before["own_cpu_s"]
    if busy is None or steal is None or not _counts((busy + steal) / ticks_per_s, own):
        neighbours = {"steal_s": None, "other_cpu_s": None}
    else:
        neighbours = {"steal_s": steal / ticks_per_s, "other_cpu_s": max(0.0, busy / ticks_per_s - own)}
    return {
        **changed,
        **neighbours,
        "cores": len(ALLOWED_CPUS) or None,
        "load_1min": os.getloadavg()[0],
        "cpu_mhz": _frequency(),
    }


def _counts(counted_s: float, own_s: float) -> bool:
    """Whether /proc/stat counts at all. In gVisor and in some containers it does not advance while this process
    works."""
    return own_s <= COUNTED_S or counted_s >= own_s / 2


def _cpu_ticks() -> tuple[int | None, int | None]:
    """(user + nice + system + irq + softirq, steal) ticks since boot of the CPUs that this process may use; of all CPUs
    if those have no lines of their own (a container may renumber its CPUs)."""
    rows = [line.split() for line in _lines(PROC / "stat") if line.startswith("cpu")]
    ticks = {row[0]: [int(v) for v in row[1:9]] for row in rows if len(row) > 8}
    names = [f"cpu{number}" for number in ALLOWED_CPUS]
    chosen = [ticks[name] for name in (names if names and ticks.keys() >= set(names) else ["cpu"]) if name in ticks]
    if not chosen:
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (sum(column) for column in zip(*chosen, strict=True))
    return user + nice + system + irq + softirq, steal


def _pressure(resource_name: str) -> int | None:
    for line in _lines(PROC / "pressure" / resource_name):
        if line.startswith("some"):
            return int(line.rsplit("total=", 1)[1])
    return None


def _frequency() -> float | None:
    found = [float(line.split(":")[1]) for line in _lines(PROC / "cpuinfo") if line.startswith("cpu MHz")]
    return sum(found) / len(found) if found else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def last_level_bytes(root: Path, cpus: tuple[int, ...]) -> int | Reason:
    """The total size in bytes of the last-level caches of `cpus`, each counted once; or the reason why the kernel does
    not report it below `root`."""
    found: dict[str, int] = {}
    for cpu in cpus:
        try:
            caches = [_cache(folder) for folder in sorted((root / f"cpu{cpu}/cache").glob("index*"))]
        except (OSError, ValueError, KeyError, IndexError):
            caches = []
        _, shared, size = max(filter(None, caches), default=(0, "", 0))
        if not size:
            return Reason("caches_not_listed", {"cpu": cpu, "folder": f"{root}/cpu{cpu}/cache"})
        found[shared] = size
    return sum(found.values()) or Reason("cpus_unknown")


def _cache(folder: Path) -> tuple[int, str, int] | None:
    """(level, the CPUs that share it, bytes) of one cache; None for one that holds instructions alone."""
    level, kind, shared, size = (
        (folder / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "shared_cpu_list", "size")
    )
    if kind == "Instruction":
        return None
    return int(level), shared, int(size[:-1]) * UNITS[size[-1]]
