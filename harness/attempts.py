"""Attempts: a process that was contended, or that failed, is measured again, and every attempt is stored.

What the kernel and the driver counted during the process decides between ok attempts (`harness.measuring.contention`),
never its time. The first attempt without contention counts. If all were contended, the first one does, with a warning.

A process of a round is not measured again, since a further round does the same. The latency of a row with rounds comes
from its rounds, without the contended ones if enough others remain (`timed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.measuring.contention import is_contention
from harness.reasons import Reason
from harness.types import Measurement, Run

Key = tuple[str, int]
UNCONTENDED = 2  # rounds of a row: if it has as many, its contended rounds do not count
RETRIED = frozenset({"failed", "timeout", "oom", "invalid"})  # a skipped row would be skipped again


def contended(measurement: Measurement) -> Reason | None:
    """The contention warning of a measurement; None if the machine was not contended."""
    return next(filter(is_contention, measurement.warnings), None)


def timed(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Those of the ok processes of one row whose latency counts: the ones of its rounds if it has any, and of those the
    ones that were not contended if there are UNCONTENDED of them. Otherwise all."""
    good = tuple(m for m in measurements if m.status == "ok")
    rounds = tuple(m for m in good if m.round is not None)
    quiet = tuple(m for m in rounds if contended(m) is None)
    return quiet if len(quiet) >= UNCONTENDED else rounds or good


def of_environment(measurement: Measurement) -> bool:
    """Whether a measurement failed because of its environment, so that it is not a result of its row."""
    return measurement.cause is not None and measurement.cause.of_environment


def to_retry(measurement: Measurement, retry_failed: bool = False) -> bool:
    """Whether a resumed run repeats it: a failure of the environment, or with `retry_failed` any failure."""
    return of_environment(measurement) or (retry_failed and measurement.status in RETRIED)


def split(measurements: Iterable[Measurement]) -> tuple[tuple[Measurement, ...], tuple[Measurement, ...]]:
    """(those that count, in the order of their first attempts; the superseded ones, in order)."""
    by_key: dict[Key, list[Measurement]] = {}
    for measurement in measurements:
        by_key.setdefault((measurement.case.id, measurement.replicate), []).append(measurement)
    counted = tuple(_counts(sorted(attempts, key=lambda m: m.attempt)) for attempts in by_key.values())
    chosen = set(map(id, counted))
    rest = tuple(m for attempts in by_key.values() for m in attempts if id(m) not in chosen)
    return counted, rest


def _counts(attempts: Sequence[Measurement]) -> Measurement:
    """The attempt that counts: the last one if it failed (a failure is not noise), else the first ok one without
    contention. A failure before the last attempt was retried on request; a failure of the environment does not replace
    an earlier ok attempt."""
    good = [m for m in attempts if m.status == "ok"]
    last = attempts[-1]
    if last.status != "ok" and not (good and of_environment(last)):
        return last
    return next((m for m in good if contended(m) is None), good[0])


def again(
    counted: Sequence[Measurement], superseded: Sequence[Measurement], limit: int
) -> list[tuple[Measurement, int]]:
    """(measurement, number of its next attempt) for every ok measurement that is still contended, with at most `limit`
    further attempts after the first ok one. Processes of rounds are not among them."""
    tried = (*counted, *superseded)
    open_ = [m for m in counted if m.status == "ok" and m.round is None and contended(m)]
    return [(m, next_number(m.case.id, m.replicate, tried)) for m in open_ if _tries_after_ok(m, tried) < limit]


def _tries_after_ok(measurement: Measurement, tried: Sequence[Measurement]) -> int:
    """How often a process was measured again after its first ok attempt."""
    same = [m for m in tried if (m.case.id, m.replicate) == (measurement.case.id, measurement.replicate)]
    first = min(m.attempt for m in same if m.status == "ok")
    return sum(m.attempt > first for m in same)


def next_number(case_id: str, replicate: int, tried: Iterable[Measurement]) -> int:
    """The number of the next attempt of one process of a case; 0 if it has none yet."""
    return max((m.attempt for m in tried if (m.case.id, m.replicate) == (case_id, replicate)), default=-1) + 1


def next_attempt(run: Run, case_id: str, replicate: int) -> int:
    """The number of the next attempt of one process of a case in a run."""
    return next_number(case_id, replicate, (*run.measurements, *run.superseded))
