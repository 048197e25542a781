"""The errors that a user can cause, each with a message of one line and an exit code. Any other error is a defect of
imgbench."""

from __future__ import annotations

from functools import cache

from baselines.verdict import BENCHMARK_ERROR, NOT_COMPARABLE, USAGE


class UsageError(ValueError):
    """The command line is wrong."""


class NotComparable(ValueError):
    """A run cannot be continued or compared here."""


@cache
def _codes() -> dict[type[Exception], int]:
    """The exit code of each error. The modules that raise them are imported only when there is an error."""
    from baselines.stored.store import BaselineRefused
    from harness.devices import NoSuchDevice
    from harness.measuring.sockets import NoSocketFolder
    from harness.paired.hosts import ArmFailed
    from harness.processes.threads import ThreadsRefused
    from harness.registry import UnknownName
    from harness.storage import RunBusy, UnreadableRun
    from harness.suite import SuiteError
    from harness.sweeping.sweep import EnvironmentFailed, StorageFailed
    from harness.weights import WeightsChanged

    return {
        UsageError: USAGE,
        SuiteError: USAGE,
        UnknownName: USAGE,
        UnreadableRun: USAGE,
        RunBusy: USAGE,
        NoSuchDevice: USAGE,
        ThreadsRefused: USAGE,
        EnvironmentFailed: BENCHMARK_ERROR,
        ArmFailed: BENCHMARK_ERROR,
        StorageFailed: BENCHMARK_ERROR,
        NoSocketFolder: BENCHMARK_ERROR,
        WeightsChanged: NOT_COMPARABLE,
        NotComparable: NOT_COMPARABLE,
        BaselineRefused: NOT_COMPARABLE,
        OSError: BENCHMARK_ERROR,
    }


def known(error: Exception) -> bool:
    """Whether a user can cause the error, so that its message needs no traceback."""
    return isinstance(error, tuple(_codes()))


def exit_code(error: Exception) -> int:
    """The exit code of an error. A defect of imgbench is a benchmark error."""
    return next((code for kind, code in _codes().items() if isinstance(error, kind)), BENCHMARK_ERROR)


def text(error: Exception) -> str:
    """The error in one line. It begins with the file if the system named one, and with the type for a defect of
    imgbench."""
    from harness.causes import one_line

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not known(error):
        return one_line(error)
    return " ".join(str(error).split())
