"""Energy per image from a hardware counter, gross and net of idle power."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from harness.types import Metric
from reports import charts, theme
from reports.rows import Row, measured, panels
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section
from reports.sections.memory import reason_for
from reports.wording import value_text

GROSS, NET, POWER = "energy_per_image_j", "energy_net_per_image_j", "mean_power_w"


@SECTIONS.add("energy")
def energy(data: ReportData) -> Section | NotShown:
    rows = measured(data, GROSS) if GROSS in data.metrics else []
    if not rows:
        return NotShown(title="Energy", reason=reason_for(data, (GROSS, NET, POWER)))
    figures = tuple(
        Chart(title=f"{data.metrics[GROSS].label}: {model}", figure=energy_bars(group, data))
        for model, group in panels(rows).items()
    )
    named = [data.metrics[name] for name in (GROSS, NET, POWER) if name in data.metrics]
    note = (
        " ".join(f"{m.label}: {m.description}." for m in named)
        + " The solid part of a bar is the energy net of idle power."
    )
    return Section(order=60, title="Energy", note=note, figures=figures)


def energy_bars(rows: Sequence[Row], data: ReportData) -> go.Figure:
    """One bar per row: gross energy, the net part over it, and the mean power as text."""
    ordered, axis = charts.rows_of(rows)
    gross = data.metrics[GROSS]
    scale = charts.scale_for([row[GROSS] for row in ordered], gross.unit)
    colours = [theme.backend_colour(row["backend"]) for row in ordered]
    shown: list[Metric] = [data.metrics[n] for n in (GROSS, NET, POWER) if n in data.metrics]
    common = {"y": list(axis.places), "orientation": "h", "width": 0.66, "showlegend": False, "hoverinfo": "text",
              "hovertext": [charts.hover(row, shown) for row in ordered]}  # fmt: skip
    figure = charts.figure(**axis.layout, barmode="overlay")
    values = [scale(row[GROSS]) for row in ordered]
    errors = charts.intervals(ordered, GROSS, scale)
    figure.add_trace(go.Bar(x=values, marker={"color": colours, "opacity": 0.42}, error_x=errors, **common))
    figure.add_trace(go.Bar(x=[scale(row.get(NET)) for row in ordered], marker={"color": colours}, **common))
    charts.add_end_labels(figure, axis, charts.ends_of(ordered, GROSS, scale), [_words(row, data) for row in ordered])
    figure.update_xaxes(title_text=charts.axis_title(gross, scale))
    return figure


def _words(row: Row, data: ReportData) -> str:
    power = data.metrics.get(POWER)
    extra = f" · {value_text(row, power)}" if power and row.get(POWER) is not None else ""
    return value_text(row, data.metrics[GROSS]) + extra
