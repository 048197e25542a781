"""The effect of each backend, precision and optimisation on speed, size, memory, energy and output.

A row is compared with the row that differs in one choice only: an optimisation with the same backend and precision
without it, a precision with fp32 on the same backend, and a backend with eager fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.types import IDENTICAL, Metric
from reports.relative_speed import apart, relative_speed, speed_text
from reports.rows import (
    WORK,
    Row,
    by_model,
    engine,
    measured,
    quality_metrics,
    reference_of,
    varying,
    visibly_worse,
    work_label,
)
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.wording import MISSING, cosine_text, estimate, value_text

SIZES = ("disk_bytes", "weights_bytes", "peak_allocated_bytes", "peak_host_bytes", "energy_per_image_j")
AGREEMENT, PSNR = "top1_agreement", "psnr_db"
NOTE = (
    "A row is compared with the row that differs in one choice only: an optimisation with the same backend and "
    "precision without it, a precision with fp32 on the same backend, and a backend with eager fp32. A speed above 1x "
    "is faster. It is the paired ratio of both rows, from the rounds in which they took turns; rows that were measured "
    "one after the other have no ratio, and their latencies stand beside each other. A size or energy below 1x is "
    "smaller; without a ratio it is unchanged. The cosine compares the output with that of eager fp32 for the same "
    "input. The floor of the precision is in parentheses; a row below it is invalid and is not in this table. dB is "
    "the PSNR to the images of eager fp32."
)


@SECTIONS.add("trade_offs")
def trade_offs(data: ReportData) -> Section | NotShown:
    """One line for each valid row that has a row to be compared with."""
    rows = measured(data, "latency_s")
    pairs = [(row, base) for row in rows if (base := base_of(row, rows)) is not None]
    title = "Effect of each backend, precision and optimisation"
    if not pairs:
        return NotShown(title=title, reason="no two valid rows differ in one choice only")
    lines = [_line(row, base, rows, data) for row, base in pairs]
    table = pd.DataFrame(lines).fillna(MISSING)
    shown = [column for column in table.columns if set(table[column]) != {MISSING}]
    return Section(order=35, title=title, note=NOTE, table=table[shown])


def base_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row with which `row` is compared; None for eager fp32, and if that row was not measured."""
    if row["optimizations"]:
        return _same_work(row, rows, row["backend"], row["precision"])
    if row["precision"] != "fp32":
        return _same_work(row, rows, row["backend"], "fp32") or reference_of(row, rows)
    return reference_of(row, rows) if row["backend"] != "eager" else None


def _same_work(row: Row, rows: Sequence[Row], backend: str, precision: str) -> Row | None:
    wanted = {axis: row[axis] for axis in (*WORK, "batch_size")}
    wanted |= {"backend": backend, "precision": precision, "optimizations": None}
    return next((r for r in rows if all(r.get(axis) == value for axis, value in wanted.items())), None)


def _line(row: Row, base: Row, rows: Sequence[Row], data: ReportData) -> Row:
    same_model = by_model(rows)[row["run"], row["model"], row["weights"]]
    axes = [axis for axis in varying(same_model, (*WORK, "batch_size")) if axis not in ("run", "model", "weights")]
    name = f"{row['run']} · {row['model']}" if row["run"] else str(row["model"])
    same = " (not separable)" if apart(row, base, data) is False else ""
    ratio = relative_speed(row, base, data)
    line = {
        "Model": " · ".join(filter(None, [name, work_label(row, axes)])),
        "Row": engine(row),
        "Against": engine(base),
        "Speed": MISSING if ratio is None else _unbroken(speed_text(ratio)) + same,
        "Latency": MISSING if ratio is not None else _latencies(row, base, data) + same,
    }
    for name in SIZES:
        if name in data.metrics:
            line[data.metrics[name].label] = _size(row, base, data.metrics[name])
    line["Cosine (floor)"] = _cosine(row)
    line["Output"] = _output(row, data)
    for metric in quality_metrics(same_model, data.metrics):
        line[metric.label] = _quality(row, base, metric)
    return line


def _latencies(row: Row, base: Row, data: ReportData) -> str:
    """'2.13 ms against 3.40 ms'."""
    metric = data.metrics["latency_s"]
    return f"{_unbroken(value_text(row, metric))} against {_unbroken(value_text(base, metric))}"


def _size(row: Row, base: Row, metric: Metric) -> str:
    """'84.1 MiB, 0.26x', or the size alone if both differ by less than 0.5 %."""
    value, against = row.get(metric.name), base.get(metric.name)
    if value is None:
        return MISSING
    same = not against or abs(value / against - 1) < 0.005
    return _unbroken(value_text(row, metric)) + ("" if same else f", {value / against:.2f}x")


def _cosine(row: Row) -> str:
    value, floor = row.get("cosine_similarity"), row.get("cosine_floor")
    text = cosine_text(value)
    return text if value is None or floor is None else f"{text} ({floor:g})"


def _output(row: Row, data: ReportData) -> str:
    """'100.0 % of top-1 agree' of a classifier, '41.9 dB' or 'identical' of images."""
    if AGREEMENT in data.metrics and row.get(AGREEMENT) is not None:
        return _unbroken(value_text(row, data.metrics[AGREEMENT])) + " of top-1 agree"
    if (row["missing_kinds"] or {}).get(PSNR) == IDENTICAL.kind:
        return "identical"
    return _unbroken(value_text(row, data.metrics[PSNR])) if PSNR in data.metrics else MISSING


def _unbroken(text: str) -> str:
    """Text with no-break spaces."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _quality(row: Row, base: Row, metric: Metric) -> str:
    if row.get(metric.name) is None:
        return MISSING
    return estimate(row, metric) + (" (visibly worse)" if visibly_worse(row, base, metric) else "")
