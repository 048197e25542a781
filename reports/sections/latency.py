"""Latency and throughput by batch size, backend and precision: lines over batch sizes, otherwise bars."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from harness.types import AXES, Metric
from harness.units import counted
from reports import charts, theme
from reports.rows import WORK, Row, grouped, measured, panels, variant, varying, work_label
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section
from reports.wording import ratio_text, value_text

MAX_CURVES = 8


@SECTIONS.add("latency")
def latency(data: ReportData) -> Section | NotShown:
    rows = measured(data, "latency_s")
    if not rows:
        return NotShown(title="Latency and throughput", reason="no valid row has a latency")
    figures: list[Chart] = []
    left_out = 0
    for model, model_rows in panels(rows).items():
        works = _swept(model_rows)
        left_out += max(0, len(works) - MAX_CURVES)
        for work in works[:MAX_CURVES]:
            figures += _curves(work, model_rows, data)
        if not works:
            figures.append(Chart(title=f"{data.metrics['latency_s'].label}: {model}", figure=bars(model_rows, data)))
    note = (
        "Latency is the wall-clock time of one iteration over a whole batch: the median over the processes of each "
        "process's median. Error bars are 95 % intervals, with the process as the unit. The colour is the backend; the "
        "marker and the line style are the precision. “1.5x” is the speed relative to the reference row of the same "
        "work (eager fp32 if it is valid), from the rounds in which both took turns; it need not be the ratio of the "
        "two bars. Click a legend entry to hide it."
    )
    if left_out:
        note += f" The table has {counted(left_out, 'more sweep')} over the batch size."
    return Section(order=30, title="Latency and throughput", note=note, figures=tuple(figures))


def _swept(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups of equal work, over all runs, that were measured at several batch sizes."""
    without_run = grouped(rows, lambda r: tuple(r[axis] for axis in WORK if axis != "run"))
    return [group for group in without_run.values() if len({r["batch_size"] for r in group}) > 1]


def _curves(rows: Sequence[Row], model_rows: Sequence[Row], data: ReportData) -> list[Chart]:
    axes = [a for a in varying(model_rows, AXES) if a not in ("backend", "precision", "batch_size")]
    where = " · ".join(filter(None, [rows[0]["model"], work_label(rows[0], axes)]))
    return [
        Chart(title=f"{data.metrics[name].label} by batch size: {where}", figure=curve(rows, data.metrics[name]))
        for name in ("latency_s", "throughput")
        if all(row.get(name) is not None for row in rows)
    ]


def curve(rows: Sequence[Row], metric: Metric) -> go.Figure:
    """One line per backend and precision over the batch size, with intervals."""
    values = [row[metric.name] for row in rows]
    scale = charts.scale_for(values, metric.unit)
    batches = sorted({row["batch_size"] for row in rows})
    figure = charts.figure(360)
    for name, line in grouped(rows, variant).items():
        figure.add_trace(_line(name, sorted(line, key=lambda r: r["batch_size"]), metric, scale))
    figure.update_xaxes(
        title_text="Batch size (images)", type="log", tickvals=batches, ticktext=[str(b) for b in batches]
    )
    figure.update_yaxes(title_text=charts.axis_title(metric, scale))
    if charts.is_wide(values, 8):
        figure.update_yaxes(charts.log_axis([scale(v) for v in values]))
    else:
        figure.update_yaxes(rangemode="tozero")
    return figure


def _line(name: str, rows: Sequence[Row], metric: Metric, scale: charts.Scale) -> go.Scatter:
    look = charts.marker(rows[0])
    return go.Scatter(
        x=[row["batch_size"] for row in rows],
        y=[scale(row[metric.name]) for row in rows],
        error_y=charts.intervals(rows, metric.name, scale),
        name=charts.text(name),
        mode="lines+markers",
        marker=look,
        line={"color": look["color"], "dash": theme.precision_dash(rows[0]["precision"]), "width": 2},
        hovertext=[charts.hover(row, [metric]) for row in rows],
        hoverinfo="text",
    )


def bars(rows: Sequence[Row], data: ReportData) -> go.Figure:
    """A horizontal bar per row, under a heading for each work, with the latency and the speed-up at its end."""
    metric = data.metrics["latency_s"]
    ordered, axis = charts.rows_of(rows)
    scale = charts.scale_for([row[metric.name] for row in ordered], metric.unit)
    shown = [metric, *(data.metrics[n] for n in ("throughput",) if n in data.metrics)]
    figure = charts.figure(**axis.layout)
    figure.add_trace(
        go.Bar(
            x=[scale(row[metric.name]) for row in ordered], y=list(axis.places), orientation="h", width=0.66,
            showlegend=False, marker={"color": [theme.backend_colour(row["backend"]) for row in ordered]},
            error_x=charts.intervals(ordered, metric.name, scale),
            hovertext=[charts.hover(row, shown) for row in ordered], hoverinfo="text",
        )
    )  # fmt: skip
    words = [value_text(row, metric) + _times(row) for row in ordered]
    charts.add_end_labels(figure, axis, charts.ends_of(ordered, metric.name, scale), words)
    figure.update_xaxes(title_text=charts.axis_title(metric, scale))
    return figure


def _times(row: Row) -> str:
    """The speed relative to the reference of the row's group: ' · 1.60x'; '' for the reference, and without a ratio."""
    if row.get("speedup") is None or row["speedup_reference"] == row["case_id"]:
        return ""
    return f" · {ratio_text(row['speedup'])}"
