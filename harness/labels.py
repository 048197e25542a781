"""The readable text of a case, which `Case.label` returns."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.types import Case

_AXES_IN_WORDS = (
    ("image_size", "{} px"),
    ("scheduler", "{}"),
    ("num_steps", "{} steps"),
    ("guidance_scale", "guidance {:g}"),
    ("prompt", '"{}"'),
    ("optimizations", "{}"),
)
# Line breaks, tabs, and the marks that change the text direction of the rest of a line.
_BREAKING = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u200e\\u200f\\u061c\\u202a-\\u202e\\u2066-\\u2069]")


def of(case: Case) -> str:
    """Model, backend, precision and batch, then every axis that the case has, then a seed that is not 0."""
    named = case.model if case.model.startswith(f"{case.weights}_") else f"{case.model} ({case.weights})"
    parts = [named, case.backend, case.precision, f"batch {case.batch_size}"]
    given = ((words, getattr(case, axis)) for axis, words in _AXES_IN_WORDS)
    parts += [words.format(on_one_line(value)) for words, value in given if value is not None]
    if case.seed:
        parts.append(f"seed {case.seed}")
    return " · ".join(parts)


def on_one_line(value: Any) -> Any:
    """A text with characters that would break a line escaped; any other value unchanged.

    >>> on_one_line("a cat\\non a mat")
    'a cat\\\\non a mat'
    """
    if not isinstance(value, str):
        return value
    return _BREAKING.sub(lambda found: json.dumps(found[0])[1:-1], value)
