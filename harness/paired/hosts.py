"""The driver's side of an arm: starts its host process, sends it requests, renews it, and waits for replies with a
time-out.

A host of another version of imgbench may speak another protocol (`harness.paired.wire_protocol`). Its reply to the
first request says which one: JSON names its number, and a pickle is protocol 1. A host that speaks neither is refused.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.paired import wire_protocol, wire_protocol_1
from harness.paired.arms import Arm
from harness.paired.wire_protocol import OtherProtocol
from harness.processes.endings import Reply
from harness.reasons import Reason
from harness.timing import perf_counter

START_TIMEOUT_S = 180.0
GRACE_S = 10.0


class ArmFailed(RuntimeError):
    """An arm cannot be installed, does not start, or its host died. `str()` is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a host needs to start. `paths` come first on its sys.path, and hold the user's plugins. `last_paths` come
    last."""

    arm: Arm
    environment: dict[str, str]
    plugins: tuple[str, ...]
    preload: tuple[str, ...]
    paths: tuple[str, ...]
    last_paths: tuple[str, ...]
    logs: Path
    empty: Path


class ArmHost:
    """One running host of an arm. `renewals` counts how often it was restarted; `start_s` is the time of the last start
    in seconds."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.renewals = -1
        self.start_s = 0.0
        self._began = 0.0
        self._starting = 0
        self._number = 0
        self._replies: dict[int, Reply] = {}
        self._protocol: ModuleType | wire_protocol_1.Adapter | None = None  # unknown until the first reply
        self._process: subprocess.Popen[bytes] | None = None
        self.renew()

    @property
    def ended(self) -> bool:
        """Whether the host has ended."""
        return self._process is None

    def renew(self) -> None:
        """Ends the interpreter and starts a new one, which has a new memory layout."""
        self.begin_renewal()
        self.end_renewal()

    def begin_renewal(self) -> None:
        """Ends the interpreter and begins to start a new one; `end_renewal` waits until that is ready."""
        self._began = perf_counter()
        self.close()
        driver_end, host_end = socket.socketpair()
        alive_read, self._alive = os.pipe()
        os.set_inheritable(alive_read, True)
        host_end.set_inheritable(True)
        log = self.launch.logs / f"{self.launch.arm.name}-host.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [
                    *(self.launch.arm.python, "-m", "harness.arm_host"),
                    *(str(host_end.fileno()), str(alive_read), str(wire_protocol.NUMBER)),
                ],
                pass_fds=(host_end.fileno(), alive_read),
                env=self.launch.environment,
                cwd=self.launch.empty,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        host_end.close()
        os.close(alive_read)
        self._connection = Connection(driver_end.detach())
        self.renewals += 1
        self._protocol = None
        logs = self.launch.logs / self.launch.arm.name
        started = (self.launch.plugins, str(logs), self.launch.preload, self.launch.paths, self.launch.last_paths)
        self._starting = self.begin("start", started)

    def end_renewal(self) -> None:
        """Waits for the new interpreter. Raises ArmFailed if it does not start."""
        try:
            reply = self.result(self._starting, START_TIMEOUT_S)
            if reply.status != "ok":
                raise ArmFailed(f"the {self.launch.arm.name} arm does not start: {reply.reason}")
        except ArmFailed:
            self.close()
            raise
        self.start_s = perf_counter() - self._began

    def call(self, command: str, argument: Any, timeout_s: float) -> Reply:
        """Sends a command and returns the host's reply. Raises ArmFailed if the host died."""
        return self.result(self.begin(command, argument), timeout_s)

    def begin(self, command: str, argument: Any) -> int:
        """Sends a command and returns its number; `result` waits for its reply."""
        self._number += 1
        try:
            if self._protocol is None:  # every version can read a pickle of builtin types
                self._connection.send((self._number, command, argument))
            else:
                self._connection.send_bytes(self._protocol.request(self._number, command, argument))
        except OtherProtocol as error:
            raise self._refused(error) from None
        except OSError:
            raise ArmFailed(f"the {self.launch.arm.name} arm's host ended{self._log()}") from None
        return self._number

    def result(self, number: int, timeout_s: float) -> Reply:
        """The reply to command `number`. A time-out ends the host. Raises ArmFailed if the host died."""
        deadline = perf_counter() + timeout_s + GRACE_S
        while not self.ready(number):
            if perf_counter() >= deadline:
                self.close()
                return Reply(status="timeout", reason=Reason("no_answer_in_time", {"seconds": timeout_s}))
            self._receive(min(1.0, timeout_s))
        return self._replies.pop(number)

    def ready(self, number: int) -> bool:
        """Whether the reply to `number` has arrived. Raises ArmFailed if the host died."""
        if number not in self._replies:
            self._receive(0.0)
        return number in self._replies

    def _receive(self, timeout_s: float) -> None:
        try:
            while self._connection.poll(timeout_s):
                message = self._connection.recv_bytes()
                if self._protocol is None:
                    self._protocol = wire_protocol if message.startswith(b"{") else wire_protocol_1.Adapter()
                number, reply = self._protocol.read_reply(message)
                self._replies[number] = reply
                timeout_s = 0.0
        except OtherProtocol as error:
            raise self._refused(error) from None
        except (EOFError, OSError):
            raise ArmFailed(f"the {self.launch.arm.name} arm's host ended{self._log()}") from None

    def _refused(self, error: OtherProtocol) -> ArmFailed:
        return ArmFailed(
            f"the {self.launch.arm.name} arm is another version of imgbench and its host speaks {error}; this version "
            f"speaks the protocols {wire_protocol_1.NUMBER} and {wire_protocol.NUMBER}"
        )

    def close(self) -> None:
        """Ends the host, its fork server and their workers."""
        if self._process is None:
            return
        os.close(self._alive)
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def _log(self) -> str:
        log = self.launch.logs / f"{self.launch.arm.name}-host.log"
        text = " ".join(log.read_text(encoding="utf-8", errors="replace").split()) if log.exists() else ""
        return f"; its log ends with: {text[-400:]}" if text else ""


def close_all(hosts: Sequence[ArmHost]) -> None:
    for host in dict.fromkeys(hosts):
        host.close()
