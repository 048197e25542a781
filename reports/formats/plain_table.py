"""A terminal table of rows that share their keys. It does not import pandas, so that lists print quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.units import MISSING


def plain_table(rows: Sequence[Mapping[str, Any]], empty: str = "none") -> Table | Text:
    """A table of rows that share their keys; missing values are a dash."""
    if not rows:
        return Text(empty)
    out = Table(box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        out.add_column(key.replace("_", " "), overflow="fold")
    for row in rows:
        out.add_row(*(Text(MISSING if value is None else str(value)) for value in row.values()))
    return out
