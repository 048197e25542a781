"""Numbers as text, with their unit and, if there is one, their interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from baselines.verdict import OUTCOMES, Verdict
from harness.types import Metric
from harness.units import MISSING, format_value, scale, significant
from reports.rows import Row, bounds


def interval_text(low: float, high: float, unit: str, beside: float) -> str:
    """'[2.05, 2.20]' in the unit in which its value, `beside`, is printed.

    >>> interval_text(0.00205, 0.0022, "s", 0.0021)
    '[2.05, 2.20]'
    """
    divisor, _ = scale(beside, unit)
    low, high = low / divisor, high / divisor
    if unit == "share":
        return f"[{low:.1f}, {high:.1f}]"
    return f"[{significant(low)}, {significant(high)}]"


def value_text(row: Row, metric: Metric) -> str:
    """'2.13 ms', or an en dash."""
    value = row.get(metric.name)
    if metric.unit == "1" and value is not None and 0.9 <= value < 1:
        return nearly_one(value)
    return format_value(value, metric.unit)


def nearly_one(value: float) -> str:
    """A similarity close to 1, with enough digits to distinguish it from 1.

    >>> nearly_one(0.999987), nearly_one(0.9812)
    ('0.999987', '0.981')
    """
    decimals = min(8, max(3, 1 - math.floor(math.log10(1 - value))))
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def cosine_text(value: float | None) -> str:
    """A cosine with enough digits to distinguish it from 1, or an en dash. A value above 1 by rounding is 1."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value >= 1:
        return "1"
    return nearly_one(value) if value >= 0.9 else f"{value:.3g}"


def bounds_text(row: Row, metric: Metric) -> str:
    """'[2.05, 2.20]', or an empty text without an interval."""
    found = bounds(row, metric.name)
    return interval_text(*found, metric.unit, row[metric.name]) if found else ""


def estimate(row: Row, metric: Metric) -> str:
    """'2.13 ms [2.05, 2.20]'."""
    return f"{value_text(row, metric)} {bounds_text(row, metric)}".rstrip()


def ratio_text(ratio: float, low: float | None = None, high: float | None = None) -> str:
    """'2.41x [2.30, 2.52]'."""
    text = f"{significant(ratio)}x"
    return text if low is None or high is None else f"{text} [{significant(low)}, {significant(high)}]"


def listed(items: Sequence[str], limit: int = 3) -> str:
    """'a, b and c', or 'a, b, c and 4 more'.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d"], limit=2)
    ('a and b', 'a, b and 2 more')
    """
    if len(items) > limit:
        return f"{', '.join(items[:limit])} and {len(items) - limit} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def outcomes_text(verdicts: Sequence[Verdict]) -> list[str]:
    """['2 regressed (1 advisory)', '140 unchanged'], the most severe first. Advisory changes are marked."""
    found = []
    for outcome in OUTCOMES:
        of_it = [v.gating for v in verdicts if v.outcome == outcome]
        advisory = of_it.count(False) if outcome in {"regressed", "improved"} else 0
        told = "" if not advisory else " (advisory)" if advisory == len(of_it) else f" ({advisory} advisory)"
        if of_it:
            found.append(f"{len(of_it)} {outcome.replace('_', ' ')}{told}")
    return found


def most_common(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Reasons with their counts, the most frequent first, ties in order of appearance."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


__all__ = [
    "MISSING", "bounds_text", "cosine_text", "estimate", "interval_text", "listed", "most_common",
    "nearly_one", "outcomes_text", "ratio_text", "value_text",
]  # fmt: skip
