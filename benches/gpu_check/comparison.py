"""`ab` on the GPU: a row whose arms are equal, and a row whose head arm is slowed down. Needs PyYAML, as suites do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import benches
from baselines.verdict import Comparison
from benches.ab import arms
from benches.ab import driver as ab
from benches.gpu_check import QUICK
from benches.gpu_check.plan import LEAST_PAIRED_S, PAIRED_S, half
from benches.gpu_check.record import Compared
from benches.gpu_check.rows import PLUGIN, Bench
from harness.causes import one_line
from harness.processes import threads
from harness.types import Case, Suite

SLOWDOWN: Final = "busy=0.1"
SPENT: Final = "no time was left"
SEED: Final = 0
# Other rows measure energy. The preflight of `benches.ab.driver` leaves energy out if its windows are this long.
PROTOCOL: Final = replace(QUICK, energy_window_s=PAIRED_S)


def paired_cases(capability: tuple[int, int]) -> tuple[Case, Case]:
    """(the row of equal arms, the row that is slowed down in the head)."""
    long = Case(model="check_long", precision=half(capability))
    return long.with_(batch_size=4096), long.with_(batch_size=4608)


def paired(bench: Bench, capability: tuple[int, int], until_s: float) -> None:
    """One paired run: a row whose arms are equal, and a row whose head arm waits for a tenth of each iteration."""
    budget_s = min(PAIRED_S, until_s - bench.elapsed_s)
    if budget_s < LEAST_PAIRED_S:
        bench.writer.comparison((), SPENT)
        return
    same, slowed = paired_cases(capability)
    project = Path(benches.__file__).resolve().parents[1]
    texts = {"base": "", "head": f"inject:{SLOWDOWN}@{slowed.id}"}
    made = {
        n: arms.prepare(arms.parse(n, text), project, bench.folder, lambda _text: None) for n, text in texts.items()
    }
    asked = ab.Asked(
        suite=Suite(name="gpu-check", description="", protocol=PROTOCOL, cases=(same, slowed)),
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
        found = ab.run(asked, folder, lambda _text: None).comparison
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
            reason=str(v.reason),
        )
        for case_id, v in {**whole, **latency}.items()
    )
