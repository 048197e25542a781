"""Quality against latency per image, with the Pareto front."""

from __future__ import annotations

import plotly.graph_objects as go

from harness.units import format_value
from reports import charts, theme
from reports.pareto import Front, fronts, point_name, point_value
from reports.rows import Row, grouped, measured, variant
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section


@SECTIONS.add("quality")
def quality(data: ReportData) -> Section | NotShown:
    found = fronts(data)
    if not found:
        random = bool(measured(data)) and all(r["weights"] == "random" for r in measured(data))
        reason = (
            "all rows have random weights, so their quality has no meaning" if random else "no valid row has a quality"
        )
        return NotShown(title="Quality against latency", reason=reason)
    titles = [front.title for front in found]
    figures = tuple(
        Chart(
            title=f"{front.title}: {front.metric.label} against latency per image",
            figure=scatter(front), note=_note(front),
            listing=tuple((point_name(row, front.rows), point_value(row, front)) for row in front.best),
            wide=titles.count(front.title) % 2 == 1 and front.title not in titles[i + 1 :],
        )
        for i, front in enumerate(found)
    )  # fmt: skip
    note = (
        "Points further up and to the left are better. The line is the Pareto front by point estimates: no other row "
        "is better in both quality and latency. Its numbers refer to the list below the chart. Within rows of the same "
        "work, the latency of a row is that of their reference divided by the row's paired ratio, with the 95 % "
        "interval of this ratio. Other error bars are 95 % intervals of the latency and of the quality. Each chart "
        "shows one model at one image size."
    )
    return Section(order=40, title="Quality against latency", note=note, figures=figures)


def _note(front: Front) -> str:
    better = "lower is better, so the axis is inverted" if front.metric.better == "lower" else "higher is better"
    counts = sorted({row["quality_items"] for row in front.rows if row.get("quality_items") is not None})
    items = f" Measured on {' or '.join(f'{n:,.0f}' for n in counts)} items per row." if counts else ""
    return f"{front.metric.label}: {front.metric.description}; {better}.{items}"


def scatter(front: Front) -> go.Figure:
    """One point per row by backend and precision, and the front as a stepped line."""
    seconds = [front.per_image(row) for row in front.rows]
    x_scale = charts.scale_for(seconds, "s")
    y_scale = charts.scale_for([row[front.metric.name] for row in front.rows], front.metric.unit)
    figure = charts.figure(400)
    figure.add_trace(_front_line(front, x_scale, y_scale))
    for name, rows in grouped(front.rows, variant).items():
        figure.add_trace(_points(name, rows, front, x_scale, y_scale))
    figure.add_trace(_numbers(front, x_scale, y_scale))
    figure.update_xaxes(title_text=f"Latency per image ({x_scale.unit})")
    if charts.is_wide(seconds, 6):
        figure.update_xaxes(charts.log_axis([x_scale(s) for s in seconds], 0.14))
    else:
        figure.update_xaxes(rangemode="tozero", range=[0, max(seconds) / x_scale.divisor * 1.12])
    figure.update_yaxes(title_text=charts.axis_title(front.metric, y_scale))
    if front.metric.better == "lower":
        figure.update_yaxes(autorange="reversed")
    return figure


def _points(name: str, rows: list[Row], front: Front, x_scale: charts.Scale, y_scale: charts.Scale) -> go.Scatter:
    metric = front.metric
    colour = theme.backend_colour(rows[0]["backend"])
    x_errors = charts.intervals([_seconds(row, front) for row in rows], "seconds", x_scale)
    faint = {"color": _faint(colour)}
    return go.Scatter(
        x=[x_scale(front.per_image(row)) for row in rows],
        y=[y_scale(row[metric.name]) for row in rows],
        error_x=x_errors | faint,
        error_y=charts.intervals(rows, metric.name, y_scale) | faint,
        name=charts.text(name),
        mode="markers",
        marker=charts.marker(rows[0], size=10),
        hovertext=[charts.hover(row, [metric], f"{format_value(front.per_image(row), 's')} per image") for row in rows],
        hoverinfo="text",
    )


def _seconds(row: Row, front: Front) -> Row:
    """The seconds per image with their bounds, as a record of its own."""
    found = front.seconds[row["case_id"]]
    return {"seconds": found.value, "seconds_low": found.low, "seconds_high": found.high}


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.4)"


def _front_line(front: Front, x_scale: charts.Scale, y_scale: charts.Scale) -> go.Scatter:
    return go.Scatter(
        x=[x_scale(front.per_image(row)) for row in front.best],
        y=[y_scale(row[front.metric.name]) for row in front.best],
        mode="lines", line={"color": theme.NEUTRAL, "width": 2, "shape": "hv"}, name="Pareto front", hoverinfo="skip",
    )  # fmt: skip


def _numbers(front: Front, x_scale: charts.Scale, y_scale: charts.Scale) -> go.Scatter:
    return go.Scatter(
        x=[x_scale(front.per_image(row)) for row in front.best],
        y=[y_scale(row[front.metric.name]) for row in front.best],
        mode="text", text=[f"<b>{i}</b>\u00a0\u00a0\u00a0" for i in range(1, len(front.best) + 1)],
        textposition="middle left", textfont={"size": 13}, showlegend=False, hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip
