"""Which of the processes on a GPU are somebody else's, by process numbers alone.

A driver may number processes as the host does. Inside a PID namespace (a container) our own process is then in its list
under a number that nothing here knows: one unknown number is ours. That is assumed only where there is a namespace;
anywhere else a list without our number is a list of strangers. A driver may also give every process that it hides the
number 0: each entry is then a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

HIDDEN: Final = 0
PROC = Path("/proc")
INITIAL_NAMESPACE: Final = "pid:[4026531836]"  # the inode that the kernel gives to the first one (PROC_PID_INIT_INO)


def foreign(pids: Sequence[int], own: int, *, namespaced: bool | None = None) -> int | None:
    """How many of the processes are not `own`. None where the list cannot tell: in a namespace it is empty where the
    driver hides the host's processes, ours among them. `namespaced` is found out where it is not given."""
    others = len({pid for pid in pids if pid not in (own, HIDDEN)}) + sum(pid == HIDDEN for pid in pids)
    if own in pids or not (in_namespace() if namespaced is None else namespaced):
        return others
    return others - 1 if others else None


def in_namespace() -> bool:
    """Whether this process has other numbers here than on the host; False where the kernel does not say."""
    try:
        return str((PROC / "self/ns/pid").readlink()) != INITIAL_NAMESPACE
    except OSError:
        return False
