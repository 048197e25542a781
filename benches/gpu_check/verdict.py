"""The verdict of a GPU check: a pure function of its record, the same on any machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from benches.gpu_check import Check, Result, controls, energy, laws, must_run, paired
from benches.gpu_check.record import Record, Row
from harness.reasons import Reason

Word = Literal["PASSED", "FAILED", "INCOMPLETE"]
CODES: Final[dict[Word, int]] = {"PASSED": 0, "FAILED": 1, "INCOMPLETE": 3}
NO_GPU: Final = 2
NOT_REACHED: Final = "not reached"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`missing` gives the reason for each check of the must-run list that is neither ok nor failed. `found` is the
    table."""

    word: Word
    found: tuple[Check, ...]
    missing: tuple[str, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Name and finding of each check that failed."""
        return tuple(f"{check.what}: {check.detail}" for check in self.found if check.result == "FAILED")

    @property
    def code(self) -> int:
        """The exit code."""
        return CODES[self.word]

    @property
    def line(self) -> str:
        """ "PASSED: 31 ok, 0 failed, 4 left out"."""
        count = {result: sum(c.result == result for c in self.found) for result in ("ok", "FAILED", "left out")}
        return f"{self.word}: {count['ok']} ok, {count['FAILED']} failed, {count['left out']} left out"


def decide(record: Record) -> Verdict:
    """FAILED if anything failed; else PASSED if everything on the must-run list is ok and the check was completed; else
    INCOMPLETE."""
    found = tuple(_found(record))
    by_name = {check.what: check for check in found}
    missing = []
    for name in must_run.names(record.capability):
        check = by_name.get(name)
        if check is None:
            missing.append(f"{name}: {NOT_REACHED}")
        elif check.result == "left out":
            missing.append(f"{name}: {check.detail}")
    if record.end is None:
        missing.append("the end: the check was killed")
    elif record.end.get("reason"):
        missing.append(f"the end: {record.end['reason']}")
    failed = any(check.result == "FAILED" for check in found)
    word: Word = "FAILED" if failed else "INCOMPLETE" if missing else "PASSED"
    return Verdict(word=word, found=found, missing=tuple(missing))


def _found(record: Record) -> Iterator[Check]:
    """Every line of the table, in order."""
    yield from record.checks.values()
    yield from (of_row(row) for row in record.rows.values() if row.name not in controls.EXPECTED)
    for law in (*laws.LAWS, *energy.LAWS, *controls.LAWS, *paired.LAWS):
        yield law(record)


def of_row(row: Row) -> Check:
    """The row's line. A row that ran out of time (`Row.out_of_time`) is left out, because that is no fault of its
    backend. A package that is installed and cannot be imported fails the row."""
    measured, samples = row.measurement, row.measurement.samples
    what = row.name
    if row.out_of_time:
        reason = f"the row ran out of time after {row.allowed_s:.0f} s, in the phase {row.phase or 'start'!r}"
        return Check(what=what, result="left out", detail=reason, seconds=row.seconds)
    if measured.status == "skipped":
        result: Result = "FAILED" if _is_broken(measured.reason) else "left out"
        return Check(what=what, result=result, detail=str(measured.reason), seconds=row.seconds)
    if measured.status != "ok":
        return Check(what=what, result="FAILED", detail=f"{measured.status}: {measured.reason}", seconds=row.seconds)
    if not samples.get("latency_s"):
        return Check(what=what, result="FAILED", detail="the row is ok but has no latency", seconds=row.seconds)
    words = [measured.case.precision, f"{statistics.median(samples['latency_s']) * 1e3:.2f} ms"]
    if samples.get("device_time_s"):
        words.append(f"{statistics.median(samples['device_time_s']) * 1e3:.2f} ms by events")
    if samples.get("energy_per_image_j"):
        words.append(f"{samples['energy_per_image_j'][0]:.3g} J an image")
    if samples.get("cosine_similarity"):
        words.append(f"cosine {statistics.fmean(samples['cosine_similarity']):.4f}")
    return Check(what=what, result="ok", detail=", ".join([*words, *map(str, measured.warnings)]), seconds=row.seconds)


def _is_broken(reason: Reason | None) -> bool:
    return reason is not None and reason.kind == "package_broken"
