"""The plugin of the measured half of the corpus: models that an environment variable slows or breaks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import planted
import planted_states  # noqa: F401
import torch

from harness.types import Case, Forward, Workload


@planted.add("recorded_spin")
def spin(case: Case) -> Workload:
    """Spins for RECORDED_SPIN_S seconds in each iteration (0.002 by default)."""
    seconds = float(os.environ.get("RECORDED_SPIN_S", "0.002"))

    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return forwards["classifier"](batch)

    return planted.workload(case, iterate)


@planted.add("recorded_no_reference")
def no_reference(case: Case) -> Workload:
    """Its fp32 reference cannot be computed, since the eager row in fp32 breaks."""
    if case.precision == "fp32":
        raise ValueError("no fp32")
    return planted.workload(case)


@planted.add("recorded_late")
def late(case: Case) -> Workload:
    """Breaks from the fifth process on, where RECORDED_MARK names a file that counts them."""
    mark = os.environ.get("RECORDED_MARK")
    if mark:
        with Path(mark).open("ab") as file:
            file.write(b".")
            if file.tell() > 4:
                raise ValueError("the planted error")
    return planted.workload(case)
