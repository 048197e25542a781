"""Which kernels a GPU ran: one iteration under torch's profiler, after everything that is timed.

An iteration of many calls (the steps of a diffusion model) may have 100,000 kernels or more. Reading them would take
torch tens of seconds and gigabytes of memory. In that case one call of each network with its example inputs is profiled
instead, and the fact `kernels_of` says so. The clocks of a GPU fall while the profiler starts, so iterations run inside
the profiler for WARM_S seconds before the one that is kept. The row's measurement is sent before the probe begins
(`harness.processes.worker`). It remains valid if the probe fails, ends the process or takes too long.

CUPTI sees the kernels of every library in the process, so ONNX Runtime's and TensorRT's too, and those of a replayed
CUDA graph one by one. The names show which attention and which matrix product were chosen, and in which precision. On a
CPU nothing is profiled: profiling would take one more iteration, which may last minutes, and the profiler would write
to the log of every row. The facts of the backends show what ran there.

Not yet proven on hardware.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from harness.measuring.trial import Findings, Trial
from harness.probes import AFTER_CONTROL_WORKLOAD, probe

MANY_CALLS: Final = 8  # of networks in one iteration
WARM_S: Final = 0.2
PRODUCTS_KEPT: Final = 40
OTHERS_KEPT: Final = 10
LONGEST_NAME: Final = 500  # templates of C++
# The first that matches is the kind. Inductor names its pointwise kernels and reductions after the operators around
# them, and its own products (from templates) by the prefix triton_tem_.
KINDS: Final = (
    ("other", re.compile(r"^triton_(?!tem_)|memcpy|memset", re.IGNORECASE)),
    ("attention", re.compile(r"flash|fmha|mha|attention|sdpa", re.IGNORECASE)),
    ("convolution", re.compile(r"conv(?!ert)|fprop|winograd|(\d|s)cudnn_", re.IGNORECASE)),
    ("gemm", re.compile(r"^triton_tem_|gemm|gemv|cublas|nvjet|cutlass|xmma|splitk|matmul", re.IGNORECASE)),
)
# torch sets these itself where inductor replays CUDA graphs: with them, stopping CUPTI and starting it again crashes.
KEEP_CUPTI: Final = {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}


def kind(name: str) -> str:
    """ "attention", "convolution", "gemm" or "other", by the names that libraries give their kernels.

    >>> kind("void pytorch_flash::flash_fwd_kernel<cutlass::bfloat16_t>"), kind("ampere_sgemm_128x64_tn")
    ('attention', 'gemm')
    """
    from harness.backends.tensorrt import layers as tensorrt_layers  # late: listing the metrics needs no backend

    product = tensorrt_layers.is_generated(name) and tensorrt_layers.has_product(name)
    return next((found for found, pattern in KINDS if pattern.search(name)), "gemm" if product else "other")


@probe("kernels", order=AFTER_CONTROL_WORKLOAD, metrics=(), first_process_only=True)
def kernels(trial: Trial) -> Findings:
    """Facts: `kernels`, the longest kernels (name, kind, calls, seconds, and the share of all kernels' time);
    `kernel_time_s`, the sum over all kernels; `kernel_event_s`, the seconds of the same calls between two CUDA events;
    and `kernels_of`, what was profiled. Or `kernels_missing`, the reason why there are none.

    The sum counts kernels that ran side by side in two streams twice. Copies and fills (cudaMemcpy, cudaMemset) are no
    kernels and are left out.
    """
    found = _profiled(trial)
    if isinstance(found, str):
        return Findings(facts={"kernels_missing": found})
    total = sum(seconds for _, seconds in found.kernels)
    facts = {"kernels": _longest(found.kernels, total), "kernel_time_s": total, "kernels_of": found.of}
    return Findings(facts=facts if found.event_s is None else {**facts, "kernel_event_s": found.event_s})


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """`kernels` are (name, seconds) of each kernel; `event_s` the seconds of the device's own clock around them; `of`
    what was profiled, in words."""

    kernels: list[tuple[str, float]]
    event_s: float | None
    of: str


def _profiled(trial: Trial) -> Profiled | str:
    """The kernels of one iteration, or of one call of each network; or the reason why they are not known."""
    if not trial.device.is_gpu:
        return "the device is a CPU; kernels are listed for GPUs only"
    from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():
        return "this build of torch has no CUDA profiler (kineto with CUPTI)"
    os.environ.update(KEEP_CUPTI)
    phases = schedule(wait=0, warmup=1, active=1)
    try:
        work, of = _work(trial)
        with _stderr_kept() as said, profile(activities=[ProfilerActivity.CUDA], schedule=phases) as session:
            spent_s = 0.0
            while spent_s < WARM_S:
                spent_s += trial.timer.seconds(work)
            session.step()
            trial.timer.seconds(work)
        found = _kernels(session.events() or ())
    except RuntimeError as error:
        return f"torch's profiler failed: {error}"
    if not found:
        words = f"; it said: {said()}" if said() else ""
        return f"torch's profiler saw no kernel (another profiler, or no permission){words}"
    return Profiled(kernels=found, event_s=trial.timer.last_device_s, of=of)


def _work(trial: Trial) -> tuple[Callable[[], object], str]:
    """What is profiled, and what it is in words: one iteration, or one call of each network."""
    components = trial.workload.components
    if sum(c.calls for c in components) <= MANY_CALLS:
        return trial.step, "one iteration"
    device, forwards, after = trial.device.torch_device, trial.build.forwards, trial.build.after_iteration
    inputs = {c.name: [x.to(device) for x in c.inputs] for c in components}

    def calls() -> None:
        for name, given in inputs.items():
            forwards[name](*given)
        if after is not None:
            after()

    told = ", ".join(f"{c.name} {c.calls}" for c in components)
    return calls, f"one call of each network (an iteration has more: {told})"


def _kernels(events: Iterable[Any]) -> list[tuple[str, float]]:
    """(name, seconds) of those of torch's `FunctionEvent`s that are kernels."""
    return [
        (event.name, event.time_range.elapsed_us() * 1e-6)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation and _is_kernel(event)
    ]


def _is_kernel(event: Any) -> bool:
    """Whether an event is a kernel: by kineto's activity type if this torch reports it, else by the event's name."""
    activity = getattr(event, "activity_type", None)
    return activity == "kernel" if activity else not event.name.startswith(("Memcpy", "Memset"))


def _longest(found: list[tuple[str, float]], total: float) -> list[dict[str, Any]]:
    """The kernels by name, the longest first: PRODUCTS_KEPT attentions, convolutions and GEMMs, OTHERS_KEPT others."""
    by_name: dict[str, tuple[int, float]] = {}
    for name, seconds in found:
        calls, before = by_name.get(name, (0, 0.0))
        by_name[name] = (calls + 1, before + seconds)
    rows = [
        {
            "name": name[:LONGEST_NAME],
            "kind": kind(name),
            "calls": calls,
            "seconds": seconds,
            "share": seconds / total if total else 0.0,
        }
        for name, (calls, seconds) in sorted(by_name.items(), key=lambda item: -item[1][1])
    ]
    others = [row for row in rows if row["kind"] == "other"][:OTHERS_KEPT]
    products = [row for row in rows if row["kind"] != "other"][:PRODUCTS_KEPT]
    return sorted([*products, *others], key=lambda row: -row["seconds"])


@contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """What C++ code writes to stderr in the block. It is kept out of the log; read it as one line after the block."""
    kept, text = os.dup(2), ""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: text
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = " ".join(file.read().decode(errors="replace").split())[-LONGEST_NAME:]
