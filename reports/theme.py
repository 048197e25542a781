"""The palette of all charts and of the page.

A backend has a colour, and a precision has a marker and a line style, so that both are distinguishable in greyscale and
for colour-blind readers. The colours follow Okabe & Ito 2008, with a contrast of at least 3:1 on the light and the dark
page. Backends and precisions declare their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import plotly.graph_objects as go

from harness.registry import BACKENDS, PRECISIONS

UNKNOWN_SYMBOL = "star"
SPARE = ("#6f8f3a", "#5563c1", "#8c5a2b", "#4a8a8a", "#99577a")

STATUSES: Mapping[str, str] = {
    "ok": "#1f9d63",
    "skipped": "#7d8794",
    "not_run": "#a5adb8",
    "failed": "#d3413b",
    "invalid": "#c2589a",
    "oom": "#8a6fd6",
    "timeout": "#c9821c",
}
OUTCOMES: Mapping[str, str] = {
    "regressed": "#d3413b",
    "missing": "#c2589a",
    "not_comparable": "#8a6fd6",
    "inconclusive": "#c9821c",
    "improved": "#1f9d63",
    "new": "#2f7ec7",
    "unchanged": "#7d8794",
}
STAGES = ("#2f7ec7", "#d9641e", "#0f9b72", "#8a6fd6", "#a8842c", "#c2589a", "#3a9fb5", "#b4584e")
OTHER_STAGE = "#8d96a3"
NEUTRAL = "#8d96a3"
WHOLE = "#f0b429"

LIGHT = {
    "page": "#f5f6f8",
    "card": "#ffffff",
    "sunken": "#f0f2f5",
    "border": "#dfe3e8",
    "grid": "#e8ebef",
    "text": "#1a212b",
    "muted": "#5a6675",
    "accent": "#1f5fb8",
}
DARK = {
    "page": "#0e1217",
    "card": "#161b22",
    "sunken": "#1d242d",
    "border": "#2b333e",
    "grid": "#262d37",
    "text": "#e7eaef",
    "muted": "#9ba7b6",
    "accent": "#76aef5",
}

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, 'SF Mono', 'Cascadia Code', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_AXIS = {"automargin": True, "gridcolor": LIGHT["grid"], "zeroline": False, "linecolor": LIGHT["border"]}
_TITLE = {"font": {"size": 12}, "standoff": 10}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": LIGHT["text"]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 16, "t": 10, "b": 8},
        "xaxis": {**_AXIS, "title": _TITLE},
        "yaxis": {**_AXIS, "title": _TITLE},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"align": "left", "namelength": -1, "font": {"family": FONT, "size": 12}},
        "bargap": 0.28,
    }
)


def backend_colour(backend: str) -> str:
    """The colour that a backend declares; an unknown backend, or one without a colour, has one chosen by its name."""
    declared: str | None = getattr(BACKENDS.get(backend), "colour", None)
    return declared or SPARE[zlib.crc32(backend.encode()) % len(SPARE)]


def precision_symbol(precision: str, second_run: bool = False) -> str:
    """The marker of a precision, hollow for every run after the first."""
    declared: str = PRECISIONS[precision].symbol if precision in PRECISIONS else UNKNOWN_SYMBOL
    return declared + ("-open" if second_run else "")


def precision_dash(precision: str) -> str:
    return PRECISIONS[precision].dash if precision in PRECISIONS else "solid"


def stage_colour(index: int, name: str) -> str:
    """The colour of a pipeline stage by its position; the host code ("other") is grey."""
    return OTHER_STAGE if name == "other" else STAGES[index % len(STAGES)]


def css_variables(palette: Mapping[str, str]) -> str:
    """`--page: #fff; ...` for the style sheet.

    >>> css_variables({"page": "#fff"})
    '--page: #fff;'
    """
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())
