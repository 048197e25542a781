"""Typed causes of failed measurements, and how they are determined.

A failure caused by the environment (a full disk, a missing folder, a kill from outside) is not a result of its row:
`imgbench run --resume` measures that row again. The cause is the kind of the measurement's reason (`reason`).
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from harness.reasons import Reason, ReasonedError


class Cause(StrEnum):
    """Why a measurement failed. A failure without a cause was caused by the row itself, or comes from an older file."""

    DISK_FULL = "disk_full"
    FILE_LIMIT = "file_limit"
    READ_ONLY = "read_only"
    NOT_PERMITTED = "not_permitted"
    STORAGE_FAILED = "storage_failed"
    FOLDER_GONE = "folder_gone"
    WEIGHTS_GONE = "weights_gone"
    TOO_MANY_FILES = "too_many_files"
    NO_PROCESS = "no_process"
    NO_SOCKET = "no_socket"
    NO_NETWORK = "no_network"
    FORK_SERVER_ENDED = "fork_server_ended"
    KILLED = "killed"
    KERNEL_OUT_OF_MEMORY = "kernel_out_of_memory"

    @property
    def of_environment(self) -> bool:
        """Whether the state of the machine caused the failure, and not the row."""
        return self is not Cause.KERNEL_OUT_OF_MEMORY

    @property
    def of_storage(self) -> bool:
        """Whether the next row would also fail, because nothing can be written any more."""
        return self in {Cause.DISK_FULL, Cause.READ_ONLY, Cause.STORAGE_FAILED, Cause.FOLDER_GONE}


WORDS: Final[dict[Cause, str]] = {
    Cause.DISK_FULL: "the disk, or the quota on it, is full",
    Cause.FILE_LIMIT: "a file would exceed the size limit (ulimit -f)",
    Cause.READ_ONLY: "a file system is read-only",
    Cause.NOT_PERMITTED: "access to a file, or a system call, is not permitted",
    Cause.STORAGE_FAILED: "a file system reports I/O errors or does not respond",
    Cause.FOLDER_GONE: "a folder of the run, or the one for temporary files, no longer exists",
    Cause.WEIGHTS_GONE: "the folder of weights no longer exists",
    Cause.TOO_MANY_FILES: "too many files are open (ulimit -n)",
    Cause.NO_PROCESS: "no process or thread could be started",
    Cause.NO_SOCKET: "no socket can be created",
    Cause.NO_NETWORK: "the network did not answer",
    Cause.FORK_SERVER_ENDED: "the fork server ended",
    Cause.KILLED: "the process was killed from outside",
    Cause.KERNEL_OUT_OF_MEMORY: "the kernel killed the process: the machine or the control group was out of memory",
}

_OF_ERRNO: Final[dict[int, Cause]] = {
    errno.ENOSPC: Cause.DISK_FULL,
    errno.EDQUOT: Cause.DISK_FULL,
    errno.EFBIG: Cause.FILE_LIMIT,
    errno.EROFS: Cause.READ_ONLY,
    errno.EACCES: Cause.NOT_PERMITTED,
    errno.EPERM: Cause.NOT_PERMITTED,
    errno.EIO: Cause.STORAGE_FAILED,
    errno.ESTALE: Cause.STORAGE_FAILED,
    errno.ENOTCONN: Cause.STORAGE_FAILED,
    errno.ENODEV: Cause.STORAGE_FAILED,
    errno.ENXIO: Cause.STORAGE_FAILED,
    errno.EREMOTEIO: Cause.STORAGE_FAILED,
    errno.EMFILE: Cause.TOO_MANY_FILES,
    errno.ENFILE: Cause.TOO_MANY_FILES,
    errno.EAGAIN: Cause.NO_PROCESS,
    errno.ENETDOWN: Cause.NO_NETWORK,
    errno.ENETUNREACH: Cause.NO_NETWORK,
    errno.EHOSTUNREACH: Cause.NO_NETWORK,
    errno.ETIMEDOUT: Cause.NO_NETWORK,
}
# C++ and Rust libraries report the system's error text without its errno. Only here is a cause read in a text, and only
# unambiguous texts are listed.
_SYSTEM_TEXTS: Final[dict[str, Cause]] = {
    os.strerror(number): _OF_ERRNO[number]
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
} | {"can't start new thread": Cause.NO_PROCESS}
# A process gets these signals through faults of its own code; all others come from outside.
OWN_SIGNALS: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
    | {signal.SIGPIPE, signal.SIGALRM}
)
PROBE_BYTES: Final = 1 << 20
MAX_REASON = 400
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def reason(cause: Cause, detail: Reason | str = "") -> Reason:
    """The reason of a row that failed because of `cause`; `detail` describes the failure."""
    return Reason(str(cause), {"detail": detail} if detail else {})


def of_reason(reason: Reason | None) -> Cause | None:
    """The cause that a reason names, or None."""
    return Cause(reason.kind) if reason is not None and reason.kind in set(Cause) else None


def of_error(error: BaseException) -> Cause | None:
    """The environment's cause of an error or of one that led to it, by errno; None if there is none. An error without
    an errno is searched for the system's error text; an error of imgbench itself is not, because it states its
    reason as a value."""
    for each in _chain(error):
        if isinstance(each, ReasonedError):
            continue
        if isinstance(each, OSError) and each.errno is not None:
            if each.errno in _OF_ERRNO:
                return _OF_ERRNO[each.errno]
            continue
        text = str(each)
        if found := next((cause for said, cause in _SYSTEM_TEXTS.items() if said in text), None):
            return found
    return None


def of_folders(folders: Iterable[Path]) -> Cause | None:
    """Why one of the folders cannot be written to now, found by writing PROBE_BYTES there; None if all can. It finds
    the cause if no error names it: a worker that died silently, a library that raises an error of its own."""
    for folder in folders:
        probe = folder / f".{os.urandom(16).hex()}.probe"
        try:
            try:
                with probe.open("wb") as file:
                    file.write(bytes(PROBE_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                probe.unlink(missing_ok=True)
        except FileNotFoundError:
            return Cause.FOLDER_GONE
        except OSError as error:
            if cause := of_error(error):
                return cause
    return None


def one_line(error: BaseException) -> str:
    """ "ValueError: its message" on one line, shortened, followed by the error that caused it. The message of an error
    that holds its reason is a whole sentence, before which no class is named."""
    text = " ".join(_ESCAPES.sub("", str(error)).split())[:MAX_REASON]
    plain = text and isinstance(error, ReasonedError)
    said = text if plain else f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{one_line(error.__cause__)} (then {said[:80]})" if error.__cause__ is not None else said


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then those that it was raised from (`__cause__`), each once. An error that was merely being handled
    (`__context__`) does not count: a model may catch an OSError and go on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__
