"""What must hold across the rows of any GPU, whatever its speed. Each law is one function of a record.

A law fails where a row contradicts it. It is left out where a row that must run lacks a figure that the law needs. Laws
ignore rows that are not ok, because the table reports those.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from benches.gpu_check import Check, must_run
from benches.gpu_check.record import Record, Row
from harness.numerics import precision as precisions
from harness.registry import PRECISIONS

LOOPS_TOLERANCE: Final = 0.1  # of twice the time of one loop; a cached answer would take half of that
KERNEL_TOLERANCE: Final = 1.1  # of the event time
GRAPHS_TOLERANCE: Final = 1.1  # of the eager latency: where the GPU is the bottleneck, a replay saves nothing

# The first pattern that matches a kernel's name gives its precision. The patterns follow the names of cuBLAS, cuBLASLt
# (nvjet), cuDNN, CUTLASS and torch's attention kernels, as published; they have not been seen on hardware. The names of
# Triton's and TensorRT Myelin's kernels do not show a precision.
SHOWN: Final[Mapping[str, re.Pattern[str]]] = {
    "fp8": re.compile(r"e4m3|e5m2|fp8|nvjet_(?:sm\d+_)?q"),
    "int8": re.compile(r"int8|imma|igemm|i8816|i16832|i8i8|i8i32|i8f(?:16|32)|s8s8|_s8_"),
    "bf16": re.compile(r"bf16|bfloat16|nvjet_(?:sm\d+_)?t"),
    "fp16": re.compile(r"fp16|f16f16|_f16_|half|hgemm|h884|h1688|h16816|s884|nvjet_(?:sm\d+_)?h"),
    "tf32": re.compile(r"tf32|tensorop_s1688"),
    "fp32": re.compile(r"sgemm|simt|f32f32_f32|_f32_|ffma"),
}
UNCLEAR: Final = re.compile(r"^cudnn_generated_")  # cuDNN also names its bf16 attention with f16
BITS: Final[Mapping[str, int]] = {"fp8": 8, "int8": 8, "bf16": 16, "fp16": 16, "tf32": 19, "fp32": 32}
QUANTISED: Final = ("int8", "fp8")
TENSORRT: Final = ("tensorrt", "onnxruntime_tensorrt")
# These queue every kernel in one stream. Others may run kernels concurrently; the sum of their times is then larger.
ONE_STREAM: Final = (
    "eager",
    "cuda_graphs",
    "torch_compile",
    "torch_compile_reduce_overhead",
    "torch_compile_max_autotune",
)
NOTHING_SHOWN: Final = "no kernel's name shows the precision"


def bound(record: Record) -> Check:
    """No row is faster than its roofline bound: the larger of its FLOPs divided by the measured GEMM peak, and the
    bytes of its weights beyond the size of the L2 divided by the measured copy bandwidth. If a row is faster, the timer
    did not wait for its work. FLOPs are those of direct convolutions; Winograd's algorithm could need fewer in a
    network that consists mostly of convolutions."""
    peaks, bandwidth = _figures(record, "GEMM peaks"), _figures(record, "copy bandwidth").get("bytes_per_s")
    held: dict[str, float] = {}

    def part(row: Row) -> str | None:
        peak = _peak(peaks, row.measurement.case.precision, row.measurement.case.backend)
        if peak is None or not bandwidth or row.flops is None:
            return None
        weights = (row.measurement.samples.get("weights_bytes") or [0.0])[0]
        beyond_l2 = max(0.0, weights - float(record.header.get("l2_bytes") or 0))
        seconds = max(row.flops / peak, beyond_l2 / bandwidth)
        held[row.name] = seconds / min(_shortest(row))
        return f"{held[row.name]:.2f}"

    return _law(record, must_run.BOUND, part, lambda row: held[row.name] > 1, "no FLOPs, peak or bandwidth")


def _peak(peaks: Mapping[str, Any], precision: str, backend: str) -> float | None:
    """The FLOP/s that no kernel of this row exceeds: the fastest of several candidates, or None without any.

    Backends other than torch's may accumulate fp16 in fp16, which is twice as fast on a GeForce. A quantised row mixes
    precisions, so its bound is computed from the fastest of all peaks, as if all of its FLOPs were in int8 or fp8. That
    bound is weak: a row whose products are mostly wide can miss a synchronisation and still stay below it."""
    own = precisions.products_of(precision)
    if PRECISIONS[precision].quantiser is not None or own is None or own not in BITS:
        candidates = [name for name, peak in peaks.items() if isinstance(peak, int | float)]
    elif own == "fp16" and backend in {"onnxruntime", *TENSORRT}:
        candidates = ["fp16", "fp16 accumulated in fp16"]
    else:
        candidates = [own]
    return max((float(peaks[name]) for name in candidates if peaks.get(name)), default=None)


def loops(record: Record) -> Check:
    """The time of two loops is twice that of one (`benches.gpu_check.two_loops`)."""
    ratios: dict[str, float] = {}

    def part(row: Row) -> str | None:
        found = row.measurement.facts.get("two_loops_ratio")
        if found is None:
            return None
        ratios[row.name] = float(found)
        return f"{found:.3f}"

    def wrong(row: Row) -> bool:
        return abs(ratios[row.name] / 2 - 1) > LOOPS_TOLERANCE

    return _law(record, must_run.LOOPS, part, wrong, "not measured")


def kernel_time(record: Record) -> Check:
    """The profiled kernels take at most the time between two CUDA events around them (`kernel_event_s`) or, where that
    is missing, around an iteration of the samples. Backends outside ONE_STREAM may run kernels concurrently, so their
    share is shown and cannot fail."""
    shares: dict[str, float] = {}

    def part(row: Row) -> str | None:
        facts, events = row.measurement.facts, row.measurement.samples.get("device_time_s")
        seconds = facts.get("kernel_time_s")
        around = facts.get("kernel_event_s") or (statistics.median(events) if events else None)
        if seconds is None or not around:
            return None
        shares[row.name] = float(seconds) / float(around)
        return f"{shares[row.name]:.2f}"

    def wrong(row: Row) -> bool:
        return shares[row.name] > KERNEL_TOLERANCE and row.measurement.case.backend in ONE_STREAM

    return _law(record, must_run.KERNEL_TIME, part, wrong, "no kernel time or no events")


def kernel_names(record: Record) -> Check:
    """A row fails if the names of its matrix product kernels show wider precisions and never its own.

    The name patterns come from publications, so a single unknown name does not fail a row. A row is ok if a product
    shows its own precision. Nothing is shown, which is not a failure, in two cases: the names give no precision or only
    precisions as narrow as the row's own; or products with unknown names take more time than the wide ones (in a
    quantised row, whose other products are wide, any time), since they may be in the row's own precision.
    A precision that quantises weights alone multiplies in a wide precision and is not checked. Only an eager row must
    show a precision, because the names of Triton's and Myelin's kernels give none.
    """
    wide: dict[str, str] = {}

    def part(row: Row) -> str | None:
        own = precisions.products_of(row.measurement.case.precision)
        if own is None or own not in BITS:
            return "not checked"
        seconds = by_precision(row.measurement.facts.get("kernels"))
        shown = ", ".join(sorted(filter(None, seconds), key=lambda name: -seconds[name]))
        if own in seconds:
            return shown
        wider = math.fsum(s for name, s in seconds.items() if name and BITS[name] > BITS[own])
        unknown = seconds.get("", 0.0)
        if wider > 0 and (unknown == 0 or (own not in QUANTISED and wider > unknown)):
            wide[row.name] = shown
            return f"{shown}, none in {own}"
        return None if row.measurement.case.backend == "eager" else "nothing shown"

    return _law(record, must_run.KERNEL_NAMES, part, lambda row: row.name in wide, NOTHING_SHOWN)


def by_precision(kernels: Any) -> dict[str, float]:
    """Seconds of products by the precision that the kernel's name shows, "" where it shows none. `kernels` is the fact
    of that name: a list of {name, kind, calls, seconds}, whose `kind` says what is a product."""
    found: dict[str, float] = {}
    for kernel in kernels if isinstance(kernels, list) else ():
        if isinstance(kernel, Mapping) and kernel.get("kind", "other") != "other":
            shown = _shown(str(kernel.get("name", "")).lower())
            found[shown] = found.get(shown, 0.0) + float(kernel.get("seconds") or 0.0)
    return {name: seconds for name, seconds in found.items() if seconds > 0}


def _shown(name: str) -> str:
    if UNCLEAR.search(name):
        return ""
    return next((precision for precision, pattern in SHOWN.items() if pattern.search(name)), "")


def tf32(record: Record) -> Check:
    """TF32 changes the output and is faster. A switch without effect would give the same output in the same time."""

    def decide(wide: Row, narrow: Row) -> tuple[bool, str]:
        hashes = [row.measurement.facts.get("output_hash") for row in (wide, narrow)]
        if None in hashes:
            raise KeyError("output_hash")
        differ = hashes[0] != hashes[1]
        slow, fast = _latency(wide), _latency(narrow)
        words = f"{'a different' if differ else 'the same'} output, {_ms(slow)} in fp32, {_ms(fast)} in tf32"
        return differ and fast < slow, words

    if record.capability < must_run.AMPERE:
        return Check(what=must_run.TF32, result="left out", detail="TF32 needs compute capability 8.0 or higher")
    return _pair(record, must_run.TF32, must_run.VIT_FP32, must_run.VIT_TF32, decide)


def graphs(record: Record) -> Check:
    """A CUDA graph at batch 1 is not slower than eager, since a replay does not wait for launches."""

    def decide(eager: Row, replayed: Row) -> tuple[bool, str]:
        slow, fast = _latency(eager), _latency(replayed)
        return fast <= GRAPHS_TOLERANCE * slow, f"{_ms(slow)} in eager, {_ms(fast)} replayed"

    return _pair(record, must_run.GRAPHS, must_run.VIT_ONE, must_run.GRAPHS_ONE, decide)


def memory(record: Record) -> Check:
    """The peak of allocated memory of one network and batch, in 16 bits and in fp32."""

    def decide(wide: Row, narrow: Row) -> tuple[bool, str]:
        wide_b, narrow_b = (row.measurement.samples["peak_allocated_bytes"][0] for row in (wide, narrow))
        name = narrow.measurement.case.precision
        return narrow_b < wide_b, f"{wide_b / 2**20:.0f} MiB in fp32, {narrow_b / 2**20:.0f} MiB in {name}"

    return _pair(record, must_run.MEMORY, must_run.VIT_FP32, must_run.VIT, decide)


LAWS: Final[tuple[Callable[[Record], Check], ...]] = (bound, loops, kernel_time, kernel_names, tf32, graphs, memory)


def _law(
    record: Record,
    name: str,
    part: Callable[[Row], str | None],
    wrong: Callable[[Row], bool],
    not_shown: str,
) -> Check:
    """Checks the law on every row that is ok. `part` returns what a row shows, in words, or None if it shows
    nothing."""
    needed = must_run.rows(record.capability)
    shown = {row.name: (row, part(row)) for row in _measured(record)}
    told = {name: (row, words) for name, (row, words) in shown.items() if words is not None}
    failing = [f"{row.name} {words}" for row, words in told.values() if wrong(row)]
    if failing:
        return Check(what=name, result="FAILED", detail="; ".join(failing))
    silent = [row.name for row, words in shown.values() if words is None and row.name in needed]
    if silent or not told:
        where = f" ({', '.join(silent)})" if silent else ""
        return Check(what=name, result="left out", detail=f"{not_shown}{where}")
    return Check(what=name, result="ok", detail=", ".join(f"{row.name} {words}" for row, words in told.values()))


def _pair(record: Record, name: str, first: str, second: str, decide: Callable[[Row, Row], tuple[bool, str]]) -> Check:
    """Checks the law on two rows. It is left out if one of them is not ok or lacks a figure."""
    measured = {row.name: row for row in _measured(record)}
    if absent := [row for row in (first, second) if row not in measured]:
        return Check(what=name, result="left out", detail=f"not measured: {', '.join(absent)}")
    try:
        holds, words = decide(measured[first], measured[second])
    except (KeyError, IndexError) as error:
        return Check(what=name, result="left out", detail=f"a row has no {error}")
    return Check(what=name, result="ok" if holds else "FAILED", detail=words)


def _measured(record: Record) -> Iterator[Row]:
    """The rows that are ok, without the controls."""
    return (
        row
        for row in record.rows.values()
        if row.measurement.status == "ok" and row.measurement.samples.get("latency_s") and not is_control(row.name)
    )


def is_control(name: str) -> bool:
    return name.startswith("control: ")


def _figures(record: Record, check: str) -> Mapping[str, Any]:
    found = record.checks.get(check)
    return (found.figures or {}) if found is not None and found.result == "ok" else {}


def _latency(row: Row) -> float:
    return statistics.median(row.measurement.samples["latency_s"])


def _shortest(row: Row) -> list[float]:
    """Median seconds of an iteration by each clock."""
    samples = row.measurement.samples
    return [statistics.median(samples[name]) for name in ("latency_s", "device_time_s") if samples.get(name)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
