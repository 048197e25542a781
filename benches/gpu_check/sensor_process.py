"""The checks of the device itself, in a process that ends before the rows begin, because its CUDA context would contend
with them. A check that hangs or ends its process has failed, and the next checks get a new process.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from math import inf
from multiprocessing.connection import Connection
from typing import Any, Final

from benches.gpu_check import Check, Found, LeftOut
from benches.gpu_check.sensors import CHECKS
from harness.causes import one_line
from harness.timing import perf_counter

LONGEST_S: Final = 45.0  # for one check, including the start of its interpreter and of CUDA
NO_ANSWER: Final = "no result"
SPENT: Final = "no time was left for the checks of the device"
ENDING_S: Final = 5.0


def checked(
    run: Callable[[int, Connection], None] | None = None, left_s: Callable[[], float] = lambda: inf
) -> Iterator[Check]:
    """Every one of CHECKS; `run(first, sender)` sends their results from the first on, in a process of its own. A check
    that does not end before `left_s()` reaches 0 is left out."""
    number = 0
    while number < len(CHECKS):
        if left_s() <= 0:
            yield Check(what=CHECKS[number][0], result="left out", detail=SPENT)
            number += 1
            continue
        for check in _from(number, run or send, left_s):
            number += 1
            yield check


def _from(first: int, run: Callable[[int, Connection], None], left_s: Callable[[], float]) -> Iterator[Check]:
    """The checks from number `first` on, up to and with the first that does not answer."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(first, sender))
    process.start()
    sender.close()
    try:
        for what, _ in CHECKS[first:]:
            answer = _answer(receiver, process, min(LONGEST_S, left_s()))
            if isinstance(answer, Check):
                yield answer
                continue
            late = answer == NO_ANSWER and left_s() <= 0
            why = SPENT if late else f"no result after {LONGEST_S:.0f} s" if answer == NO_ANSWER else answer
            yield Check(what=what, result="left out" if late else "FAILED", detail=why)
            return
        process.join(ENDING_S)
    finally:
        process.kill()
        process.join(ENDING_S)  # a process that hangs in the driver cannot be killed
        receiver.close()


def _answer(receiver: Connection, process: Any, seconds: float) -> Check | str:
    """The next check's result, or the reason why there is none in that time."""
    if not receiver.poll(max(0.0, min(seconds, LONGEST_S))):
        return NO_ANSWER
    try:
        found: Check = receiver.recv()
    except (EOFError, OSError, pickle.UnpicklingError):  # the process ended, perhaps in the middle of a message
        process.join(ENDING_S)
        return f"its process ended with exit code {process.exitcode} and no result"
    return found


def send(first: int, sender: Connection) -> None:
    """Runs in the process: sends the result of each of CHECKS from number `first` on."""
    for what, check in CHECKS[first:]:
        sender.send(single(what, check))


def single(what: str, check: Callable[[], Found]) -> Check:
    """One check in this process; an exception is its result, too."""
    start = perf_counter()
    try:
        detail, figures = check()
    except LeftOut as error:
        return Check(what=what, result="left out", detail=str(error), seconds=perf_counter() - start)
    except Exception as error:
        return Check(what=what, result="FAILED", detail=one_line(error), seconds=perf_counter() - start)
    return Check(what=what, result="ok", detail=detail, seconds=perf_counter() - start, figures=figures)
