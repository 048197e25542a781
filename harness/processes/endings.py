"""How a worker ended, as a value: its reply, or a status with its cause and reason if it sent no reply."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import causes
from harness.causes import MAX_REASON, Cause, one_line
from harness.measuring.sockets import NoSocketFolder
from harness.processes import fork_server
from harness.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a worker ended: the value that it returned, or the status, the reason and the phase of its failure.

    `row` is the number of the row that a worker of several rows was measuring. `kept` is a result that the worker sent
    before it failed, and that counts as its result."""

    value: Any = None
    kept: Any = None
    status: str = "ok"
    reason: Reason | None = None
    phase: str | None = None
    row: int | None = None


def not_started(error: BaseException, kernel_out_of_memory: bool, imports: Path) -> Reply:
    """The reply if no process could be started. If the fork server died, its pipe is closed."""
    if kernel_out_of_memory:
        return Reply(status="oom", reason=causes.reason(Cause.KERNEL_OUT_OF_MEMORY, Reason("fork_server_killed")))
    if isinstance(error, NoSocketFolder):
        return Reply(status="failed", reason=causes.reason(Cause.NO_SOCKET, str(error)))
    server_ended = isinstance(error, EOFError | ConnectionError)
    cause = Cause.FORK_SERVER_ENDED if server_ended else causes.of_error(error) or causes.of_folders([imports.parent])
    seen = Reason("worker_not_started", {"error": one_line(error), **_log(imports)})
    return Reply(status="failed", reason=causes.reason(cause or Cause.NO_PROCESS, seen))


def died(exitcode: int | None, log: Path, kernel_out_of_memory: bool) -> Reply:
    """The reply for a worker that died without sending one. If the fork server died too, the exit code is unknown, and
    multiprocessing reports fork_server.LOST."""
    if exitcode in {-signal.SIGKILL, fork_server.LOST} and kernel_out_of_memory:
        return Reply(status="oom", reason=causes.reason(Cause.KERNEL_OUT_OF_MEMORY))
    if exitcode == fork_server.LOST and not fork_server.runs():
        seen = Reason("worker_ended_with_fork_server", _log(log))
        return Reply(status="failed", reason=causes.reason(Cause.FORK_SERVER_ENDED, seen))
    if exitcode is not None and exitcode < 0:
        name, own = _signal_name(-exitcode), -exitcode in causes.OWN_SIGNALS
        kernel = {"kernel": True} if exitcode == -signal.SIGKILL else {}
        seen = Reason("worker_killed", {"signal": name, **kernel, **_log(log)})
        found = _folders_cause(log) if -exitcode == signal.SIGBUS else None if own else Cause.KILLED
    else:
        seen = Reason("worker_ended", {"code": exitcode, **_log(log)})
        found = _folders_cause(log)
    return Reply(status="failed", reason=causes.reason(found, seen) if found else seen)


def _folders_cause(log: Path) -> Cause | None:
    """Why the folders that a worker writes to are not writable; None if they are. A memory-mapped file on a full disk
    causes SIGBUS."""
    return causes.of_folders(written(log.parent))


def _signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL; a real-time signal has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _log(path: Path) -> dict[str, str]:
    """The end of a worker's log, as data of a reason; empty where it wrote nothing."""
    try:
        text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return {}
    return {"log": text[-MAX_REASON:]} if text else {}


def written(*folders: Path) -> Iterator[Path]:
    """The folders that a worker writes to: those given and the temporary folder."""
    yield from folders
    yield Path(tempfile.gettempdir())
