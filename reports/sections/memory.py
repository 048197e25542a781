"""Memory: the peaks of the device and of the host, and the size of the weights by precision."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from harness.types import Metric
from reports import charts, theme
from reports.rows import Row, grouped, measured, panels
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section
from reports.wording import MISSING, most_common, value_text

WEIGHTS = "weights_bytes"
PEAKS = ("peak_allocated_bytes", "peak_host_bytes")
ALL = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_driver_bytes", "peak_host_bytes", WEIGHTS)


@SECTIONS.add("memory")
def memory(data: ReportData) -> Section | NotShown:
    shown = [name for name in PEAKS if name in data.metrics]
    figures = tuple(
        Chart(title=f"{data.metrics[name].label}: {model}", figure=peak_bars(group, data.metrics[name], data))
        for name in shown
        for model, group in panels(measured(data, name)).items()
    )
    if not figures:
        return NotShown(title="Memory", reason=reason_for(data, PEAKS))
    used = [data.metrics[name] for name in shown if measured(data, name)]
    note = " ".join(f"{m.label}: {m.description.rstrip('.')}." for m in used)
    table = weights_table(measured(data, WEIGHTS), data.metrics[WEIGHTS]) if WEIGHTS in data.metrics else None
    if table is not None:
        note += " The solid part of a bar is the weights, as far as their size is known; the table has the sizes."
    return Section(order=50, title="Memory", note=note, figures=figures, table=table)


def reason_for(data: ReportData, names: Sequence[str]) -> str:
    """The most frequent reason why none of these metrics was measured."""
    reasons = [r for row in measured(data) for n, r in (row["missing"] or {}).items() if n in names]
    return most_common(reasons)[0][0] if reasons else "no valid row has a value"


def peak_bars(rows: Sequence[Row], peak: Metric, data: ReportData) -> go.Figure:
    """One bar per row up to its peak, with the weights over it."""
    ordered, axis = charts.rows_of(rows)
    scale = charts.scale_for([row[peak.name] for row in ordered], peak.unit)
    colours = [theme.backend_colour(row["backend"]) for row in ordered]
    shown = [data.metrics[name] for name in ALL if name in data.metrics]
    common = {"y": list(axis.places), "orientation": "h", "width": 0.66, "showlegend": False, "hoverinfo": "text",
              "hovertext": [charts.hover(row, shown) for row in ordered]}  # fmt: skip
    figure = charts.figure(**axis.layout, barmode="overlay")
    peaks = [scale(row[peak.name]) for row in ordered]
    figure.add_trace(go.Bar(x=peaks, marker={"color": colours, "opacity": 0.5}, **common))
    weights = [scale(row.get(WEIGHTS)) for row in ordered]
    figure.add_trace(go.Bar(x=weights, marker={"color": colours}, **common))
    charts.add_end_labels(figure, axis, peaks, [value_text(row, peak) for row in ordered])
    figure.update_xaxes(title_text=charts.axis_title(peak, scale))
    return figure


def weights_table(rows: Sequence[Row], metric: Metric) -> pd.DataFrame | None:
    """Bytes of weights by model and precision; if backends differ, each is named."""
    if not rows:
        return None
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    lines = []
    for (model, weights), group in grouped(rows, lambda r: (r["model"], r["weights"])).items():
        cells = [_sizes([row for row in group if row["precision"] == p], metric) for p in precisions]
        lines.append([model, weights, *cells])
    return pd.DataFrame(lines, columns=["Model", "Weights from", *(f"{metric.label} in {p}" for p in precisions)])


def _sizes(rows: Sequence[Row], metric: Metric) -> str:
    sizes = grouped(rows, lambda row: value_text(row, metric))
    if len(sizes) < 2:
        return next(iter(sizes), MISSING)
    return ", ".join(f"{size} ({' and '.join(dict.fromkeys(r['backend'] for r in g))})" for size, g in sizes.items())
