"""TensorRT's messages. Where TensorRT fails, it returns nothing and logs the cause, which becomes the reason of the
row."""

from __future__ import annotations

import functools
import sys
from contextlib import suppress
from typing import Any, Final

KEPT: Final = 50  # messages since `forget`; the first ones name the cause
# Warnings of tactics that the builder skips because they need more memory than is free. A build that succeeds has them
# too, so they only explain the error that no tactic is left.
OF_MEMORY: Final = ("could not be allocated", "insufficient memory", "memory is insufficient")
NO_TACTIC: Final = "could not find any implementation"


@functools.cache
def logger() -> Any:
    """The logger of this process, an ILogger. There is only one, because TensorRT ignores any logger but the first
    while one of its objects exists."""
    import tensorrt as trt

    class Kept(trt.ILogger):
        """Keeps errors and warnings, and prints errors to stderr."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity > trt.ILogger.WARNING:
                return
            kept = self.warnings if severity == trt.ILogger.WARNING else self.errors
            if len(kept) < KEPT and msg not in kept:
                kept.append(msg)
            if kept is self.errors:
                with suppress(OSError):  # the worker's log may be on a disk that is full
                    print(f"TensorRT: {msg}", file=sys.stderr)

    return Kept()


def forget() -> None:
    """Drops all messages so far. Call it before the work whose failure is to be explained."""
    kept = logger()
    kept.errors.clear()
    kept.warnings.clear()


def reason() -> str:
    """TensorRT's messages since `forget`: its errors and, if one reports that no tactic is left, the warnings about
    tactics that were skipped for lack of memory."""
    kept = logger()
    of_memory: list[str] = []
    if any(NO_TACTIC in text.lower() for text in kept.errors):
        of_memory = [text for text in kept.warnings if any(words in text.lower() for words in OF_MEMORY)]
    return "; ".join([*kept.errors, *of_memory]) or "TensorRT gave no reason"
