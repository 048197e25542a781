"""Makes the standard streams safe for commands: always open, no encoding errors, no tracebacks.

stdin, stdout or stderr closed (cron, `>&-`)   becomes the null device, before any file can reuse its descriptor
a character that the encoding lacks            is written in ASCII: `·` as `*`, `–` as `-`, others as `?`; data
                                               (JSON, CSV) escape it as JSON does, and lose nothing
a reader that went away (`| head -1`)          the rest goes to the null device, and the command goes on
a full disk behind stdout                      one line on stderr, exit code 20
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final, TextIO, cast

ERRORS: Final = "imgbench-ascii"
STREAMS: Final = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
NEAR: Final = {"·": "*", "–": "-", "—": "-", "µ": "u", "×": "x", "±": "~", "≥": ">", "≤": "<", "…": ".", "→": ">"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """One ASCII character for each that cannot be encoded, so that the columns of a table stay aligned."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(NEAR.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _in_ascii)


def prepare() -> tuple[str, ...]:
    """Makes all three streams usable and returns the names of those that were closed."""
    _LOST.clear()
    closed = tuple(name for number, (name, mode) in enumerate(STREAMS) if _opened(number, name, mode))
    if isinstance(sys.stdout, TextIOWrapper):  # stderr already escapes what it cannot encode
        sys.stdout.reconfigure(errors=ERRORS)
    return closed


def _opened(number: int, name: str, mode: int) -> bool:
    """Whether stream `number` was closed; it is then opened on the null device, also for child processes."""
    if getattr(sys, name) is not None:
        return False
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, mode)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)
    stream: TextIO = open(os.devnull, "r" if mode == os.O_RDONLY else "w", encoding="utf-8")  # noqa: PTH123, SIM115
    setattr(sys, name, stream)
    return True


class Lasting:
    """A stream that survives a closed pipe and a full disk: text that cannot be written is discarded, the command goes
    on, and `lost` reports the loss at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            _drop(self._stream, error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            _drop(self._stream, error)


_LOST: list[OSError] = []  # errors that kept text from stdout; a reader that went away is not one


def _drop(stream: TextIO, error: OSError) -> None:
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):
        _LOST.append(error)
    with suppress(OSError, ValueError):  # a stream without a file has no descriptor to redirect
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()


def output() -> TextIO:
    """The stream for everything that a command writes to stdout."""
    return cast("TextIO", Lasting(sys.stdout))


def complain(text: str) -> None:
    """Writes a line to stderr; does nothing if stderr cannot be written to."""
    stderr = Lasting(sys.stderr)
    stderr.write(f"{text}\n")
    stderr.flush()


def lost() -> OSError | None:
    """Flushes stdout and returns the first error since `prepare` that kept text from it, or None."""
    for stream in (sys.stdout, sys.stderr):
        Lasting(stream).flush()
    return _LOST[0] if _LOST else None


def escaped(text: str, stream: TextIO) -> str:
    """`text` with every character that the encoding of `stream` lacks as a JSON escape ("\\u00b7"), so that no data
    are lost and JSON stays the same document. `text` itself if the encoding has them all."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        foreign = (c for c in set(text) if not c.isascii() and not _has(encoding, c))
        return text.translate({ord(c): json.dumps(c)[1:-1] for c in foreign})
    return text


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
