"""One fresh process for each block of measurement, and a status for every way in which it can end.

A fork server with the libraries imported and no device touched gives a process in about 0.2 s. The worker leads a
process group of its own (a hang is killed with its children), dies with its parent, ignores Ctrl-C (the parent
decides), and writes what libraries print to a log file. A Python error comes back as a failed measurement; a
segfault, a kill and a time-out are found out by the parent.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness import storage
from harness.measure import Job, Outcome, measure
from harness.timing import perf_counter
from harness.turns import Turns
from harness.types import Measurement, Unsupported

PRELOAD = ("torch", "harness.measure")
OUT_OF_MEMORY_TEXTS = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",  # ONNX Runtime
    "out of memory",
    "outofmemory",
    "bad allocation",
    "cublas_status_alloc_failed",
    "the gpu's memory is too small",  # TensorRT gives no context and no reason
)
MAX_REASON = 400
_F_SETSIG = 10
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a worker ended: what it returned, or the status and reason why there is nothing, and in which phase."""

    value: Any = None
    status: str = "ok"
    reason: str | None = None
    phase: str | None = None


class Workers:
    """Runs functions in fresh processes of one fork server.

    `plugins` are modules that fill the registries; `preload` are libraries that the models use. Both are imported
    once, in the fork server: what is missing there costs every worker its import.
    """

    def __init__(self, plugins: Sequence[str], logs: Path, preload: Sequence[str] = ()) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD, *preload, *plugins])
        self._plugins = tuple(plugins)
        self._starting = threading.Lock()
        self.logs = logs

    def measure(self, job: Job, report: Report) -> Outcome:
        """The outcome of `job`, whatever happens to its process. Raises KeyboardInterrupt after killing it."""
        started, clock = storage.now(), perf_counter()
        reply = self.call(measure_job, job, job.protocol.timeout_s, f"{job.case.id}.{job.replicate}", report)
        outcome = reply.value or _ended(job, reply.status, reply.reason)
        stamped = replace(outcome.measurement, started=started, duration_s=perf_counter() - clock)
        return replace(outcome, measurement=stamped)

    def call(self, function: Callable[..., Any], argument: Any, timeout_s: float, name: str, report: Report) -> Reply:
        """`function(argument, report)` in a fresh process, killed after `timeout_s` seconds without a result."""
        self.logs.mkdir(parents=True, exist_ok=True)
        imports = self.logs / "imports.log"
        with self._starting:
            _start_fork_server(imports)
        log = self.logs / f"{name}.log"
        receiver, sender = self._context.Pipe(duplex=False)
        kills_before = _oom_kills()
        process = self._context.Process(target=_main, args=(sender, function, argument, self._plugins, str(log)))
        try:
            with self._starting:
                process.start()
        except (EOFError, OSError) as error:  # its imports failed, or it could not fork
            sender.close()
            receiver.close()
            return Reply(status="failed", reason=f"the fork server ended ({one_line(error)}){_tail(imports)}")
        sender.close()
        try:
            reply = _receive(receiver, timeout_s, report)
        finally:
            _end(process)
            receiver.close()
        if reply is None:
            reply = _died(process.exitcode, log, _oom_kills() > kills_before)
        if reply.status == "ok" and log.exists() and log.stat().st_size == 0:
            log.unlink()
        if reply.status == "ok" and imports.exists() and imports.stat().st_size == 0:
            imports.unlink()
        return reply


def _start_fork_server(log: Path) -> None:
    """Starts the fork server where it does not run yet, with what its imports print in `log`."""
    sys.stderr.flush()
    kept, file = os.dup(2), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    # The server finds what this process finds: `python -c` would look into the working directory first.
    paths = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    before = {name: os.environ.get(name) for name in paths}
    os.environ.update(paths)
    try:
        os.dup2(file, 2)
        multiprocessing.forkserver.ensure_running()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(file)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def measure_job(job: Job, report: Report, turns: Turns | None = None) -> Outcome:
    """Runs in the worker: the outcome, or the failed one that says why. The one broad except is here."""
    import torch

    from harness import devices
    from harness.trial import Mismatch

    torch.set_num_threads(job.threads)
    try:
        return measure(job, devices.device(job.device), report, turns)
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, Unsupported):
            return _ended(job, "skipped", str(error))
        if isinstance(error, Mismatch):
            return _ended(job, "invalid", str(error))
        return _ended(job, "oom" if _is_out_of_memory(error) else "failed", one_line(error))


def _ended(job: Job, status: Any, reason: str | None) -> Outcome:
    return Outcome(measurement=Measurement(case=job.case, replicate=job.replicate, status=status, reason=reason))


def one_line(error: BaseException) -> str:
    """ "ValueError: what it says", on one line, not too long, and with the error that caused it."""
    text = " ".join(_ESCAPES.sub("", str(error)).split())[:MAX_REASON]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{one_line(error.__cause__)} (then {said[:80]})" if error.__cause__ is not None else said


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)  # ONNX Runtime's are no RuntimeError


def _main(sender: Connection, function: Callable[..., Any], argument: Any, plugins: tuple[str, ...], log: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setsid()
    _die_with_parent()
    _redirect_output(log)
    for plugin in plugins:
        importlib.import_module(plugin)
    # The libraries' objects live as long as the process: walking them cost 0.14 s in every garbage collection.
    gc.freeze()
    result = function(argument, lambda phase: sender.send(("phase", phase)))
    sender.send(("done", result))
    sender.close()


def _die_with_parent() -> None:
    """Asks the kernel for SIGKILL when the command ends, however it ends, also while this process hangs in C code.

    The parent holds the other end of the sentinel pipe, and the kernel signals its closing (O_ASYNC). The fork server
    outlives the command while a worker runs, so a parent-death signal would not do.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        die_with(parent.sentinel)


def die_with(fd: int) -> None:
    """Asks for SIGKILL when the other end of the pipe `fd`, in which nothing is ever written, is closed."""
    if sys.platform != "linux":
        return
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([fd], [], [], 0)[0]:
        os.kill(os.getpid(), signal.SIGKILL)  # it had ended before the kernel was asked


def _redirect_output(log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # Whatever the locale is: what a model prints is no reason for its row to fail.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    faulthandler.enable(sys.stderr)


def _receive(receiver: Connection, timeout_s: float, report: Report) -> Reply | None:
    """The worker's result; a time-out; or None where the worker died without a word."""
    deadline, phase = perf_counter() + timeout_s, "start"
    while True:
        left = deadline - perf_counter()
        if left <= 0 or not receiver.poll(left):
            return Reply(status="timeout", reason=f"no result after {timeout_s:g} s; it was in phase {phase!r}")
        try:
            kind, value = receiver.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # gone, also in the middle of a message
            return None
        if kind == "done":
            return Reply(value=value)
        phase = value
        report(phase)


def _end(process: Any) -> None:
    """Waits a little for a clean end, then kills the worker's whole process group; one that hangs in a driver, where no
    signal reaches it, is left."""
    process.join(timeout=5)
    if process.is_alive():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join(timeout=60)  # the kernel may need long to give back tens of gigabytes


def _died(exitcode: int | None, log: Path, kernel_out_of_memory: bool) -> Reply:
    if exitcode == -signal.SIGKILL and kernel_out_of_memory:
        return Reply(status="oom", reason="killed by the kernel: the machine was out of memory")
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", and not by the kernel's out-of-memory killer" if exitcode == -signal.SIGKILL else ""
        return Reply(status="failed", reason=f"the worker was ended by {name}{hint}{_tail(log)}")
    return Reply(status="failed", reason=f"the worker ended with exit code {exitcode} and no result{_tail(log)}")


def _tail(log: Path) -> str:
    try:
        text = " ".join(log.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""
    return f"; its last words: {text[-MAX_REASON:]}" if text else ""


def _oom_kills() -> int:
    """How often the kernel's out-of-memory killer has struck since boot (whole machine)."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
