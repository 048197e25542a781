"""A value as error messages quote it: its repr, shortened to fit a line."""

from __future__ import annotations

import reprlib
from typing import Any, Final

LONGEST: Final = 80  # characters of one text

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = LONGEST
_REPR.maxlong = 30
_REPR.maxlevel = 3


def quoted(value: Any) -> str:
    """repr, cut in its middle.

    >>> quoted([1, "x" * 200])[:50]
    "[1, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    """
    return _REPR.repr(value)
