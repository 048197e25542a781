"""The comparison of a run with stored sessions: a verdict for each row and metric. Missing rows do not pass.

comparison = compare_stored(run, root)     # sessions of this machine, otherwise the shipped reference
sys.exit(exit_code(comparison))
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from baselines.stored import store
from baselines.stored.controls import control, control_moved, tripped
from baselines.stored.fingerprint import (
    differences,
    machine_key,
    protocol_differences,
    soft_differences,
    software_differences,
)
from baselines.stored.health import appeared, row_verdict
from baselines.stored.multiplicity import Decided, corrected
from baselines.stored.relative_verdicts import relative_verdicts
from baselines.stored.row_verdicts import TIMED, Compared, RunRows, row_verdicts
from baselines.stored.rows import NOT_RUN, Row, rows_of, under_ids_of
from baselines.stored.store import BaselineRefused, Session
from baselines.verdict import Comparison, Scope, Verdict
from baselines.wording import ReasonKind, because
from harness.reasons import Reason, stated
from harness.types import Run

MAX_AGE_DAYS: Final = 180.0
DECIDED: Final = frozenset({"regressed", "improved", "unchanged", "inconclusive"})


def compare_stored(
    run: Run,
    root: Path,
    *,
    planned: Collection[str] | None = None,
    max_age_days: float = MAX_AGE_DAYS,
    only: Collection[str] | None = None,
    allow_new: bool = False,
) -> Comparison:
    """Compares `run` with the sessions of this machine, or with the shipped reference if no session is comparable.

    Sessions that were saved more than `max_age_days` before the run are stale and left out; if all are stale, nothing
    is compared. `only` restricts the sessions to these run ids, as a replay needs it. With `allow_new`, rows that are
    not in the sessions pass.
    """
    try:
        own, reference = store.find(run, root), store.reference(root, run.suite)
        own = [s for s in own if only is None or s.run.id in only]
        others = [] if own or reference else store.elsewhere(run, root)
    except BaselineRefused as refused:
        return _refused(run, [stated(line) for line in refused.reasons])
    considered = tuple(s.run.id for s in own)
    fresh = [s for s in own if not _stale(s, run, max_age_days)]
    if own and not fresh:
        reason = because(ReasonKind.STALE_BASELINE, saved=own[-1].saved[:10], days=max_age_days)
        stale = _refused(run, [reason], own[-1])
        return replace(stale, max_age_days=max_age_days, considered=considered)
    left_out = len(own) - len(fresh)
    notes = [because(ReasonKind.STALE_SESSIONS, sessions=left_out, days=max_age_days)] if left_out else []
    found = with_notes(_compare_own(run, fresh, reference, others, planned), notes)
    return replace(found, max_age_days=max_age_days, considered=considered, allow_new=allow_new)


def with_notes(comparison: Comparison, notes: Sequence[Reason]) -> Comparison:
    """The comparison with additional notes at the end."""
    return replace(comparison, notes=(*comparison.notes, *notes)) if notes else comparison


def _compare_own(
    run: Run, own: list[Session], reference: Session | None, others: list[Session], planned: Collection[str] | None
) -> Comparison:
    comparison = compare(run, own, planned=planned)
    if not comparison.refused or reference is None:
        return comparison if own or not others else _unlike(run, others[-1])
    if not _hard(run, reference.run):
        return compare(run, [reference], planned=planned)
    note = [because(ReasonKind.OWN_BASELINE_UNLIKE, difference=each) for each in comparison.differences]
    result = compare(run, [reference], scope="machine-independent", planned=planned)
    return replace(result, notes=(*note, *result.notes))


def _stale(session: Session, run: Run, max_age_days: float) -> bool:
    """Whether the session is older than `max_age_days`, or its time is unreadable."""
    saved, created = _time(session.saved), _time(run.created) or datetime.now(UTC)
    return saved is None or (created - saved) / timedelta(days=1) > max_age_days


def _time(stamp: str) -> datetime | None:
    """The time of an ISO 8601 stamp, in UTC if it has no zone; None if it is not one."""
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def compare(
    run: Run, sessions: Sequence[Session], *, scope: Scope = "all", planned: Collection[str] | None = None
) -> Comparison:
    """Compares `run` with stored sessions of its suite. The newest session determines the rows that are required.

    `planned` are the requested case ids if they are a part of the suite (--only); a note counts the other rows of the
    baseline. Without `planned`, every row of the baseline that the run does not have is `missing`.
    """
    sessions = sorted((s for s in sessions if s.run.suite == run.suite), key=lambda s: (s.saved, s.run.created))
    if not sessions:
        return replace(_refused(run, [_no_baseline(run)]), absent=True)
    newest = sessions[-1]
    unlike = _hard(run, newest.run)
    usable = [s for s in sessions if not _hard(run, s.run)] if scope == "all" else [newest]
    if not usable:
        return replace(_refused(run, unlike, newest), differences=tuple(unlike))
    usable, notes = _without_itself(run, usable)
    compared = _compared(run, usable, scope)
    decided, absent = _decide_rows(compared, planned)
    decided += [(verdict, None) for verdict in _short(run, compared, {v.case_id for v, _ in decided})]
    comparable = [s.run for s in usable] if scope == "all" else []
    timed = any(verdict.kind in TIMED for verdict, _ in decided)
    contended = tuple(tripped(run, comparable)) if timed else ()
    relative = relative_verdicts(compared)
    moved = [told for told in ([control_moved(run)] if relative else []) if told is not None]
    return Comparison(
        run_id=run.id,
        suite=run.suite,
        baseline=usable[-1].run.id,
        scope=scope,
        verdicts=(*disarmed(corrected(decided), contended), *disarmed(relative, moved)),
        differences=tuple(unlike) if scope != "all" else (),
        sessions=len(usable),
        notes=(*notes, *absent, *_notes(run, usable[-1].run, compared)),
        contended=contended,
        against=tuple(s.run.id for s in usable),
    )


def disarmed(verdicts: Sequence[Verdict], contended: Sequence[Reason]) -> list[Verdict]:
    """The verdicts; those on times and energy are inconclusive if the run is contended."""
    if not contended:
        return list(verdicts)
    return [_undecided(v) if v.kind in TIMED and v.outcome in DECIDED else v for v in verdicts]


def _undecided(verdict: Verdict) -> Verdict:
    would_read = because(ReasonKind.WOULD_READ, outcome=verdict.outcome, reason=verdict.reason)
    return replace(verdict, outcome="inconclusive", reason=because(ReasonKind.CONTENDED_RUN, would_read=would_read))


def _compared(run: Run, sessions: list[Session], scope: Scope) -> Compared:
    soft = [soft_differences(run.environment, s.run.environment) for s in sessions]
    here = rows_of(run)
    return Compared(
        candidate=RunRows(run=run, rows=here),
        sessions=tuple(RunRows(run=s.run, rows=under_ids_of(here, rows_of(s.run))) for s in sessions),
        scope=scope,
        other_host=() if scope != "all" or not all(soft) else tuple(soft[-1]),
    )


def _decide_rows(compared: Compared, planned: Collection[str] | None) -> tuple[list[Decided], list[Reason]]:
    """Verdicts of all rows, those of the baseline first, and a note on rows that were not requested."""
    decided: list[Decided] = []
    unasked = 0
    for case_id, there in compared.newest.rows.items():
        here = compared.candidate.rows.get(case_id)
        if planned is not None and case_id not in planned and (here is None or here.status == NOT_RUN):
            unasked += 1
            continue
        decided += row_verdicts(compared, there, here or Row(case=there.case, status=NOT_RUN, reason=None))
    new = [row for case_id, row in compared.candidate.rows.items() if case_id not in compared.newest.rows]
    decided += [(appeared(row, compared.scope), None) for row in new]
    return decided, [because(ReasonKind.ROWS_NOT_ASKED_FOR, rows=unasked)] if unasked else []


def _short(run: Run, compared: Compared, decided: Collection[str]) -> list[Verdict]:
    """A verdict on each row with fewer processes than planned, as in an interrupted or damaged run. A missing process
    may have failed."""
    planned, problems = run.protocol.replicates, list(run.problems)
    return [
        row_verdict(
            row,
            "missing",
            because(ReasonKind.PROCESSES_MISSING, measured=len(row.processes), planned=planned, problems=problems),
        )
        for case_id, row in compared.candidate.rows.items()
        if case_id in decided and row.ok and len(row.processes) < planned
    ]


def _hard(run: Run, other: Run) -> list[Reason]:
    return differences(run.environment, other.environment) + protocol_differences(run.protocol, other.protocol)


def _without_itself(run: Run, sessions: list[Session]) -> tuple[list[Session], list[Reason]]:
    others = [s for s in sessions if s.run.id != run.id]
    if len(others) == len(sessions):
        return sessions, []
    if others:
        return others, [because(ReasonKind.LEFT_OUT_ITSELF)]
    return sessions, [because(ReasonKind.COMPARED_WITH_ITSELF)]


def _notes(run: Run, baseline: Run, compared: Compared) -> list[Reason]:
    found = []
    if compared.other_host:
        found.append(because(ReasonKind.SPEED_ADVISORY, differences=list(compared.other_host)))
    if renamed := len(compared.newest.rows.keys() - rows_of(baseline).keys()):
        found.append(because(ReasonKind.WEIGHTS_MOVED, rows=renamed))
    found += software_differences(run.environment, baseline.environment)
    if (told := control(run)) is not None:
        found.append(because(ReasonKind.CONTROL_NOTE, control=told))
    return found


def _no_baseline(run: Run) -> Reason:
    return because(ReasonKind.NO_BASELINE, suite=run.suite, machine=machine_key(run.environment))


def _refused(run: Run, reasons: Sequence[Reason], newest: Session | None = None) -> Comparison:
    return Comparison(
        run_id=run.id,
        suite=run.suite,
        baseline=newest.run.id if newest else "",
        scope="all",
        refused=tuple(reasons),
    )


def _unlike(run: Run, other: Session) -> Comparison:
    """The refusal if only another machine has a baseline, with the differences."""
    unlike = _hard(run, other.run)
    return replace(_refused(run, [_no_baseline(run), *unlike], other), differences=tuple(unlike))
