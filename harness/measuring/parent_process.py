"""Ends this process when its parent process ends, however the parent ends."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys

_F_SETSIG = 10


def die_with(fd: int) -> None:
    """Asks for SIGKILL when the other end of the pipe `fd`, in which nothing is ever written, is closed."""
    if sys.platform != "linux":
        return
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([fd], [], [], 0)[0]:
        os.kill(os.getpid(), signal.SIGKILL)  # it had ended before the kernel was asked
