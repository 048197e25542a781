"""Two GEMM sizes, each run for some seconds, while the energy counter and both power readings are read."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from benches.gpu_check import Found, LeftOut
from benches.gpu_check.peaks import SIZES, half, repeated
from harness.devices.power import PowerReadings
from harness.reasons import Reason
from harness.timing import Timer

WINDOW_S: Final = 2.0
LONGEST_S: Final = 5.0
PERIODS: Final = 50  # of the counter: one update more or less is then an error of 2 %
SETTLE_S: Final = 1.2  # the average power of Hopper is a mean over one second


def joules(own_gpu: Any) -> Found:
    """Joules, seconds, FLOPs and mean powers by size; and the enforced power limit in watts."""
    import torch

    from harness.devices import nvml
    from harness.devices.cuda import Cuda

    meter = Cuda().energy_meter()
    if isinstance(meter, Reason):
        raise LeftOut(str(meter))
    if meter.period_s is None:
        raise LeftOut("the period of the energy counter could not be measured")
    seconds = min(max(WINDOW_S, PERIODS * meter.period_s), LONGEST_S)
    timer = Timer(torch.cuda.synchronize)
    sizes: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        a, b = (torch.randn(size, size, device="cuda", dtype=half()) for _ in range(2))
        work = partial(torch.mm, a, b)
        repeated(timer, work, SETTLE_S)
        with (
            PowerReadings(lambda: _instant_w(own_gpu)) as instant,
            PowerReadings(lambda: _average_w(own_gpu)) as average,
        ):
            began, before = timer.now(), meter.joules()
            _, calls = repeated(timer, work, seconds)
            ended, after = timer.now(), meter.joules()
        sizes[str(size)] = {
            "joules": after - before,
            "seconds": ended - began,
            "flops": 2.0 * size**3 * calls,
            "instant_w": instant.mean_w(),
            "average_w": average.mean_w(),
        }
    limit = nvml.identity(own_gpu)["power_limit_w"]
    words = ", ".join(f"{size}: {one['joules'] / one['seconds']:.0f} W" for size, one in sizes.items())
    return words, {"sizes": sizes, "power_limit_w": limit, "counter_period_s": meter.period_s}


def _instant_w(gpu: Any) -> float | None:
    from harness.devices.nvml_calls import field

    milliwatts = field(gpu.handle, "NVML_FI_DEV_POWER_INSTANT")
    return milliwatts / 1000.0 if milliwatts else None


def _average_w(gpu: Any) -> float | None:
    """`nvmlDeviceGetPowerUsage`: on Ampere and newer a mean over one second, except on GA100."""
    import pynvml

    from harness.devices.nvml_calls import number

    milliwatts = number(lambda: pynvml.nvmlDeviceGetPowerUsage(gpu.handle))
    return milliwatts / 1000.0 if milliwatts else None
