"""Probes by name. Each makes a pass of its own, so that none affects the latency samples.

A new metric is one file here: `@probe("name", order=..., metrics=(Metric(...),))` on a function Trial -> Findings.
Probes run in the order of their numbers. One with `first_process_only` runs in the first process of a case only. For
one with a `state` the machine's state during its whole pass is recorded under that name. A probe that makes the process
slower has the number AFTER_CONTROL_WORKLOAD or a higher one, and nothing is timed after it.

A probe gives the metrics that it declares and no others, and no two probes declare the same one. `further` names those
of another probe that this one gives in some rows. A probe `of_workload` also gives the metrics that only the workload
knows: the seconds of its networks, and its quality.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from harness import entries
from harness.entries import BadEntry
from harness.measuring.trial import Findings, Trial
from harness.quoting import quoted
from harness.reasons import Reason
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
    further: tuple[str, ...] = ()
    of_workload: bool = False


FIELDS: Final = {
    "order": entries.NUMBER,
    "metrics": entries.Rule(
        lambda value: isinstance(value, tuple) and all(isinstance(m, Metric) for m in value),
        "a tuple of harness.types.Metric",
    ),
    "first_process_only": entries.BOOLEAN,
    "collect": entries.FUNCTION,
    "state": entries.optional(entries.LINE),
    "further": entries.NAMES,
    "of_workload": entries.BOOLEAN,
}


@PROBES.checked_by
def _check(subject: str, name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Probe)
    entries.demand_name(subject, entry, name)
    entries.demand(subject, entry, FIELDS)
    own = [metric.name for metric in entry.metrics]
    if twice := next((metric for metric in own if own.count(metric) > 1), None):
        raise BadEntry(f"{subject}: it declares the metric {quoted(twice)} twice")
    taken = {metric.name: other.name for other in PROBES.values() for metric in other.metrics}
    if stolen := next((metric for metric in own if metric in taken), None):
        raise BadEntry(f"{subject}: the probe {quoted(taken[stolen])} already has the metric {quoted(stolen)}")


def collected(entry: Probe, trial: Trial) -> Findings:
    """What a probe gives. Raises BadEntry if it gives none."""
    found: Any = entry.collect(trial)
    if not isinstance(found, Findings):
        raise BadEntry(
            f"the probe {entry.name!r} returns {quoted(found)} instead of a harness.measuring.trial.Findings"
        )
    return found


def checked(entry: Probe, found: Findings, of_workload: Collection[str]) -> Findings:
    """What a probe found. `of_workload` names the metrics that only the workload knows. Raises BadEntry for a metric
    that the probe does not declare, and for samples that are no list of numbers."""
    own = {metric.name for metric in entry.metrics}
    given = own | {*entry.further} | ({*of_workload} if entry.of_workload else set())
    for name, values in (*found.samples.items(), *found.warmup.items()):
        if name not in given:
            raise BadEntry(f"the probe {entry.name!r} gives samples of {quoted(name)}, which it does not declare")
        if not isinstance(values, list | tuple) or not all(map(entries.is_number, values)):
            raise BadEntry(f"the probe {entry.name!r}: {name}: {quoted(values)} must be a list of numbers")
    if foreign := next((name for name in found.missing if name not in given), None):
        raise BadEntry(f"the probe {entry.name!r} explains {quoted(foreign)}, which it does not declare")
    return found


def explained(entry: Probe, found: Findings) -> Findings:
    """What a probe found in the first process of a row, with a reason for each of its metrics that it neither gives nor
    explains."""
    absent = [metric.name for metric in entry.metrics if not found.samples.get(metric.name)]
    silent = dict.fromkeys(absent, Reason("not_given", {"probe": entry.name}))
    return replace(found, missing={**silent, **found.missing})


def unfinished(names: Sequence[str], reason: Reason) -> tuple[dict[str, Reason], dict[str, str]]:
    """(metric -> why it is missing, the fact of each probe) where a process ended for `reason` in the first of these
    probes. The others are not blamed: they have not run."""
    after = Reason("probe_not_run", {"after": names[0] if names else ""})
    missing: dict[str, Reason] = {}
    facts: dict[str, str] = {}
    for number, name in enumerate(names):
        facts[f"{name}_missing"] = str(after if number else reason)
        for metric in PROBES[name].metrics:
            own = after if number else Reason("probe_failed", {"probe": name, "reason": reason})
            missing[metric.name] = own
    return missing, facts


def probe(
    name: str,
    *,
    order: int,
    metrics: tuple[Metric, ...],
    first_process_only: bool = False,
    state: str | None = None,
    further: tuple[str, ...] = (),
    of_workload: bool = False,
) -> Callable[[Callable[[Trial], Findings]], Callable[[Trial], Findings]]:
    """Decorator that registers a probe. Raises DuplicateName, and BadEntry where another probe has one of its
    metrics."""

    def decorate(collect: Callable[[Trial], Findings]) -> Callable[[Trial], Findings]:
        entry = Probe(
            name=name,
            order=order,
            metrics=metrics,
            first_process_only=first_process_only,
            collect=collect,
            state=state,
            further=further,
            of_workload=of_workload,
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
