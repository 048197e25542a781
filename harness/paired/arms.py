"""An arm of a paired comparison, base or head, ready to be started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.processes import environment


@dataclass(frozen=True, kw_only=True)
class Arm:
    """`text` is what the user wrote. `python` is the interpreter, `environment` the variables that the arm sets in
    addition, and `overrides` the axes of a case that it replaces.

    `folder` and `commit` are the source tree and the commit of a git ref. `packages` are the top-level packages of the
    project under test. Each arm must show which source of them it loaded."""

    name: str
    text: str
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    injections: tuple[str, ...] = ()
    folder: str | None = None
    commit: str | None = None
    packages: tuple[str, ...] = ()

    def shares_server_with(self, other: Arm) -> bool:
        """Whether one fork server can serve both: same interpreter, variables and code."""
        mine, theirs = ((a.python, dict(a.environment), a.folder, a.commit) for a in (self, other))
        return mine == theirs


def other_sampling(base: Mapping[str, Any], head: Mapping[str, Any], *, cold_cache: bool) -> str | None:
    """Why the times of two arms with these environments cannot be compared; None where they can.

    Where the project under test is imgbench itself, each arm measures by its own code. On a GPU the synchronisation at
    the end of a sample is a larger part of a shorter sample, so the same work appears slower. A version older than
    `cold_cache` measures with warm caches even if the protocol requires cold ones.
    """
    lengths = [environment.shortest_sample_s(arm) for arm in (base, head)]
    if lengths[0] != lengths[1]:
        in_base, in_head = (f"{1e3 * seconds:g} ms" for seconds in lengths)
        return (
            f"the arms measure differently: a sample lasts at least {in_base} in the base and {in_head} in the head, "
            "and that difference changes the latency"
        )
    old = [name for name, arm in (("base", base), ("head", head)) if "shortest_sample_s" not in arm]
    if cold_cache and len(old) == 1:
        return (
            f"the arms measure differently: the {old[0]}'s imgbench is older and does not flush the caches (cold_cache)"
        )
    return None
