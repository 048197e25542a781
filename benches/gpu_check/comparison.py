"""Processes that measure several rows: a block that mixes compile modes, and `ab` on equal and on slowed code."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import benches
from baselines.verdict import Comparison
from benches import ab, arms
from benches.gpu_check import LEAST_S, QUICK, ROW_TIMEOUT_S
from benches.gpu_check.plan import PAIRED_S, half
from benches.gpu_check.record import Compared, log_end
from benches.gpu_check.rows import PLUGIN, Bench
from harness import threads
from harness.blocks import BlockJob, measure_block
from harness.types import Case, Suite
from harness.worker import one_line

PROBES: Final = ("startup", "latency")
MODES: Final = ("torch_compile", "torch_compile_reduce_overhead", "torch_compile")
SLOWDOWN: Final = "busy=0.1"
SPENT: Final = "the time was spent"
SEED: Final = 0


def block_cases(capability: tuple[int, int]) -> tuple[Case, ...]:
    """Rows of one model in two compile modes, and the first mode again for another batch size."""
    tiny = Case(model="check_vit_tiny", precision=half(capability), image_size=224)
    return tuple(tiny.with_(backend=mode, batch_size=4 * (i + 1)) for i, mode in enumerate(MODES))


def block(bench: Bench, capability: tuple[int, int], until_s: float) -> None:
    """One process that measures rows of several compile modes, one after another."""
    allowed_s = min(ROW_TIMEOUT_S, until_s - bench.elapsed_s)
    if allowed_s < LEAST_S:
        bench.writer.block((), SPENT)
        return
    jobs = tuple(bench.job(case, PROBES, allowed_s) for case in block_cases(capability))
    reply = bench.workers.call(
        measure_block, BlockJob(jobs=jobs, sentinel=False), allowed_s, "block", lambda _phase: None
    )
    if reply.value is None:
        log = log_end(bench.workers.logs / "block.log")
        bench.writer.block((), f"{reply.status}: {reply.reason}{f'; {log}' if log else ''}")
        return
    bench.writer.block(reply.value.measurements)


def paired_cases(capability: tuple[int, int]) -> tuple[Case, Case]:
    """(the row of equal arms, the row that is slowed down in the head)."""
    tiny = Case(model="check_vit_tiny", precision=half(capability), image_size=224)
    return tiny.with_(batch_size=32), tiny.with_(batch_size=48)


def paired(bench: Bench, capability: tuple[int, int], until_s: float) -> None:
    """One paired run: a row of equal arms, and a row whose head waits for a tenth of each iteration."""
    budget_s = min(PAIRED_S, until_s - bench.elapsed_s)
    if budget_s < 2 * LEAST_S:
        bench.writer.comparison((), SPENT)
        return
    same, slowed = paired_cases(capability)
    project = Path(benches.__file__).resolve().parents[1]
    texts = {"base": "", "head": f"inject:{SLOWDOWN}@{slowed.id}"}
    made = {
        n: arms.prepare(arms.parse(n, text), project, bench.folder, lambda _text: None) for n, text in texts.items()
    }
    asked = ab.Asked(
        suite=Suite(name="gpu-check", description="", protocol=QUICK, cases=(same, slowed)),
        base=made["base"],
        head=made["head"],
        budget_s=budget_s,
        device=bench.device,
        threads=threads.chosen(None, spare=1),
        seed=SEED,
        plugins=(PLUGIN,),
        paths=(str(project),),
        project=project,
    )
    folder = bench.folder / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = ab.run(asked, folder, lambda _text: None)
    except Exception as error:
        bench.writer.comparison((), one_line(error))
        return
    bench.writer.comparison(compared(found, slowed.id))


def compared(found: Comparison, slowed: str) -> tuple[Compared, ...]:
    """The verdict on each row's latency, or on the whole row where it has none."""
    latency = {v.case_id: v for v in found.verdicts if v.metric == "latency_s"}
    whole = {v.case_id: v for v in found.verdicts if v.metric == "row"}
    return tuple(
        Compared(
            label=v.label,
            planted=case_id == slowed,
            outcome=v.outcome,
            ratio=v.ratio,
            reason=v.reason,
        )
        for case_id, v in {**whole, **latency}.items()
    )
