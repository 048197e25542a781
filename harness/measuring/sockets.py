"""A folder for Unix sockets with a short enough path: the kernel allows 107 bytes, and TMPDIR may be too long."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LONGEST_PATH: Final = 107
ADDED: Final = len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # what multiprocessing appends to the temporary folder
SHORT_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run")


class NoSocketFolder(RuntimeError):
    """No folder is short enough and writable; `str()` is one line for the user."""


def folder(given: str, short: Sequence[str] = SHORT_FOLDERS) -> str:
    """`given` if the path of a socket in it is short enough, else the first short folder that can be written to.
    Raises NoSocketFolder."""
    if len(os.fsencode(given)) + ADDED <= LONGEST_PATH:
        return given
    found = next((path for path in short if Path(path).is_dir() and os.access(path, os.W_OK | os.X_OK)), None)
    if found is None:
        most = LONGEST_PATH - ADDED
        raise NoSocketFolder(
            f"TMPDIR is too long for a socket, and none of {', '.join(short)} can be written to: "
            f"set TMPDIR to a folder of at most {most} bytes (it is {given})"
        )
    return found


@contextmanager
def short_temporary_folder() -> Iterator[None]:
    """Within the block, multiprocessing creates its socket folder where paths are short enough."""
    before = tempfile.tempdir
    tempfile.tempdir = folder(tempfile.gettempdir())
    try:
        yield
    finally:
        tempfile.tempdir = before
