"""The measured speed of this GPU in products and copies, from which the bounds of the rows are computed.

A peak is that of the fastest of several stretches of one product of square matrices, over several sizes. Each size gets
SECONDS, whatever the GPU: 2,000 products of 4096 take 0.4 s on an H100 in bf16 and more than 30 s on a T4 in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from benches.gpu_check import Found, LeftOut, expect
from harness.timing import Timer, perf_counter

SIZES: Final = (4096, 8192)
SECONDS: Final = 0.4  # of one precision and size
STRETCH_S: Final = 0.05  # between two synchronisations
COPY_BYTES: Final = 2**30  # of each buffer: one that fits into the L2 would show the L2's bandwidth
AMPERE: Final = (8, 0)
ADA: Final = (8, 9)


def half() -> Any:
    """The 16-bit dtype whose tensor cores this GPU has: float16 below compute capability 8.0, else bfloat16."""
    import torch

    return torch.bfloat16 if torch.cuda.get_device_capability() >= AMPERE else torch.float16


def repeated(timer: Timer, work: Callable[[], Any], seconds: float) -> tuple[float, int]:
    """(seconds of one call in the fastest stretch, calls in all) of `work`, run for about `seconds`, at least one
    stretch after the first call."""
    first = max(timer.seconds(work), 1e-7)
    calls = max(1, int(STRETCH_S / first))
    fastest, count, began = first, 1, perf_counter()
    while True:
        fastest = min(fastest, timer.seconds(work, calls))
        count += calls
        if perf_counter() - began >= seconds:
            return fastest, count


def gemm_peaks() -> Found:
    """FLOP/s by precision, and the error for each precision in which this GPU or this torch cannot multiply."""
    import torch

    from harness.numerics import precision

    timer = Timer(torch.cuda.synchronize)
    peaks: dict[str, float] = {}
    missing: dict[str, str] = {}
    with precision.applied("fp32"):
        for name, product in _products(torch.cuda.get_device_capability()).items():
            try:
                peaks[name] = max(2 * size**3 / repeated(timer, product(size), SECONDS)[0] for size in SIZES)
            except (RuntimeError, AttributeError, TypeError) as error:
                missing[name] = f"{type(error).__name__}: {error}"[:300]
            torch.cuda.empty_cache()
    wanted = {"fp32", "fp16"} | ({"tf32", "bf16"} if torch.cuda.get_device_capability() >= AMPERE else set())
    expect(wanted <= peaks.keys(), f"no matrix product in {sorted(wanted - peaks.keys())}: {missing}")
    words = ", ".join(f"{name} {flops * 1e-12:.1f}" for name, flops in peaks.items())
    return f"{words} TFLOP/s", {**peaks, "missing": missing}


def _products(capability: tuple[int, int]) -> dict[str, Callable[[int], Callable[[], Any]]]:
    """By name, a function that prepares the product of two square matrices of a given size."""
    import torch

    def plain(dtype: Any) -> Callable[[int], Callable[[], Any]]:
        def of(size: int) -> Callable[[], Any]:
            a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
            out = torch.empty(size, size, device="cuda", dtype=dtype)
            return lambda: torch.mm(a, b, out=out)

        return of

    def switched(switch: str, dtype: Any) -> Callable[[int], Callable[[], Any]]:
        """The product with a switch of cuBLAS on while it runs."""

        def of(size: int) -> Callable[[], Any]:
            product, settings = plain(dtype)(size), torch.backends.cuda.matmul

            def run() -> None:
                before = getattr(settings, switch)
                setattr(settings, switch, True)
                try:
                    product()
                finally:
                    setattr(settings, switch, before)

            return run

        return of

    def int8(size: int) -> Callable[[], Any]:
        a, b = (torch.randint(-128, 128, (size, size), device="cuda", dtype=torch.int8) for _ in range(2))
        return lambda: torch._int_mm(a, b.t())

    def fp8(size: int) -> Callable[[], Any]:
        a, b = (torch.randn(size, size, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
        one = torch.ones((), device="cuda")
        return partial(torch._scaled_mm, a, b.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)

    found = {
        "fp32": plain(torch.float32),
        "fp16": plain(torch.float16),
        "fp16 accumulated in fp16": switched("allow_fp16_accumulation", torch.float16),
        "int8": int8,
    }
    if capability >= AMPERE:
        found |= {"tf32": switched("allow_tf32", torch.float32), "bf16": plain(torch.bfloat16)}
    if capability >= ADA:
        found["fp8"] = fp8
    return found


def copy_bandwidth() -> Found:
    """Bytes per second read and written while one buffer is copied to another."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    if free < 2.5 * COPY_BYTES:
        raise LeftOut(f"only {free / 2**30:.1f} GiB are free, and the copy needs two buffers of 1 GiB")
    source, target = (torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))
    seconds, _ = repeated(Timer(torch.cuda.synchronize), lambda: target.copy_(source), SECONDS)
    moved = 2 * COPY_BYTES / seconds
    return f"{moved * 1e-9:.0f} GB/s read and written", {"bytes_per_s": moved, "buffer_bytes": COPY_BYTES}
