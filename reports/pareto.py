"""The Pareto front of quality and speed per image, by point estimates: no other row is better in both.

Rows of one group are ordered by their paired ratios, and groups by the latency per image of their references.

A front has one run, model, weights and image size. Schedulers, step counts and batch sizes vary within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.types import Metric
from harness.units import format_value
from reports.rows import Row, axis_text, engine, measured, quality_metrics, varying, work_label
from reports.section import ReportData
from reports.wording import estimate


@dataclass(frozen=True, kw_only=True)
class Front:
    """The rows of a trade-off, and those on its Pareto front."""

    title: str
    metric: Metric
    rows: tuple[Row, ...]
    best: tuple[Row, ...]


def fronts(data: ReportData) -> list[Front]:
    """The fronts by run, model, weights and image size, one for each quality metric."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in measured(data, "latency_s"):
        groups.setdefault((row["run"], row["model"], row["weights"], row["image_size"]), []).append(row)
    found = []
    several_sizes = {g[:3] for g in groups if sum(g[:3] == other[:3] for other in groups) > 1}
    for key, rows in groups.items():
        size = (axis_text("image_size", key[3]),) if key[:3] in several_sizes and key[3] is not None else ()
        title = " · ".join([*([f"run {key[0]}"] if key[0] else []), str(key[1]), *size])
        for metric in quality_metrics(rows, data.metrics):
            having = [r for r in rows if r.get(metric.name) is not None]
            if len(having) > 1:
                best = pareto(having, metric, rows)
                found.append(Front(title=title, metric=metric, rows=tuple(having), best=tuple(best)))
    return found


def per_image(row: Row) -> float:
    """Seconds per image: the latency of an iteration divided by its batch size."""
    return float(row["latency_s"] / row["batch_size"])


def expected_per_image(row: Row, measured_rows: Sequence[Row]) -> float:
    """Seconds per image by which rows are ordered: those of the reference of the row's group, divided by the row's
    speed relative to it; the row's own if it has no such ratio."""
    reference = next((r for r in measured_rows if r["case_id"] == row.get("speedup_reference")), None)
    if reference is None or row.get("speedup") is None:
        return per_image(row)
    return per_image(reference) / float(row["speedup"])


def pareto(rows: Sequence[Row], metric: Metric, measured_rows: Sequence[Row] = ()) -> list[Row]:
    """Rows that no other row beats in both speed per image and quality, the fastest first. `measured_rows` has the
    references of their groups."""
    sign = -1.0 if metric.better == "lower" else 1.0
    best: list[Row] = []
    for row in sorted(rows, key=lambda r: (expected_per_image(r, measured_rows), -sign * r[metric.name])):
        if not best or sign * row[metric.name] > sign * best[-1][metric.name]:
            best.append(row)
    return best


def point_name(row: Row, rows: Sequence[Row]) -> str:
    """'onnxruntime int8 · batch 32', with the axes in which `rows` differ."""
    axes = varying(rows, ("scheduler", "num_steps", "guidance_scale", "prompt", "seed", "batch_size"))
    return " · ".join(filter(None, [engine(row), work_label(row, axes)]))


def point_value(row: Row, metric: Metric) -> str:
    """'0.07 ms per image, 99.0 % [98.1, 99.5]'."""
    return f"{format_value(per_image(row), 's')} per image, {estimate(row, metric)}"
