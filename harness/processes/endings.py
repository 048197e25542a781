"""How a worker ended, as values: its reply, or the status, cause and reason if it gave none."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import causes
from harness.causes import MAX_REASON, Cause, one_line, sentence
from harness.measuring.sockets import NoSocketFolder
from harness.processes import fork_server


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a worker ended: what it returned, or the status, reason and cause of the failure, and its phase. `kept` is
    what a worker that failed had sent before, to be taken for its result."""

    value: Any = None
    kept: Any = None
    status: str = "ok"
    reason: str | None = None
    cause: Cause | None = None
    phase: str | None = None


def not_started(error: BaseException, kernel_out_of_memory: bool, imports: Path) -> Reply:
    """The reply if no process could be started. A dead fork server shows as the end of its pipe."""
    if kernel_out_of_memory:
        said = sentence(Cause.KERNEL_OUT_OF_MEMORY, "it killed the fork server")
        return Reply(status="oom", reason=said, cause=Cause.KERNEL_OUT_OF_MEMORY)
    if isinstance(error, NoSocketFolder):
        return Reply(status="failed", reason=sentence(Cause.NO_SOCKET, str(error)), cause=Cause.NO_SOCKET)
    gone = isinstance(error, EOFError | ConnectionError)
    cause = Cause.FORK_SERVER_ENDED if gone else causes.of_error(error) or causes.of_folders([imports.parent])
    cause = cause or Cause.NO_PROCESS
    return Reply(status="failed", reason=sentence(cause, f"{one_line(error)}{_tail(imports)}"), cause=cause)


def died(exitcode: int | None, log: Path, kernel_out_of_memory: bool) -> Reply:
    """The reply for a worker that died without one. If the fork server died, too, the exit code is unknown and reads
    fork_server.LOST."""
    if exitcode in {-signal.SIGKILL, fork_server.LOST} and kernel_out_of_memory:
        cause = Cause.KERNEL_OUT_OF_MEMORY
        return Reply(status="oom", reason=sentence(cause, ""), cause=cause)
    if exitcode == fork_server.LOST and not fork_server.runs():
        cause = Cause.FORK_SERVER_ENDED
        return Reply(status="failed", reason=sentence(cause, f"and the worker with it{_tail(log)}"), cause=cause)
    if exitcode is not None and exitcode < 0:
        name, own = _signal_name(-exitcode), -exitcode in causes.OWN_SIGNALS
        hint = ", and not by the kernel's out-of-memory killer" if exitcode == -signal.SIGKILL else ""
        said = f"the worker was killed by {name}{hint}{_tail(log)}"
        found = _folders_cause(log) if -exitcode == signal.SIGBUS else None if own else Cause.KILLED
    else:
        said = f"the worker ended with exit code {exitcode} and no result{_tail(log)}"
        found = _folders_cause(log)
    return Reply(status="failed", reason=sentence(found, said) if found else said, cause=found)


def _folders_cause(log: Path) -> Cause | None:
    """Why the folders that a worker writes to cannot be written to. A full memory-mapped file shows as SIGBUS."""
    return causes.of_folders(written(log.parent))


def _signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL; a real-time signal has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(log: Path) -> str:
    try:
        text = " ".join(log.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""
    return f"; its last words: {text[-MAX_REASON:]}" if text else ""


def written(*folders: Path) -> Iterator[Path]:
    """The folders that a worker writes to: those given and the temporary folder."""
    yield from folders
    yield Path(tempfile.gettempdir())
