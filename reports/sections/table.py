"""The table of all rows, which the browser sorts, filters and opens. It is plain HTML, so that it also prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.frames import TOLERANCES
from harness.measuring import throttling
from harness.types import AXES, Measurement, Metric
from harness.units import counted
from reports import theme
from reports.precision_of_ratios import percent
from reports.relative_speed import measured_in_words, reference_speed
from reports.rows import QUALITY_FIRST, Row, varying
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.templates import fragment
from reports.wording import MISSING, bounds_text, value_text

AXIS_TITLES = {
    "run": "Run", "model": "Model", "weights": "Weights", "backend": "Backend", "precision": "Precision",
    "optimizations": "Optimisations",
    "batch_size": "Batch", "image_size": "Size (px)", "scheduler": "Scheduler", "num_steps": "Steps",
    "guidance_scale": "Guidance", "prompt": "Prompt", "seed": "Seed",
}  # fmt: skip
LONG = ("prompt", "seed")
SPEED_HINT = (
    "speed relative to the reference row of the same work, from the rounds in which both took turns; 2x needs half the "
    "time (higher is better)"
)
PEAKS = ("peak_allocated_bytes", "peak_host_bytes")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table; `shown` is its initial state."""

    key: str
    title: str
    hint: str
    kind: str
    numeric: bool
    shown: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The printed text, the value for sorting and filtering, and the small second line."""

    text: str
    value: str
    small: str = ""
    colour: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A metric of an opened row: its value, or the reason why it is missing."""

    label: str
    hint: str
    text: str
    small: str
    missing: str


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the table, with the details that open below it."""

    title: str
    cells: tuple[Cell, ...]
    status: str
    reason: str
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]
    conditions: tuple[tuple[str, str], ...]
    facts: str
    images: tuple[str, ...]


@SECTIONS.add("table")
def table(data: ReportData) -> Section | NotShown:
    rows = data.rows
    if not rows:
        return NotShown(title="All rows", reason="the run has no cases")
    columns = columns_of(rows, data)
    content = fragment(
        "table.html",
        columns=columns,
        rows=[_table_row(row, columns, data, facts) for row, facts in zip(rows, _facts(rows, data), strict=True)],
        words=counted,
    )
    note = (
        "A value summarises all processes of its row (for latency, by the median); its 95 % interval is in brackets. "
        "Speed is the ratio to the reference row of the same work, from the rounds in which both took turns. "
        "Click a column to sort by it, and a row to open its values, conditions and reasons."
    )
    return Section(order=20, title="All rows", note=note, html=content)


def columns_of(rows: Sequence[Row], data: ReportData) -> list[Column]:
    """Axes, then status, then metrics that any row has; the most important ones are shown initially."""
    metrics = _metric_columns(rows, data.metrics)
    speeds = _speed_columns(rows)
    place = 1 + next((i for i, column in enumerate(metrics) if column.key == "latency_s"), -1)
    return [*_axis_columns(rows), _status_column(rows), *metrics[:place], *speeds, *metrics[place:]]


def _speed_columns(rows: Sequence[Row]) -> list[Column]:
    """The column of the speed relative to the reference; none if no row has one."""
    if all(row.get("speedup") is None for row in rows):
        return []
    return [Column(key="speedup", title="Speed", hint=SPEED_HINT, kind="speed", numeric=True, shown=True)]


def _axis_columns(rows: Sequence[Row]) -> list[Column]:
    some = varying(rows, ("run", *AXES))
    within = {a for _, group in _by_model(rows).items() for a in varying(group, AXES)}
    always = {"model", "backend", "precision", "batch_size"}
    offered = {"run", "model", *within} & set(some) - set(LONG)
    return [
        Column(
            key=axis, title=AXIS_TITLES.get(axis, axis), hint=f"axis {axis}", kind="axis",
            numeric=_is_numeric(rows, axis), shown=axis in always or axis == "run" or axis in within - set(LONG),
            choices=_choices(rows, axis) if axis in offered else (),
        )
        for axis in ("run", *AXES)
        if axis in always or axis in some
    ]  # fmt: skip


def _by_model(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["model"], []).append(row)
    return groups


def _is_numeric(rows: Sequence[Row], axis: str) -> bool:
    return all(isinstance(row[axis], int | float) for row in rows if row[axis] is not None)


def _choices(rows: Sequence[Row], axis: str) -> tuple[str, ...]:
    values = {row[axis] for row in rows if row[axis] is not None}
    return tuple(_plain(v) for v in sorted(values))


def _status_column(rows: Sequence[Row]) -> Column:
    found = tuple(s for s in theme.STATUSES if any(row["status"] == s for row in rows))
    return Column(
        key="status", title="Status", hint="ok, or why there is no result", kind="status", numeric=False, shown=True,
        choices=found if len(found) > 1 else (),
    )  # fmt: skip


def _metric_columns(rows: Sequence[Row], metrics: Mapping[str, Metric]) -> list[Column]:
    present = [name for name in metrics if any(row.get(name) is not None for row in rows)]
    peak = next((name for name in PEAKS if name in present), None)
    first = ["latency_s", "throughput", peak, *QUALITY_FIRST[:3], "cosine_similarity"]
    ordered = [n for n in first if n in present] + [n for n in present if n not in first]
    return [
        Column(
            key=name, title=metrics[name].label, hint=f"{metrics[name].description} ({direction(metrics[name])})",
            kind="metric", numeric=True, shown=name in first,
        )
        for name in ordered
    ]  # fmt: skip


def direction(metric: Metric) -> str:
    return "neither direction is better" if metric.better is None else f"{metric.better} is better"


def _table_row(row: Row, columns: Sequence[Column], data: ReportData, facts: Sequence[Measurement]) -> TableRow:
    return TableRow(
        title=row["label"],
        cells=tuple(_cell(row, column, data.metrics) for column in columns),
        status=row["status"],
        reason=row["reason"] or "",
        entries=(*_speed_entries(row), *_entries(row, data.metrics)),
        warnings=tuple(row["warning_texts"] or ()),
        conditions=tuple(_conditions(row, data)),
        facts=facts_text(facts),
        images=tuple(data.images[key] for f in row["images"] or () if (key := (row["run"], f)) in data.images),
    )


def _cell(row: Row, column: Column, metrics: Mapping[str, Metric]) -> Cell:
    value = row.get(column.key)
    if column.kind == "metric":
        metric = metrics[column.key]
        return Cell(text=value_text(row, metric), value=_plain(value), small=bounds_text(row, metric))
    if column.kind == "speed":
        text, _, small = reference_speed(row).partition(" ")
        return Cell(text=text or MISSING, value=_plain(value), small=small)
    if column.kind == "status":
        return Cell(text=row["status"].replace("_", " "), value=row["status"], colour=theme.STATUSES[row["status"]])
    colour = theme.backend_colour(row["backend"]) if column.key == "backend" else ""
    return Cell(text=MISSING if value is None else _plain(value), value=_plain(value), colour=colour)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return (
        repr(value)
        if isinstance(value, float) and not value.is_integer()
        else str(int(value) if isinstance(value, float) else value)
    )


def _speed_entries(row: Row) -> list[Entry]:
    """The speed of an ok row relative to its reference, or the reason why it has none."""
    if row["status"] != "ok":
        return []
    text, _, small = reference_speed(row).partition(" ")
    missing = "" if text else row["missing"]["speedup"]
    return [Entry(label="Speed", hint=SPEED_HINT, text=text or MISSING, small=small, missing=missing)]


def _entries(row: Row, metrics: Mapping[str, Metric]) -> list[Entry]:
    missing = row["missing"] or {}
    return [
        Entry(
            label=metric.label, hint=metric.description, text=value_text(row, metric), small=bounds_text(row, metric),
            missing="" if row.get(name) is not None else missing[name],
        )
        for name, metric in metrics.items()
        if row.get(name) is not None or name in missing
    ]  # fmt: skip


def _conditions(row: Row, data: ReportData) -> list[tuple[str, str]]:
    named = {
        "Device": row.get("device"), "Threads": row.get("threads"), "Quality measured on": _item_count(row),
        "Protocol": row.get("protocol"), "Processes": row.get("replicates"),
        "Measured": measured_in_words(row), "Speed relative to": row.get("speedup_reference"),
        "Interval of the speed": _target(row, data),
        "Weights": row["weights"], "Prompt": row["prompt"], "Seed": row["seed"], "Guidance": row["guidance_scale"],
        "Weights hash": row.get("weights_hash"), "Weights source": row.get("weights_source"),
        "Work": row.get("work_hash"), "Output hash": row.get("output_hash"),
        "GPU during the samples": _gpu(row),
        "Quantised": _quantised(row), "Tolerance": _tolerance(row),
        "Fingerprint": row.get("fingerprint"), "Case": row["case_id"],
    }  # fmt: skip
    return [(name, _plain(value)) for name, value in named.items() if value not in (None, "")]


def _target(row: Row, data: ReportData) -> str:
    """Whether the interval of the row's speed is within the target of the protocol; '' if there is none."""
    reached = row.get("speedup_reached")
    if reached is None:
        return ""
    run = data.runs[data.aliases.index(row["run"])]
    target = f"±{percent(run.protocol.ratio_interval or 0.0)}"
    return f"within {target}" if reached else f"not within {target} when the rounds ended"


def _tolerance(row: Row) -> str:
    floor, ceiling, of_one = (row.get(name) for name in TOLERANCES)
    if floor is None:
        return ""
    return f"cosine to fp32 >= {floor:g}, relative error <= {ceiling:g}, relative error of one item <= {of_one:g}"


def _quantised(row: Row) -> str:
    share = row.get("quantised_share")
    return "" if share is None else f"{100 * share:.3g} % of the elements of the weight matrices"


def _gpu(row: Row) -> str:
    """The state of the GPU during the samples, of every process if they differ."""
    return " / ".join(dict.fromkeys(filter(None, map(throttling.in_words, row.get("machine_state") or ()))))


def _item_count(row: Row) -> str:
    items = row.get("quality_items")
    return "" if items is None else counted(int(items), "item")


def _facts(rows: Sequence[Row], data: ReportData) -> list[list[Measurement]]:
    by_case: dict[tuple[str, str], list[Measurement]] = {}
    for run, name in zip(data.runs, data.aliases, strict=True):
        for measurement in run.measurements:
            by_case.setdefault((name, measurement.case.id), []).append(measurement)
    return [by_case.get((row["run"], row["case_id"]), []) for row in rows]


def facts_text(measurements: Sequence[Measurement]) -> str:
    """Proof of execution and machine state as indented JSON; facts that all processes share appear once."""
    if not measurements:
        return ""
    facts = [_readable(m.facts) for m in measurements if m.facts]
    shared = (
        facts[0]
        if facts and all(f == facts[0] for f in facts)
        else {str(m.replicate): _readable(m.facts) for m in measurements}
    )
    document = {"facts": shared, "machine state by process": {str(m.replicate): m.state for m in measurements}}
    return json.dumps(document, indent=2, ensure_ascii=False, default=str)


def _readable(value: Any) -> Any:
    """The value without entries of base64, which are arrays for `compare`."""
    if not isinstance(value, Mapping):
        return value
    return {key: _readable(each) for key, each in value.items() if key != "base64"}
