"""Which attempt of a measurement counts. A block that met a busy machine is measured again, and nothing is thrown away.

The choice is by what the kernel and the driver counted during the block (`harness.contention`), never by its time: the
first quiet attempt counts, and where none was quiet the first one, with its warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.types import Measurement

Key = tuple[str, int]


def contended(measurement: Measurement) -> str | None:
    """Why the machine was not quiet during a measurement, by the criteria of the measuring side; None where it was."""
    return next((w for w in measurement.warnings if w.startswith("contended")), None)


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
    """The first attempt that ended badly counts at once (a failure is no noise), else the first quiet one."""
    broken = next((m for m in attempts if m.status != "ok"), None)
    quiet = next((m for m in attempts if contended(m) is None), None)
    return broken or quiet or attempts[0]


def again(
    counted: Sequence[Measurement], superseded: Sequence[Measurement], limit: int
) -> list[tuple[Measurement, int]]:
    """(measurement, number of its next attempt) of every ok one that still stands contended, up to `limit` attempts."""
    tries: dict[Key, int] = {}
    for measurement in (*counted, *superseded):
        key = (measurement.case.id, measurement.replicate)
        tries[key] = max(tries.get(key, 0), measurement.attempt)
    open_ = [m for m in counted if m.status == "ok" and contended(m)]
    return [(m, n + 1) for m in open_ if (n := tries[(m.case.id, m.replicate)]) < limit]
