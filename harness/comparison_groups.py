"""Comparison groups: the cases of a run that do the same work, whose speeds are compared with each other.

The cases of a group differ only in backend, precision and optimisations. The speed of each is given relative to the
group's reference: the eager fp32 case without optimisations if it is valid, otherwise the first valid case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.types import AXES, Case

ENGINE: Final = ("backend", "precision", "optimizations")
WORK: Final = tuple(axis for axis in AXES if axis not in ENGINE)
REFERENCE: Final = {"backend": "eager", "precision": "fp32", "optimizations": None}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The valid cases of a group in the order of the suite; `reference` is one of them."""

    reference: Case
    cases: tuple[Case, ...]

    @property
    def id(self) -> str:
        """The id of the reference, which names the group in a run."""
        return self.reference.id

    @property
    def others(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case != self.reference)


def work_of(case: Case) -> tuple[Any, ...]:
    """The values of the axes that all cases of a group share."""
    return tuple(getattr(case, axis) for axis in WORK)


def groups(cases: Iterable[Case], valid: Collection[str]) -> list[Group]:
    """The groups of those cases whose ids are in `valid`, in the order of the suite."""
    found: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        if case.id in valid:
            found.setdefault(work_of(case), []).append(case)
    return [Group(reference=reference_of(members), cases=tuple(members)) for members in found.values()]


def reference_of(cases: Sequence[Case]) -> Case:
    """The eager fp32 case without optimisations, otherwise the first case."""
    return next((c for c in cases if all(getattr(c, axis) == value for axis, value in REFERENCE.items())), cases[0])
