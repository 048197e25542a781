"""What the charts can draw: the markers, lines and colours that a precision or a backend may declare.

`reports.theme` uses them. They stand here, since the entries of the registries are checked without plotly.
"""

from __future__ import annotations

import re
from typing import Final

from harness.entries import Rule

# plotly's markers, each of which also exists hollow.
MARKERS: Final = frozenset(
    (
        *(
            "circle",
            "square",
            "diamond",
            "cross",
            "x",
            "pentagon",
            "hexagon",
            "hexagon2",
            "octagon",
            "star",
            "hexagram",
        ),
        *("hourglass", "bowtie", "asterisk", "hash", "diamond-tall", "diamond-wide", "star-square", "star-diamond"),
        *("star-triangle-up", "star-triangle-down", "circle-cross", "circle-x", "square-cross", "square-x"),
        *("diamond-cross", "diamond-x", "cross-thin", "x-thin", "arrow", "arrow-wide"),
        *(f"triangle-{side}" for side in ("up", "down", "left", "right", "ne", "se", "sw", "nw")),
        *(f"{shape}-{side}" for shape in ("y", "arrow", "arrow-bar") for side in ("up", "down", "left", "right")),
        *(f"line-{side}" for side in ("ew", "ns", "ne", "nw")),
    )
)
LINES: Final = ("solid", "dot", "dash", "longdash", "dashdot", "longdashdot")
_LENGTHS: Final = re.compile(r"\d+(\.\d+)?(px|%)?([ ,]+\d+(\.\d+)?(px|%)?)*")
_COLOUR: Final = re.compile("#[0-9a-fA-F]{6}")

MARKER: Final = Rule(
    lambda value: isinstance(value, str) and value in MARKERS, "one of plotly's markers, such as 'circle'"
)
LINE_STYLE: Final = Rule(
    lambda value: isinstance(value, str) and (value in LINES or _LENGTHS.fullmatch(value) is not None),
    f"{', '.join(map(repr, LINES))}, or lengths such as '4px,2px'",
)
COLOUR: Final = Rule(
    lambda value: isinstance(value, str) and _COLOUR.fullmatch(value) is not None, "a colour of the form '#2f7ec7'"
)
