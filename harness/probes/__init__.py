"""Probes by name. Each makes a pass of its own, so that none affects the latency samples.

A new metric is one file here: `@probe("name", order=..., metrics=(Metric(...),))` on a function Trial -> Findings.
Probes run in the order of their numbers. One with `first_process_only` runs in the first process of a case only. For
one with a `state` the machine's state during its whole pass is recorded under that name. A probe that makes the process
slower has the number AFTER_CONTROL_WORKLOAD or a higher one, and nothing is timed after it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.measuring.trial import Findings, Trial
from harness.registry import PROBES
from harness.types import Metric

AFTER_CONTROL_WORKLOAD: Final = 100


@dataclass(frozen=True, kw_only=True)
class Probe:
    name: str
    order: int
    metrics: tuple[Metric, ...]
    first_process_only: bool
    collect: Callable[[Trial], Findings]
    state: str | None = None


def probe(
    name: str, *, order: int, metrics: tuple[Metric, ...], first_process_only: bool = False, state: str | None = None
) -> Callable[[Callable[[Trial], Findings]], Callable[[Trial], Findings]]:
    def decorate(collect: Callable[[Trial], Findings]) -> Callable[[Trial], Findings]:
        entry = Probe(
            name=name,
            order=order,
            metrics=metrics,
            first_process_only=first_process_only,
            collect=collect,
            state=state,
        )
        PROBES.register(name, entry)
        return collect

    return decorate


def in_order(replicate: int, only: tuple[str, ...] | None = None) -> list[Probe]:
    """The probes that process number `replicate` (0 is the first) of a case runs; where `only` is given, those that it
    names, in whichever process."""
    if only is None:
        chosen = [p for p in PROBES.values() if replicate == 0 or not p.first_process_only]
    else:
        chosen = [p for p in PROBES.values() if p.name in only]
    return sorted(chosen, key=lambda p: p.order)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
