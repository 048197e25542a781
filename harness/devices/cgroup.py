"""The control groups (v1 or v2) of this process: their CPU quota, how often they throttled it, their memory, and how
often the kernel's out-of-memory killer ended a process in them.

A quota of any ancestor throttles a process, so all groups up to the root are read. In a container the root of the tree
is its own group, and the path that /proc names may not exist there. A group that does not exist has no quota.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
ROOT = Path("/sys/fs/cgroup")


def throttled_periods() -> int | None:
    """The periods in which a quota throttled this process's groups since their creation; None if no group counts
    them."""
    counts = [
        int(line.split()[1])
        for group in _groups()
        for line in _lines(group / "cpu.stat")
        if line.startswith("nr_throttled ")
    ]
    return sum(counts) if counts else None


def allowed_cores() -> float | None:
    """The number of cores that the tightest quota allows; None if there is no quota."""
    quotas = [quota for group in _groups() if (quota := _quota(group)) is not None]
    return min(quotas) if quotas else None


def free_memory_bytes() -> int | None:
    """The memory that new processes can take: what the kernel calls available, or what the tightest limit of a group
    leaves if that is less. None if the kernel does not say."""
    available = [1024 * int(line.split()[1]) for line in _lines(PROC / "meminfo") if line.startswith("MemAvailable:")]
    left = [limit - used for group in _groups("memory") for limit, used in _memory(group)]
    return max(0, min([*available, *left])) if available else None


def _memory(group: Path) -> Iterator[tuple[int, int]]:
    """(limit, use) in bytes of a group that has a limit. File caches are not use: the kernel gives them back."""
    for limit_file, use_file in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit, used = _lines(group / limit_file), _lines(group / use_file)
        if limit and used and limit[0].isdigit():
            names = ("inactive_file ", "total_inactive_file ")
            caches = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith(names)]
            yield int(limit[0]), int(used[0]) - max(caches, default=0)


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer has killed: on the whole machine since boot, plus in each group of
    this process since the group was created. Only an increase means anything. All counters are added, because a
    container may not see the machine's, or the files of its own group."""
    machine = [line.split() for line in _lines(PROC / "vmstat") if line.startswith("oom_kill ")]
    groups = [
        line.split()
        for group in _groups("memory")
        for name in ("memory.events", "memory.events.local", "memory.oom_control")
        for line in _lines(group / name)
        if line.startswith(("oom_kill ", "oom_group_kill "))
    ]
    return sum(int(count) for _, count in (*machine, *groups))


def _quota(group: Path) -> float | None:
    both = " ".join(_lines(group / "cpu.max")).split()  # version 2: "150000 100000" or "max 100000"
    both = both or [*_lines(group / "cpu.cfs_quota_us"), *_lines(group / "cpu.cfs_period_us")]  # version 1: -1 is none
    if len(both) != 2 or both[0] in {"max", "-1"}:
        return None
    return int(both[0]) / int(both[1])


def _groups(controller: str = "cpu") -> Iterator[Path]:
    """The folders of the groups that may limit what `controller` controls, each once, from the process's own up to the
    root."""
    seen = set()
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers and controller not in names:
            continue
        mounts = [ROOT, ROOT / "unified"] if not controllers else [ROOT / controllers, ROOT / controller]
        for mount in mounts:
            here = Path(path.lstrip("/"))
            for group in (mount / here, *(mount / parent for parent in here.parents)):
                if group not in seen and group.is_dir():
                    seen.add(group)
                    yield group


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
