"""The records of a run as JSON, and back; every field is checked against its declared type.

    record(Case, {"model": "sd15", "batch_size": "x"})  # ValueError: case.batch_size: 'x' must be a whole number

A value of another type is refused when it is read, by the name of its field, not when something computes with it. Each
measurement names its own schema, because a resumed run holds measurements of two versions.

Format history: 2 has reasons, warnings and missing figures as {"kind", "data"}; 1 (0.1.0), without a number, has them
as sentences (`harness.schema_1`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from datetime import datetime
from typing import Any, Final, TypeVar, get_args

from harness import reasons, schema_1
from harness.quoting import quoted
from harness.reasons import Reason
from harness.stored_types import Environment, Facts, State, check, hints
from harness.types import Case, Control, ControlSide, Measurement, Metric, Protocol

SCHEMA: Final = 2
# Of the state of a measurement, of a paired process and of the header of a paired run: former key -> key.
FORMER_KEYS: Final = {
    "sentinel": "control_workload",
    "sentinel_contended": "control_workload_contended",
    "sentinel_missing": "control_workload_missing",
    "sentinels": "control_workloads",
}
# The behaviour of runs that were stored before these protocol fields existed.
BEFORE = {"target_interval": None, "contended_retries": 0, "rounds": False, "ratio_interval": None}
# Fields that every version has written for a process: a line without one of them is incomplete.
WRITTEN = tuple(f.name for f in fields(Measurement) if f.name not in ("attempt", "round"))
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
        raise ValueError(f"{where}: {quoted(text)} must be a time in ISO 8601 (2026-01-02T03:04:05+00:00)") from None


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
    if entry["side"] not in get_args(ControlSide):
        raise ValueError(f"the side of a control is one of {', '.join(get_args(ControlSide))}, not {entry['side']!r}")
    return Control(side=entry["side"], measurement=measurement_from_dict(entry["measurement"]))


def weights_from_dict(entry: Any) -> dict[str, dict[str, str]]:
    """Weight folders by spelling. Raises ValueError if one has no path or no content."""
    found = dict(entry)
    if not all(isinstance(v, dict) and {"path", "content"} <= v.keys() for v in found.values()):
        raise ValueError("weights is not a mapping of folders to their path and content")
    return found


def measurement_to_dict(measurement: Measurement) -> dict[str, Any]:
    """The measurement in JSON types. Raises ValueError on a sample that is not finite."""
    document = {f.name: getattr(measurement, f.name) for f in fields(Measurement)}
    if not measurement.attempt:
        del document["attempt"]
    if measurement.round is None:
        del document["round"]
    return {
        "schema": SCHEMA,
        **document,
        "case": asdict(measurement.case),
        "reason": measurement.reason and measurement.reason.to_json(),
        "missing": {name: told.to_json() for name, told in measurement.missing.items()},
        "warnings": [told.to_json() for told in measurement.warnings],
        "images": list(measurement.images),
        **{
            phase: {name: _finite(values) for name, values in document[phase].items()}
            for phase in ("samples", "warmup")
        },
        **{free: _json(document[free]) for free in ("facts", "state")},
    }


def measurement_from_dict(entry: Mapping[str, Any]) -> Measurement:
    """Inverse of `measurement_to_dict`; also reads schema 1. Raises ValueError, TypeError or KeyError on anything
    else."""
    check(entry, Mapping[str, Any], "measurement")
    values = dict(entry)
    schema = values.pop("schema", 1)
    if schema not in (1, SCHEMA):
        raise ValueError(f"the measurement has schema {quoted(schema)}; this version reads the schemas 1 and {SCHEMA}")
    if absent := [name for name in WRITTEN if name not in values]:
        raise ValueError(f"the field {absent[0]!r} is missing")
    if schema == 1:
        values = schema_1.measurement(values)
    values["case"] = record(Case, values["case"])
    check(values["missing"], Mapping[str, Any], "measurement.missing")
    check(values["warnings"], list[Any], "measurement.warnings")
    check(values["facts"], Facts, "facts")
    check(values["state"], Mapping[str, Any], "state")
    if values["reason"] is not None:
        values["reason"] = _reason(values["reason"], "measurement.reason")
    values["missing"] = {name: _reason(told, f"measurement.missing.{name}") for name, told in values["missing"].items()}
    values["warnings"] = tuple(_reason(told, f"measurement.warnings[{i}]") for i, told in enumerate(values["warnings"]))
    values["state"] = _with_reasons(values["state"])
    check(values["state"], State, "state")
    if isinstance(values["images"], list):
        values["images"] = tuple(values["images"])
    measurement = record(Measurement, values)
    for name in ("replicate", "attempt"):
        if getattr(measurement, name) < 0:
            raise ValueError(f"measurement.{name}: {getattr(measurement, name)} must be 0 or more")
    return measurement


def control_to_dict(control: Control) -> dict[str, Any]:
    return {"side": control.side, "measurement": measurement_to_dict(control.measurement)}


def _reason(value: Any, where: str) -> Reason:
    try:
        return reasons.from_json(value)
    except ValueError:
        raise ValueError(f"{where}: {quoted(value)} must be a reason: a mapping of kind and data") from None


def renamed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored mapping, of which the keys that an earlier version wrote have their present names."""
    return {FORMER_KEYS.get(name, name): value for name, value in stored.items()}


def _with_reasons(stored: Mapping[str, Any]) -> dict[str, Any]:
    state, name = renamed(stored), "control_workload_contended"
    return state if state.get(name) is None else {**state, name: _reason(state[name], f"state.{name}")}


def _json(value: Any) -> Any:
    """`value` in JSON types; a float that JSON cannot write (a scheduler's -inf) becomes its text."""
    if isinstance(value, Reason):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _finite(values: Iterable[float]) -> list[float]:
    listed = [float(v) for v in values]
    bad = [v for v in listed if not math.isfinite(v)]
    if bad:
        raise ValueError(
            f"a sample is {bad[0]}; a value that is not finite must be recorded as missing, with its reason"
        )
    return listed
