"""The fork server of `multiprocessing`: started with what this process finds, and asked whether it still runs."""

from __future__ import annotations

import multiprocessing.forkserver
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from harness.sockets import short_temporary_folder

LOST: Final = 255  # multiprocessing's exit code of a process whose fork server could not tell it any more


def start(log: Path) -> None:
    """Starts the fork server where it does not run yet, with what its imports print in `log`."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        kept = os.dup(2)
    except OSError:
        os.close(file)
        raise
    # The server finds what this process finds: `python -c` would look into the working directory first.
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
    """Whether the fork server still runs. It is left to multiprocessing to reap."""
    pid: int | None = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
