"""How many CPU threads a run uses, and which rule decided it.

--threads N comes first, then OMP_NUM_THREADS, then MKL_NUM_THREADS (the order in which torch reads them). Without any
of them the number is the smallest of what the machine has, what the process may use (its affinity mask), what the
cgroup's CPU quota allows (rounded down, at least 1) and OMP_THREAD_LIMIT. The kernel throttles threads beyond the quota
in the middle of their work: the throughput falls, and the median latency does not show it.

A user may request more threads. The row then has the warning that `warnings` returns. OPENBLAS_NUM_THREADS is not read,
because the networks do not run on numpy's OpenBLAS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from harness.devices import cgroup
from harness.reasons import Reason


class ThreadsRefused(ValueError):
    """A variable that sets the number of threads holds no number; `str()` is one line for the user."""


class Source(StrEnum):
    """Which rule decided the number of threads; stored as it is written here."""

    CORES = "cores"
    AFFINITY = "affinity"
    QUOTA = "quota"
    OMP_THREAD_LIMIT = "OMP_THREAD_LIMIT"
    OMP_NUM_THREADS = "OMP_NUM_THREADS"
    MKL_NUM_THREADS = "MKL_NUM_THREADS"
    ASKED = "--threads"


ASKING: Final = (Source.OMP_NUM_THREADS, Source.MKL_NUM_THREADS)  # variables; the first one that is set decides


@dataclass(frozen=True, kw_only=True)
class Threads:
    """A number of threads and the rule that decided it."""

    count: int
    source: Source


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the process may use: logical `cores` of the machine, those of its `affinity` mask, the cores that the
    tightest CPU `quota` of its cgroups allows, and OMP_THREAD_LIMIT as `limit` (None: there is none)."""

    cores: int
    affinity: int
    quota: float | None = None
    limit: int | None = None

    @property
    def threads(self) -> Threads:
        """The number that can run at once, and the rule that limits it (the first of several equal ones)."""
        bounds = {Source.CORES: self.cores, Source.AFFINITY: self.affinity}
        if self.quota is not None:
            bounds[Source.QUOTA] = max(1, int(self.quota))
        if self.limit is not None:
            bounds[Source.OMP_THREAD_LIMIT] = self.limit
        source = min(bounds, key=lambda name: bounds[name])
        return Threads(count=bounds[source], source=source)


def allowed() -> Allowed:
    """What this process may use now. Raises ThreadsRefused."""
    cores = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    limit = _variable(Source.OMP_THREAD_LIMIT)
    return Allowed(cores=cores, affinity=affinity, quota=cgroup.allowed_cores(), limit=limit)


def chosen(asked: int | None, spare: int = 0) -> Threads:
    """The threads of a run. `asked` is --threads; if nothing sets a number, `spare` cores are left free. Raises
    ThreadsRefused."""
    if asked is not None:
        return Threads(count=asked, source=Source.ASKED)
    for source in ASKING:
        if (count := _variable(source)) is not None:
            return Threads(count=count, source=source)
    most = allowed().threads
    return replace(most, count=max(1, most.count - spare))


def warnings(count: int, may_use: Allowed) -> tuple[Reason, ...]:
    """The warning of a row with more threads than can run at once, or nothing."""
    most = may_use.threads
    if count <= most.count:
        return ()
    bounds = {Source.QUOTA: may_use.quota, Source.OMP_THREAD_LIMIT: may_use.limit}
    data = {"threads": count, "limit": str(most.source), "allowed": bounds.get(most.source, most.count)}
    return (Reason("oversubscribed", {**data, "fits": most.count}),)


def in_words(environment: Mapping[str, Any]) -> str | None:
    """The threads of a stored environment and the rule: "1 (the CPU quota of 1.5 cores)". The number alone where the
    run is from before the rule was stored, None where there is no number.

    >>> in_words({"threads": 1, "threads_from": "quota", "cpu": {"quota": 1.5}})
    '1 (the CPU quota of 1.5 cores)'
    >>> in_words({"threads": 2, "threads_from": "--threads", "flags": {"OMP_NUM_THREADS": "4"}})
    '2 (--threads, which overrides OMP_NUM_THREADS=4)'
    """
    count, known = environment.get("threads"), environment.get("threads_from")
    if count is None or known not in list(Source):
        return None if count is None else str(count)
    source, cpu, flags = Source(known), environment.get("cpu") or {}, environment.get("flags") or {}
    if source in {Source.ASKED, *ASKING}:
        others = [
            f"{name}={flags[name]}" for name in ASKING if name != source and flags.get(name, str(count)) != str(count)
        ]
        overrides = f", which overrides {' and '.join(others)}" if others else ""
        return f"{count} ({source}{overrides})"
    words = {
        Source.CORES: "the cores of the machine",
        Source.AFFINITY: "the cores that the process may use",
        Source.QUOTA: f"the CPU quota of {_cores(cpu.get('quota') or 0)}",
        Source.OMP_THREAD_LIMIT: "OMP_THREAD_LIMIT",
    }[source]
    bounds = {
        Source.CORES: cpu.get("logical_cores"),
        Source.AFFINITY: cpu.get("cores_allowed"),
        Source.QUOTA: cpu.get("quota"),
    }
    free = int(bounds.get(source) or count) - count
    return f"{count} ({words}{f'; {free} is left free' if free > 0 else ''})"


def _variable(name: Source) -> int | None:
    """The number in a variable, the first one of a list ("4,2") as in OpenMP; None if it is unset or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    first = text.split(",")[0].strip() if name is Source.OMP_NUM_THREADS else text
    if not first.isascii() or not first.isdigit() or int(first) < 1:
        raise ThreadsRefused(f"{name}={text!r} must be a whole number of at least 1; unset it or correct it")
    return int(first)


def _cores(number: float) -> str:
    return f"{number:g} core" if number == 1 else f"{number:g} cores"
