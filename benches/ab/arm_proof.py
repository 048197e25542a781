"""Proof from the measurements themselves: which of the project's packages the measured rows used.

That an arm's interpreter would find the project's code (`benches.ab.arms.refusal`) does not mean that the suite runs
any of it: a suite of other models is as fast in every arm, so its gate could never fire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from benches.ab.arms import foreign
from harness.paired.arms import Arm
from harness.types import Measurement

Found = Iterable[tuple[str, str, Measurement]]


def used(arm: Arm, found: Found) -> Mapping[str, str] | None:
    """Name -> file of the arm's packages that any of its rows used (`harness.processes.used_packages`); None where none
    can tell."""
    told = [m.facts["imported"] for _, name, m in found if name == arm.name and m.status == "ok" and _tells(m)]
    return {name: place for each in told for name, place in each.items()} if told else None


def refusal(arm: Arm, found: Found) -> str | None:
    """Why the measurements of the arm did not run its project; None where they did, and where there is no project."""
    seen = used(arm, found)
    if not arm.packages or seen is None:
        return None
    if not seen:
        return f"no row of the suite uses {', '.join(arm.packages)}, so this gate cannot detect a change in it"
    if arm.folder is None:
        return None
    return foreign(arm, Path(arm.folder).parent, {name: {"path": place} for name, place in seen.items()})


def proof(arm: Arm, found: Found) -> list[str]:
    """What the arm's rows used of the project, in words; nothing where there is no project."""
    seen = used(arm, found)
    if not seen:
        return []
    return [f"{arm.name} used while measuring: {', '.join(f'{n} ({place})' for n, place in seen.items())}"]


def _tells(measurement: Measurement) -> bool:
    """An older imgbench, measured as a git ref, does not say what it imported."""
    return isinstance(measurement.facts.get("imported"), Mapping)
