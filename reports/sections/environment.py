"""The machine, the versions and the protocol of each run, with differences between runs marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from baselines.stored.controls import control, control_workload_figures
from harness.types import Run
from harness.units import MISSING, counted, format_value
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.templates import fragment


@SECTIONS.add("environment")
def environment(data: ReportData) -> Section | NotShown:
    if not data.runs:
        return NotShown(title="Environment and protocol", reason="the report has no run")
    machine = [{k: v for k, v in flat(run.environment).items() if not k.startswith("versions.")} for run in data.runs]
    versions = [flat(run.environment.get("versions") or {}) for run in data.runs]
    tables = [
        ("Machine", compared([{**m, **_run_facts(run)} for m, run in zip(machine, data.runs, strict=True)])),
        ("Versions", compared(versions)),
        ("Protocol", compared([flat(asdict(run.protocol)) for run in data.runs])),
    ]
    content = fragment("environment.html", tables=[t for t in tables if t[1]], names=[*data.aliases])
    note = "The machine, the versions and the protocol of every measurement in this report."
    if len(data.runs) > 1:
        note += (
            " Lines that differ between runs are marked. Speed is comparable only if machine and versions are equal."
        )
    return Section(order=90, title="Environment and protocol", note=note, html=content)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as text by dotted name.

    >>> flat({"cpu": {"model": "x"}, "gpus": [], "memory_bytes": 1024})
    {'cpu.model': 'x', 'gpus': 'none', 'memory_bytes': '1.00 KiB'}
    """
    found: dict[str, str] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{key}.") if value else {key: "none"}
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for index, entry in enumerate(value):
                found |= flat(entry, f"{key}[{index}].")
        else:
            found[key] = _text(name, value)
    return found


def _text(name: str, value: Any) -> str:
    if value is None or value == [] or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name.endswith(("_bytes", "_s", "_w")):
        return format_value(value, {"bytes": "B", "s": "s", "w": "W"}[name.rsplit("_", 1)[-1]])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _run_facts(run: Run) -> dict[str, str]:
    seconds = control_workload_figures(run)
    control_workloads = {f"control workload {name}": format_value(value, "s") for name, value in seconds.items()}
    return {
        "created": utc(run.created) or MISSING,
        "finished": utc(run.finished or "") or "not finished",
        "A/A control": _control(run),
        "measured again": f"{len(run.superseded)} contended processes" if run.superseded else "nothing",
        **control_workloads,
    }


def _control(run: Run) -> str:
    """The A/A control of a run without rounds; a run with rounds has one in each group."""
    groups = {c.measurement.case.id for c in run.controls if c.side == "copy"}
    if groups:
        return f"in {counted(len(groups), 'group')} of rows"
    return str(control(run)) if any(c.side in {"a", "b"} for c in run.controls) else "none"


def utc(stamp: str) -> str:
    """'2026-01-02 03:04:05 UTC' from ISO 8601."""
    return stamp.replace("T", " ").replace("+00:00", " UTC")


def compared(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str], bool]]:
    """(name, one value per run, whether they differ) for every name of any run."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = [(name, [column.get(name, MISSING) for column in columns]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in lines]
