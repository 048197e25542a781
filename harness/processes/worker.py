"""One fresh process for each measurement, and a status for every way in which it can end.

A fork server has imported the libraries and used no device, so a new process starts in about 0.2 s. The worker

- leads a process group of its own, so that a hang is killed together with its children,
- is killed when its parent ends,
- ignores Ctrl-C, which only the parent handles,
- writes the output of libraries to a log file.

A Python error is returned as a failed measurement. The parent detects a segfault, a kill and a time-out. A failure of
the environment (a full disk, a kill from outside, a dead fork server) has a cause (`harness.causes`), and is not a
result of the row.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, cast

from harness import causes, probes, storage
from harness.causes import Cause, one_line
from harness.devices import cgroup
from harness.measuring import reference
from harness.measuring.out_of_memory import is_out_of_memory
from harness.measuring.parent_process import kill_when_closed
from harness.measuring.sockets import NoSocketFolder
from harness.measuring.turns import Turns
from harness.processes import endings, fork_server
from harness.processes import threads as thread_rule
from harness.processes.endings import Reply
from harness.processes.measure import Job, Outcome, measure
from harness.reasons import Reason, ReasonedError
from harness.registry import UnknownName
from harness.stored_types import Facts
from harness.timing import perf_counter
from harness.types import Measurement, Unavailable

PRELOAD = ("torch", "scipy.special", "harness.processes.measure")
REFERENCE_GRACE_S = 60.0  # to load the model of a reference, and to end the process that computes it
LAST_S = 120.0  # for the rest of a worker that has already sent its measurement

Report = Callable[[str], None]


class ParentPipe:
    """The worker's end of the pipe to its parent. A call sends the phase that begins. `keep` sends a result that counts
    if this process sends no later one. `begin_row` sends the number of the row that begins."""

    def __init__(self, sender: Connection) -> None:
        self._sender = sender

    def __call__(self, phase: str) -> None:
        self._sender.send(("phase", phase))

    def keep(self, value: Any) -> None:
        self._sender.send(("kept", value))

    def begin_row(self, number: int) -> None:
        self._sender.send(("row", number))


class Workers:
    """Runs functions in fresh processes of one fork server.

    `plugins` are modules that fill the registries, and `preload` are libraries that the models use. Both are imported
    once, in the fork server, because every worker would otherwise have to import them.
    """

    def __init__(self, plugins: Sequence[str], logs: Path, preload: Sequence[str] = ()) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD, *preload, *plugins])
        self._plugins = tuple(plugins)
        self._starting = threading.Lock()
        self._running: set[ForkServerProcess] = set()
        self.logs = logs

    def measure(self, job: Job, report: Report, name: str | None = None) -> Outcome:
        """The outcome of `job`, whatever happens to its process. `name` is the name of its log (by default the case's
        id). Raises KeyboardInterrupt after killing the process."""
        started, clock = storage.now(), perf_counter()
        log = f"{name or job.case.id}.{job.replicate}"
        extends = job.reference_until_s is None
        reply = self.call(measure_job, job, job.protocol.timeout_s, log, report, reference_extends=extends)
        outcome = reply.value or _ended(job, reply.status, reply.reason)
        if reply.kept is not None:
            outcome = _without_the_rest(reply.kept, reply.reason)
        stamped = replace(outcome.measurement, started=started, duration_s=perf_counter() - clock)
        return replace(outcome, measurement=stamped)

    def call(
        self,
        function: Callable[..., Any],
        argument: Any,
        timeout_s: float,
        name: str,
        report: Report,
        *,
        reference_extends: bool = True,
    ) -> Reply:
        """Calls `function(argument, report)` in a fresh process, which is killed after `timeout_s` seconds without a
        result. With `reference_extends`, the time in which it computes an fp32 reference does not count."""
        imports, log = self.logs / "imports.log", self.logs / f"{name}.log"
        kills_before = cgroup.oom_kills()
        try:
            process, receiver = self._start(function, argument, imports, log)
        except (EOFError, OSError, NoSocketFolder) as error:
            return endings.not_started(error, cgroup.oom_kills() > kills_before, imports)
        kept: list[Any] = []
        rows: list[int | None] = [None]
        self._running.add(process)
        try:
            reply = _receive(receiver, timeout_s, report, kept.append, rows.append, reference_extends=reference_extends)
        finally:
            _end(process)
            self._running.discard(process)
            receiver.close()
        if reply is None:
            reply = endings.died(process.exitcode, log, cgroup.oom_kills() > kills_before)
        if reply.status == "ok":
            _remove_empty(log, imports)
            return reply
        return replace(reply, row=rows[-1], kept=kept[-1] if kept else reply.kept)

    def kill_all(self) -> None:
        """Kills the processes that run at this moment; the calls that wait for them in other threads return."""
        for process in tuple(self._running):
            _kill(process)

    def _start(
        self, function: Callable[..., Any], argument: Any, imports: Path, log: Path
    ) -> tuple[ForkServerProcess, Connection]:
        """The worker process and the pipe end that receives its messages. Raises OSError, and EOFError if the fork
        server dies: its imports failed, it could not fork, or it was killed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        receiver, sender = self._context.Pipe(duplex=False)
        try:
            process = self._context.Process(target=_main, args=(sender, function, argument, self._plugins, str(log)))
            with self._starting:
                fork_server.start(imports)
                process.start()
        except BaseException:
            receiver.close()
            raise
        finally:
            sender.close()
        return process, receiver


def _remove_empty(*logs: Path) -> None:
    """Removes empty logs. A folder that has been deleted or is read-only does not affect the result."""
    for log in logs:
        with suppress(OSError):
            if log.stat().st_size == 0:
                log.unlink()


def measure_job(job: Job, report: Report, turns: Turns | None = None) -> Outcome:
    """Runs in the worker and returns the outcome. Any error becomes an outcome with its status and reason."""
    import torch

    from harness import devices
    from harness.measuring.trial import Mismatch

    kept: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        kept.append(_warned(job, outcome))
        if isinstance(report, ParentPipe):
            report.keep(kept[-1])

    torch.set_num_threads(job.threads)
    try:
        return _warned(job, measure(job, devices.device(job.device), report, turns, keep))
    except Exception as error:
        with suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        if kept:
            return _without_the_rest(kept[-1], Reason("error", {"error": one_line(error)}))
        if isinstance(error, Unavailable):
            return _ended(job, "skipped", error.reason)
        if isinstance(error, Mismatch):
            return _ended(job, "invalid", error.reason)
        if is_out_of_memory(error):
            return _ended(job, "oom", Reason("out_of_memory", {"error": one_line(error)}))
        return _ended(job, "failed", _failure(error, job))


def _warned(job: Job, outcome: Outcome) -> Outcome:
    """The outcome, with a warning if the row was measured with more threads than can run at once."""
    found = outcome.measurement
    if found.status != "ok":
        return outcome
    warnings = thread_rule.warnings(job.threads, thread_rule.allowed())
    return replace(outcome, measurement=replace(found, warnings=(*found.warnings, *warnings)))


def _failure(error: BaseException, job: Job) -> Reason:
    if cause := _cause(error, job):
        return causes.reason(cause, one_line(error))
    if isinstance(error, ReasonedError):
        return error.reason
    return Reason("unknown_name" if isinstance(error, UnknownName) else "error", {"error": one_line(error)})


def _cause(error: BaseException, job: Job) -> Cause | None:
    """The failure of the environment that caused an error, or None. If the error has no errno, the folders that the
    worker writes to are checked."""
    weights = Path(job.case.weights)
    if weights.is_absolute() and not weights.is_dir():
        return Cause.WEIGHTS_GONE
    return causes.of_error(error) or causes.of_folders(endings.written(job.folder, job.cache.parent))


def _without_the_rest(outcome: Outcome, reason: Reason | None) -> Outcome:
    """An outcome whose process ended for `reason` in the first of its unfinished probes."""
    measured = outcome.measurement
    missing, facts = probes.unfinished(outcome.unfinished, reason or Reason("not_measured"))
    kept = replace(measured, missing={**missing, **measured.missing}, facts=cast("Facts", {**measured.facts, **facts}))
    return replace(outcome, measurement=kept, unfinished=())


def _ended(job: Job, status: Any, reason: Reason | None) -> Outcome:
    return Outcome(measurement=Measurement(case=job.case, replicate=job.replicate, status=status, reason=reason))


def _main(sender: Connection, function: Callable[..., Any], argument: Any, plugins: tuple[str, ...], log: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setsid()
    _end_with_parent()
    try:
        _redirect_output(log)
        for plugin in plugins:
            importlib.import_module(plugin)
    except OSError as error:
        if cause := causes.of_error(error):
            sender.send(("ended", Reply(status="failed", reason=causes.reason(cause, one_line(error)))))
            sender.close()
            return
        raise
    # The libraries' objects live as long as the process. Checking them took 0.14 s in every garbage collection.
    gc.freeze()
    result = function(argument, ParentPipe(sender))
    sender.send(("done", result))
    sender.close()


def _end_with_parent() -> None:
    """Asks the kernel to kill this process when the command ends for any reason, even if this process hangs in C code.

    The parent holds the other end of multiprocessing's sentinel pipe, and the kernel signals when it is closed
    (O_ASYNC). A parent-death signal would not work, because the fork server outlives the command while a worker runs.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        kill_when_closed(parent.sentinel)


def _redirect_output(log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # UTF-8 in any locale, because the output of a model must not make its row fail.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    faulthandler.enable(sys.stderr)


def _receive(
    receiver: Connection,
    timeout_s: float,
    report: Report,
    keep: Callable[[Any], None] = lambda _value: None,
    begin_row: Callable[[int], None] = lambda _number: None,
    *,
    reference_extends: bool = True,
) -> Reply | None:
    """The worker's result, a time-out, or None if the worker died without a message. `keep` is called with a result
    that counts if no later one follows. The worker then has at most LAST_S seconds left. `begin_row` is called with the
    number of each row that begins."""
    time_limit, phase, measured = TimeLimit(timeout_s), "start", False
    while True:
        left = time_limit.left_s
        if left <= 0 or not receiver.poll(left):
            late, limit = ("no_end_in_time", {}) if measured else ("no_result_in_time", {"seconds": timeout_s})
            return Reply(status="timeout", reason=Reason(late, {**limit, "phase": phase}))
        try:
            kind, value = receiver.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # the worker died, perhaps while it sent a message
            return None
        if kind == "done":
            return Reply(value=value)
        if kind == "ended":
            ended: Reply = value
            return ended
        if kind == "kept":
            keep(value)
            time_limit.end_within(LAST_S)
            measured = True
            continue
        if kind == "row":
            begin_row(value)
            continue
        phase = value
        if reference_extends:
            time_limit.enter(phase)
        report(phase)


class TimeLimit:
    """How long a worker may take: `timeout_s` for its own work, and `timeout_s` more for each fp32 reference that it
    computes, while its own time is paused. The worker ends a slow reference itself. REFERENCE_GRACE_S is for a
    reference that it cannot end."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline = perf_counter() + timeout_s
        self._kept_s: float | None = None

    def end_within(self, seconds: float) -> None:
        """Sets the remaining time to `seconds` if more than that is left."""
        self._deadline = min(self._deadline, perf_counter() + seconds)

    @property
    def left_s(self) -> float:
        return self._deadline - perf_counter()

    def enter(self, phase: str) -> None:
        if phase == reference.BEGUN:
            self._kept_s = self.left_s
            self._deadline = perf_counter() + self._timeout_s + REFERENCE_GRACE_S
        elif phase == reference.ENDED and self._kept_s is not None:
            self._deadline, self._kept_s = perf_counter() + self._kept_s, None


def _end(process: Any) -> None:
    """Waits 5 s for the worker to end, then kills its whole process group. A worker that hangs in a driver, where it
    receives no signal, is left."""
    process.join(timeout=5)
    if process.is_alive() or process.exitcode == fork_server.LOST:  # then it may still be running
        _kill(process)
        process.join(timeout=60)  # the kernel may take long to free tens of gigabytes


def _kill(process: Any) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
