"""The spread of samples and of processes around a row's median: the noise behind the intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from reports import charts, theme
from reports.rows import Row, measured, panels, variant
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section

POINTS_PER_PROCESS = 40
POINTS_PER_ROW = 240  # of many processes, each has fewer
FEWEST_POINTS = 3  # of a process: the smallest, the median and the largest sample


@dataclass(frozen=True, order=True)
class Process:
    """A process of a row; `round` is -1 if it was measured alone."""

    round: int
    replicate: int

    def __str__(self) -> str:
        return f"process {self.replicate}" if self.round < 0 else f"round {self.round}, process {self.replicate}"


Groups = dict[tuple[str, str], dict[Process, list[float]]]


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
        "line, because processes usually differ more than iterations. Of a row that was measured in rounds, the lines "
        "are the processes of its rounds, the first round at the top: a drift of the machine's speed moves them, and "
        f"it cancels in the ratios. At most {POINTS_PER_PROCESS} samples per process (of a row with many processes "
        f"fewer, about {POINTS_PER_ROW} in all) are shown, evenly spaced in rank, with the smallest and the largest."
    )
    return Section(order=75, title="Spread of samples", note=note, figures=tuple(figures))


def latency_samples(frame: pd.DataFrame) -> Groups:
    """Steady latency samples by (run, case) and process; of a row with rounds, those of its rounds only."""
    chosen = frame[(frame["metric"] == "latency_s") & (frame["phase"] == "steady")] if len(frame) else frame
    found: Groups = {}
    columns = ("run", "case_id", "replicate", "round", "value")
    for run, case, replicate, number, value in zip(*(chosen[c] for c in columns), strict=True):
        process = Process(-1 if pd.isna(number) else int(number), int(replicate))
        found.setdefault((run, case), {}).setdefault(process, []).append(float(value))
    return {row: _of_rounds(processes) for row, processes in found.items()}


def _of_rounds(processes: dict[Process, list[float]]) -> dict[Process, list[float]]:
    """The processes of rounds; all if there are none."""
    return {process: values for process, values in processes.items() if process.round >= 0} or processes


def spread(rows: Sequence[Row], raw: Groups) -> go.Figure:
    """One line of dots per process, in the colour of the backend."""
    ordered, axis = charts.rows_of(rows)
    figure = charts.figure(**axis.layout)
    for place, row in zip(axis.places, ordered, strict=True):
        figure.add_trace(_dots(row, place, raw[(row["run"], row["case_id"])]))
    figure.update_xaxes(title_text="Sample / median of the row", tickformat=".2~f")
    figure.add_vline(x=1, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    return figure


def _dots(row: Row, place: float, processes: dict[Process, list[float]]) -> go.Scatter:
    count = len(processes)
    x: list[float] = []
    y: list[float] = []
    words: list[str] = []
    limit = min(POINTS_PER_PROCESS, max(FEWEST_POINTS, POINTS_PER_ROW // count))
    for position, (process, values) in enumerate(sorted(processes.items())):
        offset = 0.0 if count == 1 else (position / (count - 1) - 0.5) * 0.56
        kept = thinned(values, limit)
        x += [value / row["latency_s"] for value in kept]
        y += [place + offset] * len(kept)
        words += [charts.lines(variant(row), f"{process}, {len(values)} samples")] * len(kept)
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
