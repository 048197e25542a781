"""Negative controls: rows that must fail, each in the expected way. Without them, a check that cannot fail would go
unnoticed.

out of memory   a network whose activation does not fit, because another process holds the GPU's memory: status `oom`
the row after   the next row, after that memory is free again: ok
.item()         a network that reads a value back: CUDA cannot capture it, so `cuda_graphs` must not be ok
partial         a network with an operator that inductor leaves out of CUDA graphs: `torch_compile_reduce_overhead`
                cannot capture it as a whole, and must not be ok
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benches.gpu_check import Check, must_run
from benches.gpu_check.record import Record, Row
from harness.backends import is_capture
from harness.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The statuses with which a control may end, and what its reason must be (None: any reason)."""

    statuses: tuple[str, ...]
    reason: Callable[[Reason], bool] | None = None

    def holds(self, row: Row) -> bool:
        status, reason = row.measurement.status, row.measurement.reason
        return status in self.statuses and (self.reason is None or (reason is not None and self.reason(reason)))


EXPECTED: Final = {
    **{name: Expected(statuses=("oom",)) for name in must_run.OUT_OF_MEMORY.values()},
    must_run.AFTER: Expected(statuses=("ok",)),
    must_run.ITEM: Expected(statuses=("failed", "invalid"), reason=is_capture),
    must_run.PARTIAL: Expected(statuses=("failed", "invalid"), reason=is_capture),
}


def of(name: str) -> Callable[[Record], Check]:
    """The law of one control."""

    def control(record: Record) -> Check:
        row, expected = record.rows.get(name), EXPECTED[name]
        if row is None:
            return Check(what=name, result="left out", detail="not reached")
        found = row.measurement
        told = found.status if found.reason is None else f"{found.status}: {found.reason}"
        if expected.holds(row):
            return Check(what=name, result="ok", detail=told, seconds=row.seconds)
        if found.status == "skipped" or row.out_of_time:
            return Check(what=name, result="left out", detail=told, seconds=row.seconds)
        wanted = " or ".join(expected.statuses)
        return Check(what=name, result="FAILED", detail=f"{told}; it must be {wanted}", seconds=row.seconds)

    return control


LAWS: Final[tuple[Callable[[Record], Check], ...]] = tuple(of(name) for name in EXPECTED)
