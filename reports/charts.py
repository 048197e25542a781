"""Plotly parts that the sections share: axes with units, intervals, rows with headings, escaped text.

Every figure also works in a notebook. The page removes the legend and shows its own beside the figure.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from harness.types import Metric
from harness.units import scale
from reports import theme
from reports.rows import Row, axis_text, headed, variant
from reports.wording import estimate

ROW_HEIGHT = 27
HEADING_HEIGHT = 30


def text(value: object, limit: int = 80) -> str:
    """`value` escaped for Plotly, whose labels accept some HTML tags, and cut to `limit` characters."""
    words = str(value)
    return html.escape(words if len(words) <= limit else f"{words[: limit - 1]}…", quote=False)


def lines(*parts: object) -> str:
    """Parts of a hover text, one per line."""
    return "<br>".join(text(part, 120) for part in parts if part)


def figure(height: int, **layout: Any) -> go.Figure:
    return go.Figure(layout={"template": theme.TEMPLATE, "height": height, **layout})


@dataclass(frozen=True)
class Scale:
    """The unit of an axis: values in base units are divided by `divisor`."""

    divisor: float
    unit: str

    def __call__(self, value: float | None) -> float | None:
        return None if value is None else value / self.divisor


def scale_for(values: Sequence[float | None], unit: str) -> Scale:
    """The scale that suits the median of these values."""
    known = sorted(v for v in values if v is not None and v > 0)
    return Scale(*scale(known[len(known) // 2] if known else 0.0, unit))


def axis_title(metric: Metric, axis_scale: Scale, suffix: str = "") -> str:
    """'Latency (ms)', from the metric's own label."""
    unit = f" ({axis_scale.unit})" if axis_scale.unit else ""
    return text(f"{metric.label}{suffix}{unit}")


def intervals(rows: Sequence[Row], metric: str, axis_scale: Scale) -> dict[str, Any]:
    """Plotly error bars from the 95 % bounds; a row without an interval has none."""

    def widths(side: str) -> list[float]:
        sign = 1 if side == "high" else -1
        ends = [r.get(f"{metric}_{side}") for r in rows]
        return [
            0.0 if e is None else max(0.0, sign * (e - r[metric])) / axis_scale.divisor
            for e, r in zip(ends, rows, strict=True)
        ]

    return {
        "type": "data", "array": widths("high"), "arrayminus": widths("low"), "symmetric": False,
        "thickness": 1.2, "width": 3,
    }  # fmt: skip


def hover(row: Row, metrics: Sequence[Metric], *more: str) -> str:
    """The hover text of a row: its axes, and the given metrics with unit and interval."""
    axes = ("batch_size", "image_size", "scheduler", "num_steps")
    where = " · ".join(axis_text(a, row[a]) for a in axes if row[a] is not None)
    values = [f"{m.label} {estimate(row, m)}" for m in metrics if row.get(m.name) is not None]
    return lines(f"{row['model']}, {variant(row)}", where, *values, *more)


def marker(row: Row, size: int = 9) -> dict[str, Any]:
    """The colour is the backend and the shape the precision; later runs have hollow markers."""
    symbol = theme.precision_symbol(row["precision"], second_run=row["run"] not in ("", "A"))
    return {"color": theme.backend_colour(row["backend"]), "symbol": symbol, "size": size}


@dataclass(frozen=True, kw_only=True)
class RowAxis:
    """Positions on a vertical axis for labelled rows under headings, and the figure height."""

    places: tuple[float, ...]
    labels: tuple[str, ...]
    headings: tuple[tuple[float, str], ...]
    height: int
    span: float

    @property
    def layout(self) -> dict[str, Any]:
        """`yaxis`, `annotations` and `height` of a figure that has these rows."""
        # a heading starts at the left edge of the labels, so that it fits on a narrow screen
        indent = -round(5.6 * min(34, max((len(label) for label in self.labels), default=0)))
        notes = [
            {"x": 0, "xref": "paper", "xanchor": "left", "y": y, "yref": "y", "text": f"<b>{text(words, 46)}</b>",
             "showarrow": False, "xshift": indent, "font": {"size": 12}}
            for y, words in self.headings
        ]  # fmt: skip
        axis = {
            "tickvals": list(self.places), "ticktext": [text(label, 34) for label in self.labels],
            "range": [self.span, -0.6], "showgrid": False, "fixedrange": True, "ticklabelstandoff": 6,
        }  # fmt: skip
        return {"yaxis": axis, "annotations": notes, "height": self.height}


def row_axis(groups: Mapping[str, Sequence[str]]) -> RowAxis:
    """The axis of rows by heading, from top to bottom. An empty heading has no line."""
    places: list[float] = []
    labels: list[str] = []
    headings: list[tuple[float, str]] = []
    y = 0.0
    for heading, names in groups.items():
        if heading:
            headings.append((y, heading))
            y += 1.0
        for name in names:
            places.append(y)
            labels.append(name)
            y += 1.0
        y += 0.25
    height = round(len(places) * ROW_HEIGHT + len(headings) * HEADING_HEIGHT + 78)
    return RowAxis(
        places=tuple(places), labels=tuple(labels), headings=tuple(headings), height=height, span=max(y - 0.5, 0.5)
    )


def rows_of(rows: Sequence[Row]) -> tuple[list[Row], RowAxis]:
    """The rows in the order of their headings, and the axis with a position for each row."""
    groups = headed(rows)
    return [row for group in groups.values() for row in group], row_axis(
        {h: [variant(r) for r in g] for h, g in groups.items()}
    )


def is_wide(values: Sequence[float | None], factor: float = 30.0) -> bool:
    """Whether the values span more than `factor`, so that a logarithmic axis is better."""
    known = [v for v in values if v is not None and v > 0]
    return bool(known) and max(known) / min(known) > factor


def log_range(values: Sequence[float | None], room: float = 0.12) -> list[float]:
    """The range of a logarithmic axis with a margin on both sides."""
    known = [math.log10(v) for v in values if v is not None and v > 0]
    width = max(max(known) - min(known), 0.3)
    return [min(known) - room * width, max(known) + room * width]


def log_axis(values: Sequence[float | None], room: float = 0.12) -> dict[str, Any]:
    """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten."""
    low, high = log_range(values, room)
    ticks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    shown = [t for t in ticks if low <= math.log10(t) <= high]
    return {"type": "log", "range": [low, high], "tickvals": shown, "ticktext": [f"{t:g}" for t in shown]}


def add_end_labels(figure: go.Figure, axis: RowAxis, ends: Sequence[float | None], words: Sequence[str]) -> None:
    """Adds texts at the right ends of horizontal bars, and a right margin for the longest text."""
    known = [end or 0.0 for end in ends]
    figure.add_trace(
        go.Scatter(
            x=known, y=list(axis.places), mode="text", text=[f" {text(w)}" for w in words], textposition="middle right",
            textfont={"size": 11}, cliponaxis=False, showlegend=False, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.update_layout(margin_r=16 + round(6.4 * max((len(w) for w in words), default=0)))
    figure.update_xaxes(range=[0, (max(known, default=0.0) or 1.0) * 1.03], nticks=5, tickangle=0)


def ends_of(rows: Sequence[Row], metric: str, axis_scale: Scale) -> list[float | None]:
    """The right end of each bar with its interval."""
    return [axis_scale(row.get(f"{metric}_high") or row[metric]) for row in rows]
