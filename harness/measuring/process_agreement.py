"""Checks that all processes of one row measured the same thing, by comparing each with the first.

The weights on disk may be replaced between two processes, a builder may load different weights each time, or a library
may choose another kernel. A figure pooled over such processes is meaningless. So a process whose weights, work,
precision or output differ from those of the first process of its row is `invalid`, and so is the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from harness import devices
from harness.numerics.tolerance import repeat_ceiling
from harness.reasons import Reason
from harness.types import Measurement

# Facts that must be equal in all processes of a row -> what a message calls them.
EQUAL_FACTS: Final[Mapping[str, str]] = {
    "weights_hash": "weights",
    "work_hash": "work",
    "output_shape": "output shapes",
    "elements_by_dtype": "dtypes of the weights",
    "component_precisions": "precisions of the networks",
    "quantised_layers": "quantised layers",
    "engine_quantised_layers": "quantised layers",
    "int8_weights": "widths of int8 weights",
    "providers": "execution providers",
    "execution_devices": "execution devices",
    "nodes": "nodes of the compiled networks",
    "graph_optimization_level": "graph optimisation levels",
    "mode": "compilation modes",
    "calls_per_iteration": "calls of the networks",
}
ROUNDING: Final = 1e-5  # relative error from adding fp32 numbers in another order
LONGEST: Final = 60


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A fact in which two processes of a row disagree. `error` is the relative error between their outputs, where that
    is what differs and it was measured."""

    fact: str
    first: Any
    other: Any
    error: float | None = None


def difference(first: Measurement, other: Measurement) -> Difference | None:
    """The first fact in which `other` differs from `first`, outputs last; None if they agree. A fact that one of them
    lacks is not compared."""
    there: Mapping[str, Any] = first.facts
    here: Mapping[str, Any] = other.facts
    for name in (*EQUAL_FACTS, "output_hash"):
        if name in there and name in here and there[name] != here[name]:
            error = here.get("first_process_error") if name == "output_hash" else None
            return Difference(fact=name, first=there[name], other=here[name], error=error)
    return None


def checked(first: Measurement | None, other: Measurement, device: str, *, strict: bool = False) -> Measurement:
    """`other`, made `invalid` if it measured something else than the first process of its row. `device` is cpu or cuda.

    On a CPU, processes whose own iterations are bit-identical must agree with each other to within ROUNDING. On a GPU,
    or if the iterations are not bit-identical, a difference that the row's precision explains is only a warning,
    because the other process may have chosen another kernel. A difference whose size was not measured is a warning too,
    except on a CPU with `strict`, where the outputs must be equal.
    """
    if first is None or first.status != "ok" or other.status not in {"ok", "invalid"}:
        return other
    found = difference(first, other)
    if found is None or (other.status == "invalid" and found.fact == "output_hash"):
        return other
    if found.fact == "output_hash" and not _other_work(found, first, other, device, strict):
        return replace(other, warnings=(*other.warnings, reason(found)))
    return replace(other, status="invalid", reason=reason(found))


def _other_work(found: Difference, first: Measurement, other: Measurement, device: str, strict: bool) -> bool:
    repeats = not any("repeat_error" in m.facts for m in (first, other))
    if not devices.is_gpu(device) and repeats:
        return strict if found.error is None else not found.error <= ROUNDING
    ceiling = repeat_ceiling(other.case.precision, other.facts.get("output_kind", "logits"))
    return found.error is not None and not found.error <= ceiling


def reason(found: Difference) -> Reason:
    """How a process differs from the first one of its row."""
    if found.fact == "output_hash":
        return Reason("outputs_differ", {"error": found.error})
    if isinstance(found.first, Mapping) and isinstance(found.other, Mapping):
        keys = [k for k in dict.fromkeys([*found.first, *found.other]) if found.first.get(k) != found.other.get(k)]
        shown = ", ".join(f"{k}: {_short(found.first.get(k))} and {_short(found.other.get(k))}" for k in keys[:3])
    else:
        shown = f"{_short(found.first)} and {_short(found.other)}"
    return Reason("processes_differ", {"what": EQUAL_FACTS[found.fact], "fact": found.fact, "shown": shown})


def _short(value: Any) -> str:
    text = str(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:12]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def firsts(measurements: Iterable[Measurement]) -> dict[str, Measurement]:
    """Case id -> the ok measurement that the others are compared with: that of the lowest-numbered process."""
    found: dict[str, Measurement] = {}
    for m in sorted((m for m in measurements if m.status == "ok"), key=lambda m: m.replicate):
        found.setdefault(m.case.id, m)
    return found
