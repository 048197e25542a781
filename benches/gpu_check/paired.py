"""What must hold for processes that measure several rows: `ab` on equal and on slowed code, and mixed compile modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from benches.gpu_check import Check, Result, must_run
from benches.gpu_check.record import Compared, Record
from harness.units import percent

NOT_REACHED: Final = "not reached"
SMALLEST: Final = 1.05  # ratio of the row that waits a tenth of each iteration
LARGEST: Final = 1.2


def same(record: Record) -> Check:
    return _outcome(record, must_run.SAME, planted=False, wanted="unchanged", wrong=("regressed", "improved"))


def slower(record: Record) -> Check:
    """The planted slow-down of 10 % is detected, and its measured size is between SMALLEST and LARGEST."""
    found = _outcome(record, must_run.SLOWER, planted=True, wanted="regressed", wrong=("unchanged", "improved"))
    ratios = [one.ratio for one in record.compared if one.planted and one.ratio is not None]
    if found.result != "ok" or (ratios and all(SMALLEST <= ratio <= LARGEST for ratio in ratios)):
        return found
    told = f"{found.detail}; it must be between {percent(SMALLEST - 1, '+.0')} and {percent(LARGEST - 1, '+.0')}"
    return replace(found, result="FAILED", detail=told)


def modes(record: Record) -> Check:
    """Every row of the process that mixes compile modes is ok."""
    if not record.block:
        return Check(what=must_run.MODES, result="left out", detail=record.block_missing or NOT_REACHED)
    told = [f"{m.case.backend} {m.status}{f': {m.reason}' if m.reason else ''}" for m in record.block]
    statuses = {m.status for m in record.block}
    result: Result = "ok" if statuses == {"ok"} else "left out" if statuses <= {"ok", "skipped"} else "FAILED"
    return Check(what=must_run.MODES, result=result, detail="; ".join(told))


LAWS: Final[tuple[Callable[[Record], Check], ...]] = (modes, same, slower)


def _outcome(record: Record, name: str, planted: bool, wanted: str, wrong: tuple[str, ...]) -> Check:
    """The result is ok where every such row has the wanted outcome, and left out where an outcome is undecided."""
    found = [one for one in record.compared if one.planted == planted]
    if not found:
        return Check(what=name, result="left out", detail=record.compared_missing or NOT_REACHED)
    outcomes = {one.outcome for one in found}
    result: Result = "ok" if outcomes == {wanted} else "FAILED" if outcomes & {*wrong} else "left out"
    return Check(what=name, result=result, detail="; ".join(map(_told, found)))


def _told(one: Compared) -> str:
    ratio = "" if one.ratio is None else f" ({percent(one.ratio - 1)})"
    return f"{one.label}: {one.outcome}{ratio}{f', {one.reason}' if one.outcome == 'inconclusive' else ''}"
