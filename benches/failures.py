"""The errors that a user can cause, each with one clear line and its exit code; any other is a defect of ours."""

from __future__ import annotations

from functools import cache

from baselines.verdict import BENCHMARK_ERROR, NOT_COMPARABLE, USAGE


class UsageError(ValueError):
    """A command line that asks for something impossible."""


class NotComparable(ValueError):
    """A run that cannot be continued or compared here."""


@cache
def _codes() -> dict[type[Exception], int]:
    """The exit code of each error. The rooms that raise them are imported only once there is an error."""
    from baselines.stored.store import BaselineRefused
    from harness.devices import NoSuchDevice
    from harness.measuring.sockets import NoSocketFolder
    from harness.paired.hosts import ArmFailed
    from harness.processes.sweep import EnvironmentFailed, StorageFailed
    from harness.processes.threads import ThreadsRefused
    from harness.registry import UnknownName
    from harness.storage import RunBusy, UnreadableRun
    from harness.suite import SuiteError
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
    """Whether a user can cause the error, so that its line says enough."""
    return isinstance(error, tuple(_codes()))


def exit_code(error: Exception) -> int:
    """A defect of ours is a benchmark error."""
    return next((code for kind, code in _codes().items() if isinstance(error, kind)), BENCHMARK_ERROR)


def text(error: Exception) -> str:
    """The error in one line, the file first where the system named one; a defect of ours with its type."""
    from harness.causes import one_line

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not known(error):
        return one_line(error)
    return " ".join(str(error).split())
