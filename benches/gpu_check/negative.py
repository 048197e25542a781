"""Measures the negative controls (`benches.gpu_check.controls` decides on them)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from benches.gpu_check import Check, must_run
from benches.gpu_check.control_models import HUNGRY_BATCH
from benches.gpu_check.hold import HELD, LONGEST_S, hold
from benches.gpu_check.plan import Planned, half
from benches.gpu_check.rows import Bench, beside
from harness.types import Case

PROBES: Final = ("startup", "latency")
STARTING_S: Final = 20.0  # of the process that holds the memory
AFTER_S: Final = 12.0  # reserved for the row after those that run out of memory
LEAST_S: Final = 6.0  # a control is a small network, and its process has the libraries already


def capture(capability: tuple[int, int]) -> Iterator[Planned]:
    """Networks that cannot be captured."""
    item = Case(model="check_reads_back", backend="cuda_graphs", precision=half(capability), batch_size=8)
    yield control(must_run.ITEM, item)
    partial = item.with_(model="check_uncapturable", backend="torch_compile_reduce_overhead")
    yield control(must_run.PARTIAL, partial)


def out_of_memory() -> Iterator[Planned]:
    """A network whose activation does not fit, in each backend."""
    for backend, name in must_run.OUT_OF_MEMORY.items():
        case = Case(model="check_hungry", backend=backend, precision="fp32", batch_size=HUNGRY_BATCH)
        yield control(name, case)


def after(capability: tuple[int, int]) -> Planned:
    case = Case(model="check_vit_tiny", precision=half(capability), batch_size=8, image_size=224)
    return control(must_run.AFTER, case)


def control(name: str, case: Case) -> Planned:
    return Planned(name=name, case=case, probes=PROBES, least_s=LEAST_S)


def measure(bench: Bench, capability: tuple[int, int], until_s: float) -> None:
    """Measures all controls. If the memory could not be held, it leaves out the rows that must run out of memory."""
    bench.step(capture(capability), until_s)
    release, begun, held = bench.folder / "release", threading.Event(), threading.Event()

    def report(phase: str) -> None:
        if phase == HELD:
            held.set()
            begun.set()

    def keep() -> None:
        try:
            reply = bench.workers.call(hold, release, LONGEST_S + STARTING_S, "hold", report)
            if reply.value is None:
                held.clear()
                told = f"{reply.status}: {reply.reason}"
                bench.writer.check(Check(what="held memory", result="left out", detail=told))
        finally:
            begun.set()

    with beside(keep, "hold"):
        try:
            begun.wait(max(0.0, min(STARTING_S, until_s - bench.elapsed_s)))
            if held.is_set():
                bench.step(out_of_memory(), until_s - AFTER_S)
        finally:
            release.touch()
    bench.measure(after(capability), until_s)
