"""`make gpu-check`: everything that needs a GPU, run once for real, in one table with a verdict, in at most 8 minutes.

It needs torch, numpy, scipy and a GPU, and no network. What else is there (timm, diffusers, onnxruntime-gpu, TensorRT,
nvidia-ml-py) is checked too; what is not is named under "left out", never passed over. Each check is one of

    ok         it ran on this GPU, and what it must show was seen
    FAILED     it ran and showed something else, or it raised, hung or ended its process; a package is installed and
               cannot be imported; or no row was measured at all
    left out   a package, the driver's NVML or the time was missing, with the reason

The verdict is the exit code: 0 where nothing failed, 1 where something did, 2 where no GPU answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from harness.types import Protocol

BUDGET_S: Final = 460.0  # the last row is stopped here; killing it takes seconds
ROW_TIMEOUT_S: Final = 120.0
LEAST_S: Final = 20.0  # no row is begun with less time than this
QUICK: Final = Protocol(
    replicates=1,
    warmup_min_s=0.1,
    warmup_max_s=2.0,
    min_samples=10,
    min_sample_time_s=0.2,
    max_sample_time_s=2.0,
    target_interval=None,
    contended_retries=0,
    energy_window_s=2.0,
    timeout_s=ROW_TIMEOUT_S,
    quality=False,
)
Result = Literal["ok", "FAILED", "left out"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the table. `figures` are for the record that is kept."""

    what: str
    result: Result
    detail: str
    seconds: float = 0.0
    figures: dict[str, Any] | None = None


class LeftOut(Exception):
    """What a check needs is not here."""


Found = tuple[str, dict[str, Any]]  # what was seen, in words and in figures


def expect(holds: bool, otherwise: str) -> None:
    """Raises AssertionError with `otherwise` unless `holds`; unlike assert it also does under -O."""
    if not holds:
        raise AssertionError(otherwise)
