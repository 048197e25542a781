"""The ONNX file that the rows of ONNX Runtime and TensorRT share, made while the GPU measures what idle cores cannot
disturb: its own peaks, clocks and energy."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benches.gpu_check import Check, Result
from benches.gpu_check.plan import vit
from benches.gpu_check.rows import Bench
from harness import threads
from harness.timing import perf_counter

NAME: Final = "ONNX export"
EXPORTED: Final = "exported, as was asked for"  # by the plugin's backend, which only workers import


def export(bench: Bench, until_s: float) -> None:
    """Exports ViT-B/16 in fp16. A failure is told, and is met again in the rows that need the file."""
    start = perf_counter()
    case = vit().with_(backend="check_export", precision="fp16")
    job = bench.job(case, (), max(1.0, until_s - bench.elapsed_s))
    found = bench.workers.measure(
        replace(job, device="cpu", threads=threads.chosen(None).count), lambda _phase: None
    ).measurement
    reason = str(found.reason)
    result: Result = "ok" if reason == EXPORTED else "left out"
    detail = "fp16, for two rows" if result == "ok" else f"{found.status}: {reason}"
    bench.writer.check(Check(what=NAME, result=result, detail=detail, seconds=perf_counter() - start))
