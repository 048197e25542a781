"""Processes that take turns on the machine: while one measures, the others sleep. In `ab` they are the two arms of a
pair, in a run the rows of a round.

The speed of a shared machine drifts: on two virtual cores, medians of neighbouring windows of 4 s differ by 4.5 % (sd),
those of neighbouring windows of 50 ms by 2.1 %, and the mean of ten such differences by a third of that. So the
processes do not run one after the other: they alternate every few iterations, two in the order ABBAABBA..., three in
the order ABCCBAABC..., and what they share cancels. (In duet benchmarking, Bulej et al., ICPE 2020, the processes run
at the same time.)

All of them run on the same CPUs, as many as they have threads, and those of the next pair or round on the next CPUs. A
virtual CPU whose host core does other work runs at two thirds of its speed for seconds, and no counter of the guest
shows it. If the kernel puts the two processes on a CPU each, one is then 1.4 times as slow in each of its turns. Pairs
of equal arms on a CPU each differed by 1.5 to 6 % (standard deviation by the MAD of twelve rows; one pair by 50 %), on
the same one by 0.6 to 1.7 % (`imgbench selftest --record`).

The driver is the referee. A worker sends its name (in `ab` that of its arm), and then asks for each turn with (row,
turn, its CPU seconds so far) and sleeps until the referee sends True. The process that is behind goes first, so the
rows stay aligned if one process fails. These messages are a part of the protocol between two versions of imgbench
(`harness.paired.wire_protocol`).
"""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import sleep
from typing import Any, Final

from harness.devices.cpu import host_counters, host_difference
from harness.measuring import sockets
from harness.timing import perf_counter

END: Final = 1 << 30
# Threads of ONNX Runtime, OpenVINO and OpenMP spin for a while after the last work of their process, which slows down
# the process that has the next turn. In a round, whose rows have different backends, a turn begins after this pause.
SETTLE_S: Final = 0.06


@dataclass(frozen=True, kw_only=True)
class Interleaving:
    """The turns of a row: one of `warmups` iterations, then `turns` turns, each of `discarded` iterations that warm the
    caches again and of `samples` that count. Equal in both arms of a pair; the rows of a round have the
    same `turns`."""

    warmups: int
    turns: int
    samples: int
    discarded: int


class Turns:
    """The worker's end. It has the turn from `begin_row` on, and passes it on with `pass_on`."""

    def __init__(self, address: str, name: str) -> None:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(address)
        self._referee = Connection(connected.detach())
        self._referee.send(name)
        self._row = self._turn = 0

    def begin_row(self, row: int) -> None:
        self._row, self._turn = row, -1
        self.pass_on()

    def pass_on(self) -> None:
        """Passes the turn on and sleeps until it is granted again."""
        self._turn += 1
        self._referee.send((self._row, self._turn, _cpu_s()))
        self._referee.recv()

    def close(self) -> None:
        """Ends the turns and reports the CPU time used, so that the end of this process counts for no row."""
        self._referee.send((END, 0, _cpu_s()))
        self._referee.close()


def _cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


class Referee:
    """The driver's end: one socket for all pairs or rounds of a run, in `folder`, or in a folder of its own if the path
    would be too long (`harness.measuring.sockets`)."""

    def __init__(self, folder: Path) -> None:
        short = sockets.folder(str(folder))
        self._own = None if short == str(folder) else tempfile.TemporaryDirectory(prefix="imgbench-", dir=short)
        self.address = str(Path(self._own.name if self._own else folder) / "turns.sock")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.address)
        self._socket.listen(8)

    def run(
        self, names: Sequence[str], gone: Callable[[], bool], timeout_s: float
    ) -> tuple[dict[int, dict[str, Any]], str | None]:
        """Grants turns until all of `names` have ended: the machine's state by row, and the name of the process that
        had the turn when one of them vanished or time was up (None where all came to their end).

        `gone` tells that a process has ended without asking for a turn. After `timeout_s` all connections close.
        """
        deadline = perf_counter() + timeout_s
        players = _Players(names)
        try:
            self._play(players, gone, deadline)
        finally:
            players.close()
        late = players.holder if perf_counter() >= deadline else None
        return players.states(), players.stuck or late

    def _play(self, players: _Players, gone: Callable[[], bool], deadline: float) -> None:
        while perf_counter() < deadline and not (gone() and not players.connected):
            ready = wait([self._socket, *players.connected.values()], timeout=0.05 if players.waiting_for_any else 1.0)
            if self._socket in ready:
                connection = Connection(self._socket.accept()[0].detach())
                with suppress(EOFError, OSError):  # it ended before it said who it was
                    players.connected[connection.recv()] = connection
            players.listen([c for c in ready if isinstance(c, Connection)])
            players.grant(everybody_here=not players.waiting_for_any or gone())
            if players.all_left or (players.left and not players.connected):
                break

    def forget_late_comers(self) -> None:
        """Closes connections of the pair or round before, whose processes were killed after their time-out. Called
        before the next processes start."""
        while wait([self._socket], timeout=0):
            self._socket.accept()[0].close()

    def close(self) -> None:
        self._socket.close()
        if self._own is not None:
            self._own.cleanup()


def shared_cpus(number: int, threads: int) -> tuple[int, ...]:
    """The CPUs that all processes of pair or round `number` run on: `threads` of the allowed ones, others in the next
    one. None where that would be all of them, or where the system cannot bind a process."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if threads >= len(allowed):
        return ()
    return tuple(sorted(allowed[(number * threads + i) % len(allowed)] for i in range(threads)))


class _Players:
    """Who is connected, who asks for a turn, who has it; and the machine's counters where a row begins and ends."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.connected: dict[str, Connection] = {}
        self.left: set[str] = set()
        self.asking: dict[str, tuple[int, int]] = {}
        self.cpu_s: dict[str, float] = dict.fromkeys(self.names, 0.0)
        self.holder: str | None = None
        self.stuck: str | None = None
        self._ended: set[str] = set()
        self._marks: list[tuple[int, bool, dict[str, Any]]] = []
        self._last: dict[str, Any] | None = None

    @property
    def waiting_for_any(self) -> bool:
        return len(self.connected) + len(self.left) < len(self.names)

    @property
    def all_left(self) -> bool:
        return len(self.left) == len(self.names)

    def listen(self, ready: list[Connection]) -> None:
        for name in [s for s, c in self.connected.items() if c in ready]:
            try:
                row, turn, used = self.connected[name].recv()
            except (EOFError, OSError):
                if name not in self._ended:
                    self.stuck = self.stuck or self.holder or name
                self.connected.pop(name).close()
                self.left.add(name)
                self.asking.pop(name, None)
            else:
                self.cpu_s[name] = used
                if row == END:
                    self._ended.add(name)
                    self._mark(END)
                else:
                    self.asking[name] = (row, turn)
            if self.holder == name:
                self.holder = None

    def grant(self, *, everybody_here: bool) -> None:
        """Gives the turn to the process that is behind; where they are level, forwards and backwards in turn (ABBA)."""
        if self.holder is not None or not everybody_here or set(self.asking) != set(self.connected) or not self.asking:
            return
        place = min(self.asking.values())
        if (place[0], place[1] > 0) not in [(row, sampled) for row, sampled, _ in self._marks]:
            self._mark(place[0], sampled=place[1] > 0)
        level = [name for name in self.names if self.asking.get(name) == place]
        swapped = place[1] % 2 == 1
        self.holder = level[-1] if swapped else level[0]
        self.asking.pop(self.holder)
        if len(self.names) > 2:
            sleep(SETTLE_S)
        self.connected[self.holder].send(True)

    def states(self) -> dict[int, dict[str, Any]]:
        """What the machine did during each row, beside these processes and this driver: from its first timed turn on,
        so that a long build does not thin out what happened beside the samples; of a row that came to none,
        all of it."""
        self._mark(END)
        ends: list[Mapping[str, Any]] = [*(counters for *_, counters in self._marks[1:]), self._last or {}]
        return {row: host_difference(begin, end) for (row, _, begin), end in zip(self._marks, ends, strict=True)}

    def close(self) -> None:
        for connection in self.connected.values():
            connection.close()

    def _mark(self, row: int, *, sampled: bool = False) -> None:
        """The machine's counters now; the CPU time of all these processes counts as our own. `sampled`: the row's timed
        turns begin, and not its load. The first end is the end."""
        if row == END and self._last is not None:
            return
        counters = host_counters()
        counters["own_cpu_s"] += sum(self.cpu_s.values())
        if row == END:
            self._last = counters
        else:
            self._marks.append((row, sampled, counters))
