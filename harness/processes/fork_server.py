"""The fork server of `multiprocessing`: starts it with the import path of this process, and checks that it is alive."""

from __future__ import annotations

import multiprocessing.forkserver
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from harness.measuring.sockets import short_temporary_folder

LOST: Final = 255  # the exit code that multiprocessing reports if the fork server died first


def start(log: Path) -> None:
    """Starts the fork server unless it is running. The output of its imports goes to `log`."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        kept = os.dup(2)
    except OSError:
        os.close(file)
        raise
    # The server gets this process's import path: `python -c` would search the working directory first.
    paths = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    before = {name: os.environ.get(name) for name in paths}
    os.environ.update(paths)
    try:
        os.dup2(file, 2)
        with short_temporary_folder():
            multiprocessing.forkserver.ensure_running()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(file)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def runs() -> bool:
    """Whether the fork server is still alive. The check does not reap the process; multiprocessing does that."""
    pid: int | None = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
