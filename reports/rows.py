"""Rows of the cases frame as plain records, and which rows are comparable.

A row is a dict of a case's columns, with None for missing values. Rows do the same *work* if all axes but backend and
precision are equal (and, in charts over it, but the batch size). Only such rows are ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from baselines.stored.rules import set_tolerance
from harness.types import Metric
from harness.units import MISSING
from reports.section import ReportData

Row = dict[str, Any]
T = TypeVar("T")

WORK = ("run", "model", "weights", "image_size", "scheduler", "num_steps", "guidance_scale", "prompt", "seed")
QUALITY_FIRST = ("top1", "recognised", "fid", "kid")
REFERENCE = {"backend": "eager", "precision": "fp32", "optimizations": None}


def warnings_of(row: Row) -> list[tuple[str, str]]:
    """(short name, sentence) of each warning of a row."""
    return list(zip(row["warnings"] or (), row["warning_texts"] or (), strict=True))


def measured(data: ReportData, *metrics: str) -> list[Row]:
    """Valid rows that have all of `metrics`."""
    return [row for row in data.rows if row["status"] == "ok" and all(row.get(name) is not None for name in metrics)]


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    """Items by key, groups and members in order of appearance."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_model(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by (run, model, weights)."""
    return grouped(rows, lambda row: (row["run"], row["model"], row["weights"]))


def by_work(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by all axes that must be equal in one curve of latency over batch size."""
    return grouped(rows, lambda row: tuple(row[axis] for axis in WORK))


def by_work_and_batch(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by all axes that must be equal in a ranking."""
    return grouped(rows, lambda row: (*(row[axis] for axis in WORK), row["batch_size"]))


def engine(row: Row) -> str:
    """'onnxruntime int8_dynamic': backend, precision and, if there are any, optimisations."""
    return " ".join(filter(None, [row["backend"], row["precision"], row.get("optimizations")]))


def variant(row: Row) -> str:
    """`engine` with the run in front if there are several runs: 'B · onnxruntime int8'."""
    return f"{row['run']} · {engine(row)}" if row["run"] else engine(row)


def axis_text(axis: str, value: Any) -> str:
    """An axis value in words: ('num_steps', 20) -> '20 steps'."""
    if value is None:
        return MISSING
    words: Mapping[str, str] = {
        "batch_size": f"batch {value}",
        "image_size": f"{_number(value)} px",
        "num_steps": f"{_number(value)} steps",
        "guidance_scale": f"guidance {_number(value)}",
        "weights": f"{value} weights",
        "prompt": f"“{value}”",
        "seed": f"seed {value}",
        "run": f"run {value}",
    }
    return words.get(axis, _number(value))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def varying(rows: Sequence[Row], axes: Iterable[str]) -> tuple[str, ...]:
    """Those of `axes` that have more than one value in `rows`."""
    return tuple(axis for axis in axes if len({row[axis] for row in rows}) > 1)


def work_label(row: Row, axes: Iterable[str]) -> str:
    """The named axes of a row in words: 'ddim · 20 steps'."""
    return " · ".join(axis_text(axis, row[axis]) for axis in axes if row[axis] is not None)


def panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by chart: each model has its own chart, and models with a single row share one."""
    groups = grouped(rows, lambda row: (row["model"], row["weights"]))
    several = {model for model, _ in groups if sum(model == other for other, _ in groups) > 1}
    found: dict[str, list[Row]] = {}
    alone: list[Row] = []
    for (model, weights), group in groups.items():
        title = f"{model} ({axis_text('weights', weights)})" if model in several else str(model)
        if len(group) > 1:
            found[title] = group
        else:
            alone += group
    if len(alone) == 1:
        found[str(alone[0]["model"])] = alone
    elif alone:
        found["models with one row"] = alone
    return found


def headed(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of a chart by work. The headings name only as many axes as distinguish the works."""
    axes = [axis for axis in (*WORK, "batch_size") if axis != "run"]
    works = len(grouped(rows, lambda row: tuple(row[axis] for axis in axes)))
    named: list[str] = []
    for axis in varying(rows, axes):
        if len(grouped(rows, lambda row: work_label(row, named))) < works:
            named.append(axis)
    return grouped(rows, lambda row: work_label(row, named))


def reference_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The eager fp32 row that does the same work at the same batch size, or None."""
    same = (*WORK, "batch_size")
    return next(
        (r for r in rows if all(r.get(k) == v for k, v in REFERENCE.items()) and all(r[a] == row[a] for a in same)),
        None,
    )


def bounds(row: Row, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a value; None if there is none, or if it has no width."""
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    return None if low is None or high is None or low == high else (low, high)


def separable(a: Row, b: Row, metric: str) -> bool | None:
    """Whether the two intervals do not overlap; None if a value has no interval."""
    first, second = bounds(a, metric), bounds(b, metric)
    if first is None or second is None:
        return None
    return first[0] > second[1] or second[0] > first[1]


def quality_metrics(rows: Sequence[Row], metrics: Mapping[str, Metric]) -> list[Metric]:
    """The task quality metrics of these rows, the most important first; agreement with fp32 is not among them."""
    return [metrics[n] for n in QUALITY_FIRST if n in metrics and any(r.get(n) is not None for r in rows)]


def is_worse(candidate: float, reference: float, metric: Metric) -> bool:
    return candidate > reference if metric.better == "lower" else candidate < reference


def visibly_worse(row: Row, reference: Row, metric: Metric) -> bool:
    """Whether the value is worse and the intervals do not overlap; False if one has no interval. FID and KID have no
    interval here: they are visibly worse beyond the tolerance of `imgbench compare`."""
    value, against = row.get(metric.name), reference.get(metric.name)
    if value is None or against is None or not is_worse(value, against, metric):
        return False
    if metric.kind == "quality_set":
        return abs(value - against) > set_tolerance(against)
    return separable(row, reference, metric.name) is True
