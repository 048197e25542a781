"""One palette for every chart and for the page, so that a backend looks the same wherever it appears.

A backend is a hue, a precision is a marker and a dash: both stay apart in grey print and for colour-blind readers
(hues after Okabe & Ito 2008, darkened or lightened to at least 3:1 on both the light and the dark page).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import plotly.graph_objects as go

BACKENDS: Mapping[str, str] = {
    "eager": "#2f7ec7",
    "torch_compile": "#d9641e",
    "onnxruntime": "#0f9b72",
    "cuda_graphs": "#8a6fd6",
    "tensorrt": "#c2589a",
    "openvino": "#a8842c",
    "torch_compile_max_autotune": "#b4584e",
    "torch_compile_reduce_overhead": "#7d8794",
    "onnxruntime_tensorrt": "#3a9fb5",
}
SPARE = ("#6f8f3a", "#5563c1", "#8c5a2b", "#4a8a8a", "#99577a")

SYMBOLS: Mapping[str, str] = {
    "fp32": "circle",
    "tf32": "hexagon",
    "bf16": "diamond",
    "fp16": "square",
    "int8_dynamic": "triangle-up",
    "int8_dynamic_classic": "triangle-down",
    "int8_static": "star",
    "int8_weight_only": "pentagon",
    "int8_dynamic_bf16": "triangle-left",
    "int8_dynamic_fp16": "triangle-right",
    "int8_static_bf16": "hexagram",
    "int8_static_fp16": "star-diamond",
    "int8_weight_only_bf16": "hexagon2",
    "int8_weight_only_fp16": "octagon",
    "fp8_e4m3": "cross",
}
DASHES: Mapping[str, str] = {
    "fp32": "solid",
    "tf32": "longdash",
    "bf16": "dash",
    "fp16": "dashdot",
    "int8_dynamic": "dot",
    "int8_dynamic_classic": "2px,6px",
    "int8_static": "8px,2px,2px,2px",
    "int8_weight_only": "4px,8px",
    "int8_dynamic_bf16": "2px,4px",
    "int8_dynamic_fp16": "2px,10px",
    "int8_static_bf16": "12px,2px,2px,2px",
    "int8_static_fp16": "8px,2px,2px,2px,2px,2px",
    "int8_weight_only_bf16": "4px,4px",
    "int8_weight_only_fp16": "4px,12px",
    "fp8_e4m3": "longdashdot",
}

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
    """The colour of a backend; one that the palette does not name gets a spare colour by its name."""
    return BACKENDS.get(backend) or SPARE[zlib.crc32(backend.encode()) % len(SPARE)]


def precision_symbol(precision: str, second_run: bool = False) -> str:
    """The marker of a precision, hollow for every run after the first."""
    return SYMBOLS.get(precision, "star") + ("-open" if second_run else "")


def precision_dash(precision: str) -> str:
    return DASHES.get(precision, "solid")


def stage_colour(index: int, name: str) -> str:
    """The colour of a pipeline stage by its place; what is no network ("other") is grey."""
    return OTHER_STAGE if name == "other" else STAGES[index % len(STAGES)]


def css_variables(palette: Mapping[str, str]) -> str:
    """`--page: #fff; ...` for the style sheet.

    >>> css_variables({"page": "#fff"})
    '--page: #fff;'
    """
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())
