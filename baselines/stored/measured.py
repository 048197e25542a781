"""The reasons and warnings of a measurement by which a comparison decides."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final

from harness.reasons import STATED, Reason
from harness.types import IDENTICAL, Measurement

UNKNOWN_NAME: Final = "unknown_name"  # the code has no such model, backend or axis
UNCHECKED: Final = "unchecked"  # the output was not compared with an fp32 reference


def most_frequent(reasons: Sequence[Reason]) -> Reason:
    """The first reason of the kind that occurs most often."""
    usual = statistics.mode(reason.kind for reason in reasons)
    return next(reason for reason in reasons if reason.kind == usual)


def unchecked(measurement: Measurement) -> bool:
    """Whether the output was not compared with an fp32 reference, so that it may be wrong."""
    return any(warning.kind == UNCHECKED for warning in measurement.warnings)


def unknown_name(reason: Reason | None) -> bool:
    """Whether a row failed because its code has no such model, backend or axis."""
    return reason is not None and reason.kind == UNKNOWN_NAME


def identical(reason: Reason | None) -> bool:
    """Whether a metric has no value because the outputs are bit-identical to the reference."""
    return reason is not None and reason.kind == IDENTICAL.kind


def same_reason(one: Reason, other: Reason) -> bool:
    """Whether two reasons are equal. Their texts are compared if an older version stored one of them as text."""
    if one.kind != other.kind or one.data.keys() != other.data.keys():
        return STATED in {*one.data, *other.data} and str(one) == str(other)
    return all(_same_value(value, other.data[name]) for name, value in one.data.items())


def _same_value(one: Any, other: Any) -> bool:
    return same_reason(one, other) if isinstance(one, Reason) and isinstance(other, Reason) else bool(one == other)
