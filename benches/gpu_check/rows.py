"""Measures rows, each in a process of its own, as `imgbench run` does, and writes each into the record."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import benches
from benches.gpu_check import QUICK, ROW_TIMEOUT_S, Check
from benches.gpu_check.plan import Planned
from benches.gpu_check.record import Row, Writer, log_end
from harness.backends.tensorrt.engine import ENGINES
from harness.processes import threads
from harness.processes.measure import Job
from harness.processes.worker import Workers
from harness.reasons import stated
from harness.registry import PROBES
from harness.timing import perf_counter
from harness.types import Case, Measurement

PLUGIN: Final = "benches.gpu_check.plugin"  # workers import it by name
PLUGINS: Final = (*benches.PLUGINS, PLUGIN)
AFTER_REFERENCE_S: Final = 8.0  # for the probes that come after it
THREADS: Final = 4  # at most: the host only launches kernels
TWO_LOOPS: Final = "two_loops"
LAYERS: Final = "TensorRT's layers"
LAYERS_SHOWN: Final = 400  # characters
LAYERS_KEPT: Final = 200_000


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What measuring a row needs. `began` is the clock's reading at the start of the check. `say` prints a row, and
    `tell` prints a line."""

    workers: Workers
    folder: Path
    began: float
    writer: Writer
    say: Callable[[Row], None]
    tell: Callable[[str], None]
    device: str = "cuda"

    @property
    def elapsed_s(self) -> float:
        return perf_counter() - self.began

    def job(self, case: Case, probes: tuple[str, ...], timeout_s: float) -> Job:
        """The job of one row. All rows share the folder of exports and of compiled kernels. The time of its fp32
        reference counts, so that no row exceeds its limit."""
        return Job(
            case=case,
            replicate=0,
            protocol=replace(QUICK, timeout_s=timeout_s),
            device=self.device,
            folder=self.folder,
            cache=self.folder / "cache" / case.id,
            threads=min(THREADS, threads.chosen(None).count),
            plugins=PLUGINS,
            only=probes,
            reference_until_s=max(0.0, timeout_s - AFTER_REFERENCE_S),
        )

    def measure(self, planned: Planned, until_s: float) -> Row:
        """Measures, records and prints one row. It may last until `until_s`, but never longer than ROW_TIMEOUT_S."""
        start = perf_counter()
        allowed_s = min(ROW_TIMEOUT_S, until_s - self.elapsed_s)
        reason = planned.missing
        if reason is None and allowed_s < planned.least_s:
            reason = f"no time was left: its step ends {until_s:.0f} s after the start of the check"
        if reason is not None:
            skipped = Measurement(case=planned.case, replicate=0, status="skipped", reason=stated(reason))
            return self._kept(Row(name=planned.name, measurement=skipped, flops=None, allowed_s=0.0, seconds=0.0))
        job = self.job(planned.case, probes_of(planned), allowed_s)
        phases: list[str] = []
        measured = self.workers.measure(job, phases.append).measurement
        log = None if measured.status == "ok" else log_end(self.workers.logs / f"{planned.case.id}.0.log")
        seconds = perf_counter() - start
        row = Row(
            name=planned.name,
            measurement=measured,
            flops=planned.flops,
            allowed_s=allowed_s,
            seconds=seconds,
            log=log,
            phase=phases[-1] if phases else None,
        )
        if planned.case.backend == "tensorrt" and not self.layers_told:
            self._tell_layers(job.exports / ENGINES)
        return self._kept(row)

    @property
    def layers_told(self) -> bool:
        return any(line.get("what") == LAYERS for line in self.writer.lines)

    def _tell_layers(self, engines: Path) -> None:
        """Records the text of TensorRT's inspector for one engine, also if the row is invalid. The format of that text
        has not been checked on hardware."""
        for file in sorted(engines.glob("*.layers.json"))[:1]:
            text = file.read_text(encoding="utf-8", errors="replace")
            told = " ".join(text.split())[:LAYERS_SHOWN]
            figures = {"layers": text[:LAYERS_KEPT], "characters": len(text)}
            self.writer.check(Check(what=LAYERS, result="ok", detail=told, figures=figures))
            self.tell(f"{LAYERS}: {told}")

    def step(self, rows: Iterable[Planned], until_s: float) -> None:
        """Measures all rows of a step."""
        for planned in rows:
            self.measure(planned, until_s)

    def _kept(self, row: Row) -> Row:
        self.writer.row(row)
        self.say(row)
        return row


def probes_of(planned: Planned) -> tuple[str, ...]:
    """The probes that a row runs."""
    if planned.probes is not None:
        return planned.probes
    return (*(name for name in PROBES if name != "quality" and (name != "energy" or planned.energy)), TWO_LOOPS)


@contextmanager
def beside(work: Callable[[], None], name: str) -> Iterator[threading.Thread]:
    """Runs `work` in a thread while the block runs, and waits for it at the block's end."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
