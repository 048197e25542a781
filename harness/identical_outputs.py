"""Finds rows of one run that should differ in their outputs but are bit-identical. Pure functions of a Run.

A row is named after its requested axes. If two rows request different schedulers, numbers of steps, guidance scales or
prompts and have the same output bytes, at least one of them did not run what it requests. Different weights or seeds
count, too, if the work identities of the rows differ. Backends, precisions and optimizations are not compared here: the
fidelity probe compares those with fp32 eager.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.reasons import Reason
from harness.types import Case, Measurement, Run

ASKED = ("scheduler", "num_steps", "guidance_scale", "prompt")
AXES_THAT_CHANGE_OUTPUTS = (*ASKED, "seed", "weights")
COMPARED_WITHIN = ("model", "backend", "precision", "optimizations", "batch_size", "image_size")
_LONG = {"prompt": "another prompt", "weights": "other weights"}


@dataclass(frozen=True, kw_only=True)
class IdenticalOutput:
    """A row has the same output as the row `other`, from which it differs in `axes`, and as `more` further rows."""

    other: Case
    axes: tuple[str, ...]
    more: int = 0

    @property
    def warning(self) -> Reason:
        values = [_LONG.get(axis) or f"{axis} {_text(getattr(self.other, axis))}" for axis in self.axes]
        return Reason("same_output", {"values": values, "axes": list(self.axes), "more": self.more})


def identical_outputs(run: Run) -> dict[str, IdenticalOutput]:
    """Case id -> the rows that have the same output; rows with a unique output are left out."""
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for measurement in _first_of_each_case(run.measurements):
        output = measurement.facts.get("output_hash")
        if output is not None:
            within = tuple(getattr(measurement.case, axis) for axis in COMPARED_WITHIN)
            groups.setdefault((*within, output), []).append(measurement)
    return {case_id: found for group in groups.values() for case_id, found in _in_group(group)}


def _in_group(group: list[Measurement]) -> Iterable[tuple[str, IdenticalOutput]]:
    by_claim: dict[tuple[Any, ...], list[Case]] = {}
    for measurement in group:
        by_claim.setdefault(_claim(measurement), []).append(measurement.case)
    if len(by_claim) < 2:
        return
    firsts = {claim: cases[0] for claim, cases in by_claim.items()}
    leading = list(firsts)[:2]
    for claim, cases in by_claim.items():
        other = firsts[leading[0] if claim != leading[0] else leading[1]]
        for case in cases:
            axes = tuple(a for a in AXES_THAT_CHANGE_OUTPUTS if getattr(case, a) != getattr(other, a))
            yield case.id, IdenticalOutput(other=other, axes=axes, more=len(group) - len(cases) - 1)


def _claim(measurement: Measurement) -> tuple[Any, ...]:
    """The work that a row claims to have done. Rows with equal claims are expected to have equal outputs."""
    asked = tuple(getattr(measurement.case, axis) for axis in ASKED)
    return (*asked, measurement.facts.get("weights_hash"), measurement.facts.get("work_hash"))


def _first_of_each_case(measurements: Iterable[Measurement]) -> list[Measurement]:
    """The first process of each case whose processes are all ok."""
    found: dict[str, Measurement] = {}
    bad: set[str] = set()
    for measurement in measurements:
        if measurement.status != "ok":
            bad.add(measurement.case.id)
        found.setdefault(measurement.case.id, measurement)
    return [measurement for case_id, measurement in found.items() if case_id not in bad]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
