"""The spread of samples and of processes around a row's median: the noise behind the intervals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from reports import charts, theme
from reports.rows import Row, measured, panels, variant
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section

POINTS_PER_PROCESS = 40
Groups = dict[tuple[str, str], dict[int, list[float]]]


@SECTIONS.add("samples")
def samples(data: ReportData) -> Section | NotShown:
    rows = measured(data, "latency_s")
    raw = latency_samples(data.samples)
    rows = [row for row in rows if (row["run"], row["case_id"]) in raw]
    if not rows:
        return NotShown(title="Spread of samples", reason="no raw latency samples are stored")
    figures = [
        Chart(title=f"Samples by process: {model}", figure=spread(group, raw)) for model, group in panels(rows).items()
    ]
    note = (
        "Each dot is a latency sample divided by the row's median, without warm-up. Each process of a row has its own "
        "line, because processes usually differ more than iterations. At most "
        f"{POINTS_PER_PROCESS} samples per process are shown, evenly spaced in rank, with the smallest and the largest."
    )
    return Section(order=75, title="Spread of samples", note=note, figures=tuple(figures))


def latency_samples(frame: pd.DataFrame) -> Groups:
    """Steady latency samples by (run, case) and process."""
    chosen = frame[(frame["metric"] == "latency_s") & (frame["phase"] == "steady")] if len(frame) else frame
    found: Groups = {}
    for run, case, replicate, value in zip(*(chosen[c] for c in ("run", "case_id", "replicate", "value")), strict=True):
        found.setdefault((run, case), {}).setdefault(int(replicate), []).append(float(value))
    return found


def spread(rows: Sequence[Row], raw: Groups) -> go.Figure:
    """One line of dots per process, in the colour of the backend."""
    ordered, axis = charts.rows_of(rows)
    figure = charts.figure(**axis.layout)
    for place, row in zip(axis.places, ordered, strict=True):
        figure.add_trace(_dots(row, place, raw[(row["run"], row["case_id"])]))
    figure.update_xaxes(title_text="Sample / median of the row", tickformat=".2~f")
    figure.add_vline(x=1, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    return figure


def _dots(row: Row, place: float, processes: dict[int, list[float]]) -> go.Scatter:
    count = len(processes)
    x: list[float] = []
    y: list[float] = []
    words: list[str] = []
    for position, (replicate, values) in enumerate(sorted(processes.items())):
        offset = 0.0 if count == 1 else (position / (count - 1) - 0.5) * 0.56
        kept = thinned(values, POINTS_PER_PROCESS)
        x += [value / row["latency_s"] for value in kept]
        y += [place + offset] * len(kept)
        words += [charts.lines(variant(row), f"process {replicate}, {len(values)} samples")] * len(kept)
    marker = {"size": 4.5, "color": theme.backend_colour(row["backend"]), "opacity": 0.5}
    return go.Scatter(x=x, y=y, mode="markers", marker=marker, hovertext=words, hoverinfo="text", showlegend=False)


def thinned(values: Sequence[float], limit: int) -> list[float]:
    """At most `limit` order statistics, evenly spaced, with the smallest and the largest.

    >>> thinned([3.0, 1.0, 2.0, 5.0, 4.0], 3)
    [1.0, 3.0, 5.0]
    """
    ordered = sorted(values)
    if len(ordered) <= limit:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (limit - 1))] for i in range(limit)]
