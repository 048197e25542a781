"""Holds nearly all memory of the GPU, so that a row that needs more than what is left runs out of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LEFT_BYTES: Final = 3 * 2**29  # 1.5 GiB: a CUDA context and libraries fit, an activation of 4 GiB does not
CHUNK_BYTES: Final = 2**30
HELD: Final = "held"
LONGEST_S: Final = 120.0


def hold(until: Path, report: Callable[[str], None]) -> int:
    """Runs in a worker: takes memory until LEFT_BYTES are free, reports HELD, and returns the bytes that it held once
    the file `until` exists."""
    import torch

    kept = []
    while torch.cuda.mem_get_info()[0] > LEFT_BYTES:
        free = torch.cuda.mem_get_info()[0] - LEFT_BYTES
        try:
            kept.append(torch.empty(min(free, CHUNK_BYTES), dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:  # the free memory is fragmented
            break
    report(HELD)
    for _ in range(round(LONGEST_S / 0.1)):
        if until.exists():
            break
        time.sleep(0.1)
    return sum(map(len, kept))
