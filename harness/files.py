"""Writing a file so that a kill or a full disk at any moment leaves it readable; every OSError names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def append_line(path: Path, document: Mapping[str, Any]) -> None:
    """A half line left by a kill is ended first, then ignored. Where the disk does not take the whole line, none of it
    stays. Raises OSError that names the file."""
    line = json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with named(path), path.open("ab+", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        if before > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except BaseException as error:  # Ctrl-C may come between two writes; a whole line stays then
            if line or isinstance(error, OSError):
                with suppress(OSError):
                    file.truncate(before)
            raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError of a write names no file: here it gets the name."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomically(path: Path, text: str) -> None:
    """Writes beside `path`, syncs, renames: a reader sees the old text or the new one, never a half. A link keeps being
    one, and what is no file (/dev/stdout, a pipe) is written to as it is."""
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with named(path), partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
