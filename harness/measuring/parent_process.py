"""Ends this process when its parent process ends, however the parent ends."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys

_F_SETSIG = 10


def kill_when_closed(fd: int) -> None:
    """Asks the kernel to send SIGKILL to this process when the other end of the pipe `fd` is closed. Nothing may ever
    be written into that pipe. On other systems than Linux it does nothing."""
    if sys.platform != "linux":
        return
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([fd], [], [], 0)[0]:
        os.kill(os.getpid(), signal.SIGKILL)  # the parent ended before the request
