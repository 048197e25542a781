"""The objections to a run as a baseline, which must be complete and finished. Pure: a run in, objections out."""

from __future__ import annotations

from baselines.stored.controls import tripped
from baselines.stored.measured import unchecked
from baselines.stored.rows import NOT_RUN, Row, bad_values, rows_of, under_ids_of
from harness.types import Run

SHOWN = 5


def objections(run: Run, newest: Run | None, *, force: bool) -> list[str]:
    """The objections to storing `run`, one line each; `newest` is the newest stored session."""
    rows = rows_of(run)
    found = [*_incomplete(run, rows), *_values(run, rows)]
    if not any(row.ok for row in rows.values()):
        found.insert(0, "no row is ok, so there is nothing to compare with")
    if not force:
        found += _not_ok(rows) + _unchecked(rows) + _removed(rows, newest) + _contended(run)
    return found


def _incomplete(run: Run, rows: dict[str, Row]) -> list[str]:
    found = list(run.problems)
    if run.finished is None:
        found.append("the run is not finished (resume it first)")
    found += _shown("not measured", [row.case.id for row in rows.values() if row.status == NOT_RUN])
    planned = run.protocol.replicates
    short = [f"{i} ({len(r.processes)} of {planned})" for i, r in rows.items() if r.ok and len(r.processes) < planned]
    return found + _shown("fewer processes than the protocol requires", short)


def _values(run: Run, rows: dict[str, Row]) -> list[str]:
    found = []
    for case_id, row in rows.items():
        if row.ok and not row.metrics():
            found.append(f"{case_id}: ok, but without any value")
        for name in row.metrics():
            if name not in run.metrics:
                found.append(f"{case_id}: {name} is not described in the run's metrics")
                continue
            wrong = bad_values(run.metrics[name], row.groups(name))
            if wrong:
                found.append(f"{case_id}: {wrong}")
    return found


def _not_ok(rows: dict[str, Row]) -> list[str]:
    """Rows that are not ok. A skipped row is accepted, because its reason is a property of the machine."""
    broken = [f"{i} ({r.status}: {r.reason})" for i, r in rows.items() if r.status not in {"ok", "skipped", NOT_RUN}]
    return _shown("not ok (--force accepts them)", broken)


def _unchecked(rows: dict[str, Row]) -> list[str]:
    """Rows whose output was not compared with an fp32 reference, and may be wrong."""
    told = [case_id for case_id, row in rows.items() if row.ok and any(map(unchecked, row.processes))]
    return _shown("not compared with fp32 eager (--force accepts it)", told)


def _contended(run: Run) -> list[str]:
    """The reasons why the speed of the run is no baseline: contention, or a control that moved."""
    return [f"{reason} (--force accepts it)" for reason in tripped(run)]


def _removed(rows: dict[str, Row], newest: Run | None) -> list[str]:
    """Rows and metrics that would no longer be compared, for example after a run with --only or without quality."""
    before = under_ids_of(rows, rows_of(newest)) if newest else {}
    gone = [i for i, row in before.items() if row.ok and (i not in rows or not rows[i].ok)]
    kept = [(i, row, rows[i]) for i, row in before.items() if i not in gone and row.ok]
    dropped = [
        f"{name} of {case_id}"
        for case_id, then, now in kept
        for name in then.metrics()
        if name not in now.metrics() and not now.identical(name) and _compared(newest, name)
    ]
    return _shown("measured in the newest baseline and not here (--force accepts it)", [*gone, *dropped])


def _compared(run: Run | None, name: str) -> bool:
    """Whether the run describes the metric as one that is compared."""
    return run is not None and name in run.metrics and run.metrics[name].kind != "advisory"


def _shown(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what}: {', '.join(names[:SHOWN])}{more}"]
