"""A case in words for people. `Case.label` is where it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def of(case: Case) -> str:
    """Model, backend, precision and batch, then every axis that the case has, then a seed that is not 0."""
    named = case.model if case.model.startswith(f"{case.weights}_") else f"{case.model} ({case.weights})"
    parts = [named, case.backend, case.precision, f"batch {case.batch_size}"]
    parts += [words.format(value) for axis, words in _AXES_IN_WORDS if (value := getattr(case, axis)) is not None]
    if case.seed:
        parts.append(f"seed {case.seed}")
    return " · ".join(parts)
