"""Writing a file so that a kill or a full disk at any moment leaves it readable; every OSError names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def append_line(path: Path, document: Mapping[str, Any]) -> None:
    """Appends a JSON line. A partial line that a kill left is terminated first, and ignored by readers. If the disk
    cannot hold the whole line, the file stays as it was. Raises OSError that names the file."""
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
        except BaseException as error:  # after Ctrl-C a line that is already complete stays
            if line or isinstance(error, OSError):
                with suppress(OSError):
                    file.truncate(before)
            raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Adds the file name to an OSError of a write, which has none."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a temporary file, syncs and renames it: a reader sees the old or the new text, never a mixture. A link
    stays a link, and what is not a regular file (/dev/stdout, a pipe) is written to directly."""
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(_encoded(content))
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with named(path), partial.open("wb") as file:
            file.write(_encoded(content))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _encoded(content: str | bytes) -> bytes:
    return content.encode("utf-8") if isinstance(content, str) else content
