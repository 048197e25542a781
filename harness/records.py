"""Reads the records of a run from JSON and checks every field against its declared type.

    record(Case, {"model": "sd15", "batch_size": "x"})  # ValueError: case.batch_size: 'x' must be a whole number

A value of another type is refused when it is read, by the name of its field, not when something computes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from harness.causes import Cause
from harness.quoting import quoted
from harness.stored_types import Environment, Facts, State, check, hints
from harness.types import Case, Control, Measurement, Metric, Protocol

# The behaviour of runs that were stored before these protocol fields existed.
BEFORE = {"target_interval": None, "contended_retries": 0}
# Fields that every version has written for a process: a line without one of them is incomplete.
WRITTEN = tuple(f.name for f in fields(Measurement) if f.name not in {"cause", "attempt"})
MODELS = Mapping[str, Mapping[str, Any]]

T = TypeVar("T")


def check_header(document: Mapping[str, Any]) -> None:
    """Raises ValueError, or KeyError, where a field of the header is of another type."""
    for name in ("id", "suite"):
        check(document[name], str, name)
        if not document[name].strip():
            raise ValueError(f"{name}: is empty")
    for name in ("description", "created"):
        check(document.get(name, ""), str, name)
    if document.get("created"):
        _check_time(document["created"], "created")
    for name in ("finished", "selection"):
        check(document.get(name), str | None, name)
    check(document["environment"], Environment, "environment")
    check(document.get("models", {}), MODELS, "models")
    check(document["metrics"], Mapping[str, Any], "metrics")
    check(document["cases"], list[Any], "cases")


def _check_time(text: str, where: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{where}: {quoted(text)} must be a time as ISO 8601 has it (2026-01-02T03:04:05+00:00)"
        ) from None


def metrics_from_dict(entries: Mapping[str, Any]) -> dict[str, Metric]:
    """Metrics by name. Raises ValueError if an entry has another name than its key."""
    found = {name: record(Metric, entry, f"metrics.{name}") for name, entry in entries.items()}
    for name, metric in found.items():
        if metric.name != name:
            raise ValueError(f"metrics.{name}.name: {quoted(metric.name)} must be {quoted(name)}")
    return found


def protocol_from_dict(entry: Any) -> Protocol:
    check(entry, Mapping[str, Any], "protocol")
    protocol = record(Protocol, {**BEFORE, **entry})
    if protocol.replicates < 1:
        raise ValueError(f"protocol.replicates: {protocol.replicates} must be 1 or more")
    return protocol


def record(cls: type[T], entry: Mapping[str, Any], where: str = "") -> T:
    """A frozen record from its JSON fields; absent ones take their default. Raises ValueError for an unknown field
    and for a value of the wrong type; `where` is the record's path, for the message."""
    path = where or cls.__name__.lower()
    if not isinstance(entry, Mapping):
        raise ValueError(f"{path}: {quoted(entry)} must be a mapping")
    kinds = hints(cls)
    unknown = set(entry) - {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
    needed = (f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)  # type: ignore[arg-type]
    if absent := [name for name in needed if name not in entry]:
        raise ValueError(f"{path}.{absent[0]} is missing")
    for name, value in entry.items():
        check(value, kinds[name], f"{path}.{name}")
    return cls(**entry)


def control_from_dict(entry: Mapping[str, Any]) -> Control:
    check(entry, Mapping[str, Any], "control")
    if entry["side"] not in ("a", "b"):
        raise ValueError(f"a control has the sides a and b, not {entry['side']!r}")
    return Control(side=entry["side"], measurement=measurement_from_dict(entry["measurement"]))


def weights_from_dict(entry: Any) -> dict[str, dict[str, str]]:
    """Weight folders by spelling. Raises ValueError if one has no path or no content."""
    found = dict(entry)
    if not all(isinstance(v, dict) and {"path", "content"} <= v.keys() for v in found.values()):
        raise ValueError("weights is not a mapping of folders to their path and content")
    return found


def measurement_from_dict(entry: Mapping[str, Any]) -> Measurement:
    """Inverse of `measurement_to_dict`. Raises ValueError, TypeError or KeyError on anything else."""
    check(entry, Mapping[str, Any], "measurement")
    values = dict(entry)
    if absent := [name for name in WRITTEN if name not in values]:
        raise ValueError(f"the field {absent[0]!r} is missing")
    values["case"] = record(Case, values["case"])
    if values.get("cause") is not None:
        values["cause"] = Cause(values["cause"])
    measurement = record(Measurement, values)
    for name in ("replicate", "attempt"):
        if getattr(measurement, name) < 0:
            raise ValueError(f"measurement.{name}: {getattr(measurement, name)} must be 0 or more")
    check(measurement.facts, Facts, "facts")
    check(measurement.state, State, "state")
    return replace(measurement, warnings=tuple(measurement.warnings), images=tuple(measurement.images))
