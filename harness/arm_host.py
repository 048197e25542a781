"""The process that serves one arm: it holds a fork server of the arm's own interpreter and environment.

    PYTHON -m harness.arm_host REQUESTS ALIVE PROTOCOL

REQUESTS is the file descriptor of a socket that carries requests and replies. ALIVE is the end of a pipe that closes
with the driver, which ends this process too. PROTOCOL is the number of the protocol that the driver speaks
(`harness.paired.wire_protocol`). Where the project under test is imgbench itself, the driver and the host are two
versions of it.
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

from harness.causes import one_line
from harness.measuring.parent_process import kill_when_closed
from harness.paired import wire_protocol
from harness.paired.paired_process import ProcessJob, measure_rows
from harness.processes.endings import Reply
from harness.processes.environment import collect_or_reason
from harness.processes.loaded_code import loaded_code
from harness.processes.worker import Workers
from harness.reasons import Reason

QUESTION_TIMEOUT_S = 300.0


def serve(connection: Connection) -> None:
    """Answers requests until the driver ends. The first request is a pickled (number, "start", argument), which drivers
    of every version send.

    Requests are answered in threads, because the two processes of a pair run at the same time and may share this host.
    """
    number, _, (plugins, logs, preload, paths, last_paths) = connection.recv()
    sys.path[:] = [*paths, *sys.path, *last_paths]
    workers = Workers(plugins, Path(logs), preload)
    sending = threading.Lock()

    def answer(number: int, command: str, argument: Any) -> None:
        try:
            message = wire_protocol.reply(number, _answer(workers, command, argument, f"{command}-{number % 2}"))
        except (ValueError, TypeError, KeyError) as error:  # a value that JSON cannot hold, or an unknown command
            message = wire_protocol.reply(
                number, Reply(status="failed", reason=Reason("error", {"error": one_line(error)}))
            )
        with sending, suppress(OSError):  # the driver may have gone
            connection.send_bytes(message)

    command, argument = "start", None
    while True:
        threading.Thread(target=answer, args=(number, command, argument), daemon=True).start()
        try:
            number, command, argument = wire_protocol.read_request(connection.recv_bytes())
        except EOFError:
            return


def _answer(workers: Workers, command: str, argument: Any, name: str) -> Reply:
    timeout_s = QUESTION_TIMEOUT_S
    if isinstance(argument, ProcessJob):
        timeout_s = sum(job.protocol.timeout_s for job in argument.jobs)
    phase = "start"

    def report(text: str) -> None:
        nonlocal phase
        phase = text

    reply = workers.call(COMMANDS[command], argument, timeout_s, name, report)
    return reply if reply.status == "ok" else replace(reply, phase=phase)


def _started(_argument: object, _report: Callable[[str], None]) -> bool:
    return True


def _loaded(argument: tuple[tuple[str, ...], tuple[str, ...]], _report: Callable[[str], None]) -> dict[str, Any]:
    """Which code an arm's workers run: (packages, variables to read back)."""
    return loaded_code(*argument)


COMMANDS: dict[str, Callable[..., Any]] = {
    "start": _started,
    wire_protocol.MEASURE: measure_rows,
    "environment": collect_or_reason,
    "loaded": _loaded,
}


def main() -> None:
    requests, alive, *given = (int(text) for text in sys.argv[1:])
    protocol = given[0] if given else 1  # a driver of protocol 1 does not give its number
    if protocol < wire_protocol.NUMBER:  # a newer driver decides whether it supports this one
        sys.exit(
            f"this version of imgbench speaks protocol {wire_protocol.NUMBER} of `imgbench ab`, and the version that "
            f"started it speaks protocol {protocol}"
        )
    kill_when_closed(alive)
    serve(Connection(requests))


if __name__ == "__main__":
    main()
