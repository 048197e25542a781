"""The rows of a frame as plain mappings: None for missing, whole numbers as int."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.frames import INTEGERS
from harness.types import AXES


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None for every missing value, and whole numbers as int again."""
    return [
        {str(key): _whole(_plain(value)) if key in (*AXES, *INTEGERS) else _plain(value) for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _whole(value: Any) -> Any:
    # pandas turns a column of whole numbers with a hole in it into floats
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, str | int | bool | list | dict | tuple):
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    return None if value is pd.NA or value is pd.NaT else value
