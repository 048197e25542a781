"""Strict JSON for files from outside: refuses values that `json.loads` accepts and that no computation can use.

    strict_json.read(path)      # ValueError: NaN, 1e999, a whole number of 400 digits, half a character

NaN and Infinity are not JSON. A number beyond the range of a float would become infinite, and half a surrogate pair
("\\ud800") can be neither printed nor written to a file. A byte order mark, which some editors write, is skipped.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

LARGEST: Final = 2**63  # limit of whole numbers: enough for counters, bytes and nanoseconds
BYTE_ORDER_MARK: Final = "\ufeff"


class NotJson(ValueError):
    """Text that is not JSON, such as a truncated file; `str()` is one line."""


def loads(raw: bytes | str) -> Any:
    """The document in a JSON text. Raises ValueError, in one line."""
    text = raw if isinstance(raw, str) else _decoded(raw)
    text = text.removeprefix(BYTE_ORDER_MARK)
    try:
        document = json.loads(text, parse_constant=_constant)
        _check_numbers(document)
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except json.JSONDecodeError as error:
        empty = "empty" if not text.strip() else f"not JSON: {error.msg}"
        raise NotJson(f"{empty} (line {error.lineno}, column {error.colno})") from None
    if "\\ud" in text or "\\uD" in text:
        _check_characters(document)
    return document


def read(path: Path) -> Any:
    """The document in a file. Raises FileNotFoundError if there is none, and ValueError, in one line without the path,
    if it cannot be read. A folder is refused, and so is a pipe, which might block for ever."""
    if path.is_symlink() and not path.exists():
        raise ValueError("is a link to a file that does not exist")
    if path.exists() and not path.is_file():
        raise ValueError("is not a file")
    try:
        return loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 text (byte {error.start})") from None


def _constant(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _check_numbers(value: Any) -> None:
    """Raises ValueError for a number that fits neither a float nor a 64-bit integer. Long lists (samples) are checked
    by built-in functions, which are faster."""
    if isinstance(value, dict):
        for item in value.values():
            _check_numbers(item)
    elif isinstance(value, list):
        if not (set(map(type, value)) <= {float} and all(map(math.isfinite, value))):
            for item in value:
                _check_numbers(item)
    elif type(value) is float and not math.isfinite(value):
        raise ValueError("a number is beyond the range of a float")
    elif type(value) is int and abs(value) > LARGEST:
        raise ValueError("a number is beyond the range of a 64-bit whole number")


def _check_characters(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a string holds one half of a character (a lone surrogate, \\ud800 to \\udfff)") from None
