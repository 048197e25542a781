"""Formats values in base units as text, such as "2.13 ms" or "1.50 MiB". No other file scales units.

>>> format_value(0.00213, "s"), format_value(1536 * 1024, "B"), format_value(0.9912, "share")
('2.13 ms', '1.50 MiB', '99.1 %')
"""

from __future__ import annotations

import math

_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BINARY = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B"))
_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))

MISSING = "–"


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent: 0.00213 -> '0.00213', 12345 -> '12345'."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def scale(value: float, unit: str) -> tuple[float, str]:
    """(divisor, unit text) that show `value` best; the divisor turns base units into the text's unit."""
    magnitude = abs(value)
    if unit == "s":
        return next(((f, u) for f, u in _TIME if magnitude >= f * 0.9995), _TIME[2])
    if unit == "B":
        return next(((float(f), u) for f, u in _BINARY if magnitude >= f), (1.0, "B"))
    if unit in {"J", "W"}:
        return (1e-3, f"m{unit}") if 0 < magnitude < 0.9995 else (1.0, unit)
    if unit == "count":
        return next(((f, u) for f, u in _DECIMAL if magnitude >= f and f >= 1e6), (1.0, ""))
    if unit == "share":
        return 0.01, "%"
    return 1.0, "" if unit == "1" else unit


def counted(number: int, noun: str) -> str:
    """'1 row', '3 rows', '1 process', '3 processes'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def percent(part: float, form: str = "+.1") -> str:
    """A share or a change in percent, in a format such as "+.1" or ".0": 0.123 -> '+12.3 %'."""
    return f"{part:{form}%}".removesuffix("%") + " %"


def format_value(value: float | None, unit: str, digits: int = 3) -> str:
    """A number with a readable unit; a missing value is an en dash, never a zero."""
    if value is None or not math.isfinite(value):
        return MISSING
    divisor, text = scale(value, unit)
    scaled = value / divisor
    if unit == "count" and divisor == 1.0:
        number = f"{scaled:,.0f}"
    elif unit == "share":
        number = f"{scaled:.1f}"
    elif unit == "B" and divisor == 1.0:
        number = f"{scaled:.0f}"
    else:
        number = significant(scaled, digits)
    return f"{number} {text}".rstrip()


def format_duration(seconds: float) -> str:
    """Seconds as readable text: '8 s', '2 min 05 s', '1 h 03 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
