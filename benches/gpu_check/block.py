"""One process that measures rows of one model in several compile modes in turn, as a process of `ab` does."""

from __future__ import annotations

from typing import Final

from benches.gpu_check import LEAST_S, ROW_TIMEOUT_S
from benches.gpu_check.plan import half
from benches.gpu_check.record import log_end
from benches.gpu_check.rows import Bench
from harness.paired.paired_process import ProcessJob, measure_rows
from harness.types import Case

PROBES: Final = ("startup", "latency")
MODES: Final = ("torch_compile", "torch_compile_reduce_overhead", "torch_compile")
SPENT: Final = "no time was left"


def cases(capability: tuple[int, int]) -> tuple[Case, ...]:
    """Rows of one model in two compile modes, and the first mode again for another batch size."""
    tiny = Case(model="check_vit_tiny", precision=half(capability), image_size=224)
    return tuple(tiny.with_(backend=mode, batch_size=4 * (i + 1)) for i, mode in enumerate(MODES))


def measure(bench: Bench, capability: tuple[int, int], until_s: float) -> None:
    """Measures the rows of `cases` in one process and records them."""
    allowed_s = min(ROW_TIMEOUT_S, until_s - bench.elapsed_s)
    if allowed_s < LEAST_S:
        bench.writer.block((), SPENT)
        return
    jobs = tuple(bench.job(case, PROBES, allowed_s) for case in cases(capability))
    reply = bench.workers.call(
        measure_rows, ProcessJob(jobs=jobs, control_workload=False), allowed_s, "block", lambda _phase: None
    )
    if reply.value is None:
        log = log_end(bench.workers.logs / "block.log")
        bench.writer.block((), f"{reply.status}: {reply.reason}{f'; {log}' if log else ''}")
        return
    bench.writer.block(reply.value.measurements)
