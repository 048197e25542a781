"""The cases that a GPU check measures, each in a process of its own, as a suite would."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import benches
from benches.gpu_check import BUDGET_S, LEAST_S, QUICK, ROW_TIMEOUT_S, Check
from benches.preload import libraries
from harness import threads
from harness.backends import BROKEN
from harness.registry import BACKENDS, MODELS, PROBES
from harness.timing import perf_counter
from harness.types import Case, Measurement
from harness.worker import one_line

PLUGIN: Final = "benches.gpu_check.plain_vit"  # workers import it by name: their registry must have the model too
THREADS: Final = 4  # at most: the host only launches kernels
WITH_ENERGY: Final = ("fp32", "bf16")
NEEDS: Final = {
    "digits_vit": ("timm", "sklearn"),
    "digits_dit": ("diffusers", "sklearn", "torch_fidelity"),
    "digits_sd": ("diffusers", "transformers", "sklearn", "torch_fidelity"),
}


def cases() -> Iterator[Case]:
    """What is measured, the most telling first, since time may run out."""
    plain = Case(model="check_vit", batch_size=32, image_size=224)
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        yield plain.with_(precision=precision)
    for backend in ("cuda_graphs", "torch_compile", "torch_compile_reduce_overhead", "onnxruntime", "tensorrt"):
        yield plain.with_(backend=backend, precision="fp16")
    for name in ("attention_math", "attention_flash", "attention_efficient", "channels_last", "inference_mode"):
        yield plain.with_(precision="bf16", optimizations=name)
    for precision in ("int8_dynamic", "int8_static", "int8_weight_only", "fp8_e4m3"):
        yield plain.with_(precision=precision)
    yield from (plain.with_(backend="tensorrt", precision=p) for p in ("fp32", "bf16", "int8_static", "fp8_e4m3"))
    yield from (plain.with_(backend="onnxruntime_tensorrt", precision=p) for p in ("fp16", "int8_static"))
    for model in NEEDS:
        one = Case(**{"model": model, "weights": "digits", "batch_size": 10, **MODELS[model].axes})
        yield one.with_(precision="bf16")
        yield one.with_(backend="onnxruntime", precision="fp16")
        yield one.with_(backend="tensorrt", precision="fp16")
        if model != "digits_vit":
            yield one.with_(precision="bf16", optimizations="model_cpu_offload")
            yield one.with_(precision="bf16", optimizations="sequential_cpu_offload")
    yield plain.with_(backend="torch_compile_max_autotune", precision="fp16")
    yield plain.with_(backend="torch_compile", precision="fp8_e4m3")


def rows(began: float, say: Callable[[Check], None]) -> Iterator[Check]:
    """Every case in a process of its own, until the time is spent."""
    from harness.measure import Job
    from harness.worker import Workers

    plugins = (*benches.PLUGINS, PLUGIN)
    with tempfile.TemporaryDirectory(prefix="imgbench-gpu-check-") as scratch:
        folder = Path(scratch)
        workers = Workers(plugins, folder / "logs", libraries(cases()))
        for case in cases():
            elapsed_s = perf_counter() - began
            check = _not_measured(case, elapsed_s)
            if check is None:
                job = Job(
                    case=case,
                    replicate=0,
                    protocol=replace(QUICK, timeout_s=min(ROW_TIMEOUT_S, BUDGET_S - elapsed_s)),
                    device="cuda",
                    folder=folder,
                    cache=folder / "cache" / case.id,
                    threads=min(THREADS, threads.chosen(None).count),
                    plugins=plugins,
                    only=_probes(case),
                )
                start = perf_counter()
                measured = workers.measure(job, lambda _phase: None).measurement
                check = _row(measured, perf_counter() - start, job.protocol.timeout_s)
            say(check)
            yield check


def _probes(case: Case) -> tuple[str, ...]:
    """All of them, energy only where the plain model runs in eager: its windows take as long as everything else."""
    plain = (case.model, case.backend, case.optimizations) == ("check_vit", "eager", None)
    return tuple(name for name in PROBES if name != "energy" or (plain and case.precision in WITH_ENERGY))


def _not_measured(case: Case, elapsed_s: float) -> Check | None:
    """The line of a row that is left out, or whose backend is broken or cannot even say so; None for all others."""
    try:
        return _left_out(case, elapsed_s)
    except Exception as error:
        return Check(what=case.label, result="FAILED", detail=one_line(error))


def _left_out(case: Case, elapsed_s: float) -> Check | None:
    reason = next((f"{n} is not installed" for n in NEEDS.get(case.model, ()) if not importlib.util.find_spec(n)), None)
    reason = reason or BACKENDS[case.backend].unavailable(case.precision, "cuda")
    if reason is None and BUDGET_S - elapsed_s < LEAST_S:
        reason = f"the time of {BUDGET_S:.0f} s was spent"
    return None if reason is None else _not_run(case.label, reason)


def _not_run(label: str, reason: str, seconds: float = 0.0) -> Check:
    """A package that is installed and cannot be imported is no part left out."""
    return Check(what=label, result="FAILED" if BROKEN in reason else "left out", detail=reason, seconds=seconds)


def _row(measured: Measurement, seconds: float, allowed_s: float = ROW_TIMEOUT_S) -> Check:
    """The row's line. One that was stopped before its own time was up says nothing about its backend."""
    samples, label = measured.samples, measured.case.label
    if measured.status == "timeout" and allowed_s < ROW_TIMEOUT_S:
        reason = f"the time of {BUDGET_S:.0f} s was spent, {allowed_s:.0f} s of it on this row"
        return Check(what=label, result="left out", detail=reason, seconds=seconds)
    if measured.status == "skipped":
        return _not_run(label, str(measured.reason), seconds)
    if measured.status != "ok":
        return Check(what=label, result="FAILED", detail=f"{measured.status}: {measured.reason}", seconds=seconds)
    words = [f"{statistics.median(samples['latency_s']) * 1e3:.2f} ms"]
    if "device_time_s" in samples:
        words.append(f"{statistics.median(samples['device_time_s']) * 1e3:.2f} ms by events")
    if "energy_per_image_j" in samples:
        words.append(f"{samples['energy_per_image_j'][0]:.3g} J an image")
    if "cosine_similarity" in samples:
        words.append(f"cosine {statistics.fmean(samples['cosine_similarity']):.4f}")
    words += list(measured.warnings)
    figures = {"case": asdict(measured.case), "facts": measured.facts, "state": measured.state, "samples": samples}
    return Check(what=label, result="ok", detail=", ".join(words), seconds=seconds, figures=figures)
