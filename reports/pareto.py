"""The Pareto front of quality and speed per image, by point estimates: no other row is better in both.

Within a group, the latency per image of a row is that of the group's reference divided by the row's paired ratio, so
that the order of the rows is that of their ratios. A row without a ratio has its own.

A front has one run, model, weights and image size. Schedulers, step counts and batch sizes vary within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.types import Metric
from harness.units import format_value
from reports.rows import Row, axis_text, engine, measured, quality_metrics, varying, work_label
from reports.section import ReportData
from reports.wording import estimate


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Seconds per image, with the bounds of their 95 % interval if they have one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Front:
    """The rows of a trade-off, and those on its Pareto front. `seconds` are those per image by case id."""

    title: str
    metric: Metric
    rows: tuple[Row, ...]
    best: tuple[Row, ...]
    seconds: Mapping[str, Seconds]

    def per_image(self, row: Row) -> float:
        """Seconds per image, as the row is ranked."""
        return self.seconds[row["case_id"]].value


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
                seconds = {row["case_id"]: seconds_per_image(row, rows) for row in having}
                best = tuple(pareto(having, metric, seconds))
                found.append(Front(title=title, metric=metric, rows=tuple(having), best=best, seconds=seconds))
    return found


def seconds_per_image(row: Row, rows: Sequence[Row]) -> Seconds:
    """Seconds per image of a row: those of its group's reference, which is one of `rows`, divided by the row's speed
    relative to it, with the interval of that ratio; those of its own latency if it has no such ratio."""
    reference = next((r for r in rows if r["case_id"] == row.get("speedup_reference")), None)
    if reference is None or reference["case_id"] == row["case_id"]:
        ends = (row.get(f"latency_s_{end}") for end in ("low", "high"))
        low, high = (None if end is None else end / row["batch_size"] for end in ends)
        return Seconds(value=row["latency_s"] / row["batch_size"], low=low, high=high)
    per_image = reference["latency_s"] / row["batch_size"]
    low, high = (None if row.get(end) is None else per_image / row[end] for end in ("speedup_high", "speedup_low"))
    return Seconds(value=per_image / row["speedup"], low=low, high=high)


def pareto(rows: Sequence[Row], metric: Metric, seconds: Mapping[str, Seconds]) -> list[Row]:
    """Rows that no other row beats in both seconds per image and quality, the fastest first."""
    sign = -1.0 if metric.better == "lower" else 1.0
    best: list[Row] = []
    for row in sorted(rows, key=lambda r: (seconds[r["case_id"]].value, -sign * r[metric.name])):
        if not best or sign * row[metric.name] > sign * best[-1][metric.name]:
            best.append(row)
    return best


def point_name(row: Row, rows: Sequence[Row]) -> str:
    """'onnxruntime int8 · batch 32', with the axes in which `rows` differ."""
    axes = varying(rows, ("scheduler", "num_steps", "guidance_scale", "prompt", "seed", "batch_size"))
    return " · ".join(filter(None, [engine(row), work_label(row, axes)]))


def point_value(row: Row, front: Front) -> str:
    """'0.07 ms per image, 99.0 % [98.1, 99.5]'."""
    return f"{format_value(front.per_image(row), 's')} per image, {estimate(row, front.metric)}"
