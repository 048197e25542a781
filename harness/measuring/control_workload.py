"""The control workload: fixed work that runs none of the code under test. If its time changes, the machine has changed.

It is a fixed matrix product, which loads the cores, and a fixed copy, which loads the memory. The copy is larger than
the caches of one core of a CPU, and twice as large as the L2 cache of a GPU, which may hold tens of megabytes. The two
arms of a pair take turns on it as on a row. It is not tested on a GPU yet.
"""

from __future__ import annotations

import statistics
from typing import Final

from harness.devices import Device
from harness.measuring import cold_cache
from harness.measuring.turns import Turns
from harness.reasons import Reason
from harness.registry import DEVICES
from harness.timing import Timer

NAMES: Final = ("gemm", "copy")
SIZE: Final = 384
COPIED_BYTES: Final = 16 * 2**20  # on a CPU; the minimum on a GPU
UNKNOWN_L2_BYTES: Final = 128 * 2**20  # used if the driver does not report the size; no NVIDIA GPU of 2025 has more
TURNS: Final = 6
REPEATS: Final = 5


def measure(timer: Timer, device: Device, turns: Turns | None = None) -> dict[str, list[float]]:
    """Median seconds of each control workload in each of TURNS turns; the first repeat of each turn is left out."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a = torch.randn(SIZE, SIZE, generator=generator).to(device.torch_device)
    source = torch.zeros(copied_bytes(device.name), dtype=torch.uint8, device=device.torch_device)
    target, product = torch.empty_like(source), torch.empty_like(a)
    work = {"gemm": lambda: torch.mm(a, a, out=product), "copy": lambda: target.copy_(source)}
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(TURNS):
        if turns is not None:
            turns.pass_on()
        for name in NAMES:
            seconds = [timer.seconds(work[name]) for _ in range(REPEATS)]
            found[name].append(statistics.median(seconds[1:]))
    return found


def copied_bytes(device: str) -> int:
    """The size in bytes of the copy on `device`."""
    if not DEVICES[device].is_gpu:
        return COPIED_BYTES
    l2 = cold_cache.cache_bytes(device)
    return max(COPIED_BYTES, 2 * (UNKNOWN_L2_BYTES if isinstance(l2, Reason) else l2))
