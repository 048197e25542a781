"""How many other processes use a GPU, by their process IDs alone.

A driver may report the host's process IDs. In a PID namespace (a container) this process is then in the list under an
ID that is unknown here, so one unknown ID counts as this process. This is assumed in a namespace only; elsewhere, a
list without this process's ID contains other processes only. A driver may also report the ID 0 for every process that
it hides; each such entry is then a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

HIDDEN: Final = 0
PROC = Path("/proc")
INITIAL_NAMESPACE: Final = "pid:[4026531836]"  # the inode that the kernel gives to the first one (PROC_PID_INIT_INO)


def foreign(pids: Sequence[int], own: int, *, namespaced: bool | None = None) -> int | None:
    """How many of the processes are not `own`. None if the list does not show it: in a namespace it is empty if the
    driver hides the host's processes, including this one. If `namespaced` is not given, `in_namespace` decides."""
    others = len({pid for pid in pids if pid not in (own, HIDDEN)}) + sum(pid == HIDDEN for pid in pids)
    if own in pids or not (in_namespace() if namespaced is None else namespaced):
        return others
    return others - 1 if others else None


def in_namespace() -> bool:
    """Whether this process has another ID here than on the host; False if the kernel does not report it."""
    try:
        return str((PROC / "self/ns/pid").readlink()) != INITIAL_NAMESPACE
    except OSError:
        return False
