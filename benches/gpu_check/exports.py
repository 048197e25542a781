"""The ONNX file that the rows of ONNX Runtime and TensorRT share. It is exported while the peaks, clocks and
energy of the GPU are measured, which work on idle CPU cores does not affect."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benches.gpu_check import Check, Result
from benches.gpu_check.plan import vit
from benches.gpu_check.rows import Bench
from harness.processes import threads
from harness.reasons import Reason, sentences
from harness.timing import perf_counter

NAME: Final = "ONNX export"
EXPORTED: Final = Reason("files_exported")  # raised by the plugin's backend, in workers

sentences({EXPORTED.kind: lambda: "the files are exported; this backend runs nothing"})


def export(bench: Bench, until_s: float) -> None:
    """Exports ViT-B/16 in fp16 and records the result. If the export fails, the rows that need the file fail, too."""
    start = perf_counter()
    case = vit().with_(backend="check_export", precision="fp16")
    job = bench.job(case, (), max(1.0, until_s - bench.elapsed_s))
    found = bench.workers.measure(
        replace(job, device="cpu", threads=threads.chosen(None).count), lambda _phase: None
    ).measurement
    reason = found.reason
    result: Result = "ok" if reason is not None and reason.kind == EXPORTED.kind else "left out"
    detail = "fp16, for the rows of ONNX Runtime and TensorRT" if result == "ok" else f"{found.status}: {reason}"
    bench.writer.check(Check(what=NAME, result=result, detail=detail, seconds=perf_counter() - start))
