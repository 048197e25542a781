"""Reads from the measurements which packages of the project under test the measured rows used.

An arm's interpreter may find the project's code (`benches.ab.arms.refusal`) although the suite runs none of it. Such a
suite is equally fast in both arms, so its gate could not detect a change in the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from benches.ab.arms import foreign
from harness.paired.arms import Arm
from harness.types import Measurement

Found = Iterable[tuple[str, str, Measurement]]


def used(arm: Arm, found: Found) -> Mapping[str, str] | None:
    """The packages that the arm's rows used (`harness.processes.used_packages`): name -> file. None if no row has this
    fact."""
    imported = [m.facts["imported"] for _, name, m in found if name == arm.name and m.status == "ok" and _has_fact(m)]
    return {name: place for each in imported for name, place in each.items()} if imported else None


def refusal(arm: Arm, found: Found) -> str | None:
    """Why the measurements of the arm did not use its project; None if they did, or if there is no project."""
    seen = used(arm, found)
    if not arm.packages or seen is None:
        return None
    if not seen:
        return f"no row of the suite uses {', '.join(arm.packages)}, so this gate cannot detect a change in it"
    if arm.folder is None:
        return None
    return foreign(arm, Path(arm.folder).parent, {name: {"path": place} for name, place in seen.items()})


def proof(arm: Arm, found: Found) -> list[str]:
    """A line that says which packages of the project the arm's rows used; empty if there is no project."""
    seen = used(arm, found)
    if not seen:
        return []
    return [f"{arm.name} used while measuring: {', '.join(f'{n} ({place})' for n, place in seen.items())}"]


def _has_fact(measurement: Measurement) -> bool:
    """Whether the measurement has the fact `imported`, which an older imgbench (as a git ref) does not store."""
    return isinstance(measurement.facts.get("imported"), Mapping)
