"""The time of a pipeline by stage, the sum of the stages against the latency, and each denoising step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from harness.types import Metric
from harness.units import format_value, percent
from reports import charts, theme
from reports.rows import WORK, Row, measured, panels, variant, work_label
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section

SUM, WHOLE, STEP = "stage_sum_s", "latency_s", "denoise_step_s"


@SECTIONS.add("stages")
def stages(data: ReportData) -> Section | NotShown:
    names = stage_metrics(data.metrics)
    rows = [r for r in measured(data, WHOLE) if sum(r.get(n) is not None for n in names if n != "stage_other_s") > 1]
    if not rows:
        return NotShown(
            title="Stages", reason="no valid row is a pipeline of several networks with its stages measured"
        )
    figures = []
    for model, group in panels(rows).items():
        figures.append(Chart(title=f"Stages of one iteration: {model}", figure=stacked(group, names, data.metrics)))
        work = longest(group)
        steps = step_curves(work, data.samples)
        if steps is not None:
            axes = ("scheduler", "num_steps")
            figures.append(
                Chart(title=f"Each denoising step: {work[0]['model']} · {work_label(work[0], axes)}", figure=steps)
            )
    note = (
        "Stages are timed in a separate pass, which synchronises with the device after each stage; latency is timed "
        "without that. The diamond is the latency, and the number is the sum of the stages relative to it. "
        f"{_sums(rows)}"
    )
    return Section(order=55, title="Stages of the pipelines", note=note, figures=tuple(figures))


def stage_metrics(metrics: Mapping[str, Metric]) -> list[str]:
    """Names of the stage metrics in the order of the pipeline, host code last, without their sum."""
    found = [n for n in metrics if n.startswith("stage_") and n.endswith("_s") and n != SUM]
    return sorted(found, key=lambda name: name == "stage_other_s")


def _sums(rows: Sequence[Row]) -> str:
    ratios = [r[SUM] / r[WHOLE] for r in rows if r.get(SUM) is not None]
    if not ratios:
        return ""
    least, most = percent(min(ratios), ".0"), percent(max(ratios), ".0")
    return f"In these rows the sum of the stages is {least} to {most} of the latency."


def stacked(rows: Sequence[Row], names: Sequence[str], metrics: Mapping[str, Metric]) -> go.Figure:
    """Stacked horizontal bars, one per row, with the latency as a diamond and the share of the stages as text."""
    ordered, axis = charts.rows_of(rows)
    scale = charts.scale_for([row[WHOLE] for row in ordered], "s")
    figure = charts.figure(**axis.layout, barmode="stack")
    for index, name in enumerate(n for n in names if any(r.get(n) is not None for r in ordered)):
        figure.add_trace(_stage(index, metrics[name], ordered, axis, scale))
    wholes = [scale(row[WHOLE]) for row in ordered]
    figure.add_trace(
        go.Scatter(
            x=wholes, y=list(axis.places), mode="markers", name=charts.text(metrics[WHOLE].label), hoverinfo="text",
            marker={"symbol": "diamond", "size": 9, "color": theme.WHOLE, "line": {"color": "#1a212b", "width": 1}},
            hovertext=[charts.hover(row, [metrics[WHOLE]]) for row in ordered],
        )
    )  # fmt: skip
    ends = [scale(max(row[WHOLE], row.get(SUM) or 0.0)) for row in ordered]
    charts.add_end_labels(figure, axis, ends, [f" {_share(row)}" for row in ordered])
    figure.update_xaxes(title_text=f"Time of one iteration ({scale.unit})")
    return figure


def _share(row: Row) -> str:
    total = row.get(SUM)
    return percent(total / row[WHOLE], ".0") if total is not None else ""


def _stage(index: int, metric: Metric, rows: Sequence[Row], axis: charts.RowAxis, scale: charts.Scale) -> go.Bar:
    component = metric.name.removeprefix("stage_").removesuffix("_s")
    return go.Bar(
        x=[scale(row.get(metric.name)) for row in rows], y=list(axis.places), orientation="h", width=0.66,
        name=charts.text(metric.label), marker={"color": theme.stage_colour(index, component)}, hoverinfo="text",
        hovertext=[charts.hover(row, [metric], _part(row, metric)) for row in rows],
    )  # fmt: skip


def _part(row: Row, metric: Metric) -> str:
    value, total = row.get(metric.name), row.get(SUM)
    return f"{percent(value / total, '.1')} of the stages" if value is not None and total else ""


def longest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the first work with the most denoising steps, over all runs."""
    most = max(rows, key=lambda row: row["num_steps"] or 0)
    axes = [axis for axis in (*WORK, "batch_size") if axis != "run"]
    return [row for row in rows if all(row[axis] == most[axis] for axis in axes)]


def step_curves(rows: Sequence[Row], samples: pd.DataFrame) -> go.Figure | None:
    """Median seconds of each denoising step over its number, for rows of one work; None without samples."""
    steps = rows[0]["num_steps"] or 0
    frame = samples[(samples["metric"] == STEP) & (samples["phase"] == "steady")] if len(samples) else samples
    curves = [(row, medians) for row in rows if steps > 1 and (medians := _step_medians(row, frame, steps)) is not None]
    if not curves:
        return None
    scale = charts.scale_for([v for _, medians in curves for v in medians], "s")
    figure = charts.figure(360)
    for row, medians in curves:
        figure.add_trace(_step_line(variant(row), row, medians, scale))
    figure.update_xaxes(title_text=f"Denoising step (of {steps})")
    figure.update_yaxes(title_text=f"Denoising step ({scale.unit})", rangemode="tozero")
    return figure


def _step_line(name: str, row: Row, medians: Sequence[float], scale: charts.Scale) -> go.Scatter:
    return go.Scatter(
        x=list(range(1, len(medians) + 1)), y=[scale(v) for v in medians], mode="lines", name=charts.text(name),
        line={"color": theme.backend_colour(row["backend"]), "dash": theme.precision_dash(row["precision"])},
        hovertext=[charts.lines(name, f"step {i}: {format_value(v, 's')}") for i, v in enumerate(medians, start=1)],
        hoverinfo="text",
    )  # fmt: skip


def _step_medians(row: Row, frame: pd.DataFrame, steps: int) -> list[float] | None:
    """Medians by step over all processes; None where the samples are not whole iterations of `steps` calls."""
    own = frame[(frame["run"] == row["run"]) & (frame["case_id"] == row["case_id"])] if len(frame) else frame
    blocks = (
        [group["value"].to_numpy(dtype=float) for _, group in own.groupby("replicate", sort=True)] if len(own) else []
    )
    if not blocks or any(len(block) % steps for block in blocks):
        return None
    return [float(v) for v in np.median(np.concatenate([block.reshape(-1, steps) for block in blocks]), axis=0)]
