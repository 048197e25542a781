"""The process that serves one arm: it holds a fork server of the arm's own interpreter and environment.

    PYTHON -m harness.arm_host REQUESTS ALIVE

REQUESTS is the file descriptor of a socket that carries pickled (command, argument) and replies; ALIVE is the end of a
pipe that closes with the driver, which ends this process too. The driver and the host share the measuring code
(or, where the project under test is imgbench itself, its interface).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.measuring.parent_process import die_with
from harness.paired.paired_process import BlockJob, measure_block
from harness.processes.endings import Reply
from harness.processes.environment import collect_or_reason
from harness.processes.loaded_code import loaded_code
from harness.processes.worker import Workers

QUESTION_TIMEOUT_S = 300.0


def serve(connection: Connection) -> None:
    """Answers until the driver goes away. A message is (number, command, argument), a reply (number, Reply).

    Blocks run in threads, because the two blocks of a pair run side by side and may share this host.
    """
    workers: Workers | None = None
    sending = threading.Lock()

    def answer(number: int, function: Callable[..., Any], argument: Any, command: str) -> None:
        assert workers is not None, "the first command is start"
        reply = _answer(workers, function, argument, f"{command}-{number % 2}")
        with sending, suppress(OSError):  # the driver may have gone
            connection.send((number, reply))

    while True:
        try:
            number, command, argument = connection.recv()
        except EOFError:
            return
        if command == "start":
            plugins, logs, preload, paths, last_paths = argument
            sys.path[:] = [*paths, *sys.path, *last_paths]
            workers = Workers(plugins, Path(logs), preload)
        threading.Thread(target=answer, args=(number, COMMANDS[command], argument, command), daemon=True).start()


def _answer(workers: Workers, function: Callable[..., Any], argument: Any, name: str) -> Reply:
    timeout_s = QUESTION_TIMEOUT_S
    if isinstance(argument, BlockJob):
        timeout_s = sum(job.protocol.timeout_s for job in argument.jobs)
    phase = "start"

    def report(text: str) -> None:
        nonlocal phase
        phase = text

    reply = workers.call(function, argument, timeout_s, name, report)
    return reply if reply.status == "ok" else replace(reply, phase=phase)


def _started(_argument: object, _report: Callable[[str], None]) -> bool:
    return True


def _loaded(argument: tuple[tuple[str, ...], tuple[str, ...]], _report: Callable[[str], None]) -> dict[str, Any]:
    """Which code an arm's workers run: (packages, variables to read back)."""
    return loaded_code(*argument)


COMMANDS: dict[str, Callable[..., Any]] = {
    "start": _started,
    "block": measure_block,
    "environment": collect_or_reason,
    "loaded": _loaded,
}


def main() -> None:
    requests, alive = (int(text) for text in sys.argv[1:3])
    die_with(alive)
    serve(Connection(requests))


if __name__ == "__main__":
    main()
