"""`make gpu-check`: everything that needs a GPU, run once for real, recorded line by line, in at most 8 minutes.

It needs torch, numpy, scipy and a GPU, and no network. Other packages that are installed (timm, diffusers,
onnxruntime-gpu, TensorRT, nvidia-ml-py) are checked too. Each check has one of these results:

    ok         it ran on this GPU and gave the expected result
    FAILED     it ran and gave another result, or it raised, hung or ended its process, or a package is installed and
               cannot be imported
    left out   a package, the driver's NVML, a reading or the time was missing; the reason is given

The verdict is a function of the record alone (`benches.gpu_check.verdict`). It determines the exit code:

    PASSED      0   every check of the must-run list is ok, and nothing failed
    FAILED      1   something failed
                2   no GPU answers, or the record cannot be read: there is no verdict
    INCOMPLETE  3   nothing failed, but something of the must-run list was left out or not reached

`--verify FILE` derives the table, the verdict and the exit code from a record, on any machine.

No GPU has run this check yet. Its thresholds come from reasoning and were tried only on synthetic records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from harness.types import Protocol

BUDGET_S: Final = 455.0  # the last row is stopped here
LAST_S: Final = 470.0  # the check ends here even if a process hangs, and keeps what it has measured
ROW_TIMEOUT_S: Final = 120.0  # for one row: a quarter of the whole time
LEAST_S: Final = 15.0  # no row except a control is started with less time than this
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
    """One line of the table. `figures` are only written to the record."""

    what: str
    result: Result
    detail: str
    seconds: float = 0.0
    figures: dict[str, Any] | None = None


class LeftOut(Exception):
    """A check cannot run because something that it needs is missing; `str()` is the reason."""


Found = tuple[str, dict[str, Any]]  # what a check measured, as a sentence and as figures


def expect(holds: bool, otherwise: str) -> None:
    """Raises AssertionError with `otherwise` unless `holds`. Unlike assert, it also does so under -O."""
    if not holds:
        raise AssertionError(otherwise)
