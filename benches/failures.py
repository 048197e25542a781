"""The errors that a user can cause, each with one clear line and its exit code; any other is a defect of ours."""

from __future__ import annotations

from baselines.detector.recorded import RecordingRefused
from baselines.stored.store import BaselineRefused
from baselines.verdict import BENCHMARK_ERROR, NOT_COMPARABLE, USAGE
from harness.causes import one_line
from harness.devices import NoSuchDevice
from harness.measuring.sockets import NoSocketFolder
from harness.paired.hosts import ArmFailed
from harness.processes.sweep import EnvironmentFailed, StorageFailed
from harness.processes.threads import ThreadsRefused
from harness.registry import UnknownName
from harness.storage import RunBusy, UnreadableRun
from harness.suite import SuiteError
from harness.weights import WeightsChanged


class UsageError(ValueError):
    """A command line that asks for something impossible."""


class NotComparable(ValueError):
    """A run that cannot be continued or compared here."""


_CODES: dict[type[Exception], int] = {
    UsageError: USAGE,
    SuiteError: USAGE,
    UnknownName: USAGE,
    UnreadableRun: USAGE,
    RecordingRefused: USAGE,
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
KNOWN = tuple(_CODES)


def exit_code(error: Exception) -> int:
    """A defect of ours is a benchmark error."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), BENCHMARK_ERROR)


def text(error: Exception) -> str:
    """The error in one line, the file first where the system named one; a defect of ours with its type."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not isinstance(error, KNOWN):
        return one_line(error)
    return " ".join(str(error).split())
