"""The verdicts of the preflight on health, work, outputs, memory and counts, by the rules of stored baselines.

The base arm takes the place of a stored session, and the head arm that of the run. Times are decided by the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from baselines.stored.health import ROW_METRIC, row_status, row_verdict
from baselines.stored.measured import unknown_name
from baselines.stored.multiplicity import Decided, corrected
from baselines.stored.row_verdicts import Compared, RunRows, row_verdicts
from baselines.stored.rows import NOT_RUN, Row, row_from
from baselines.verdict import Verdict
from baselines.wording import ReasonKind, because
from harness.paired.paired_run import PairedRow, PairedRun
from harness.reasons import Reason
from harness.types import Measurement, Metric, Run

Found = Sequence[tuple[str, str, Measurement]]

PROCESSES: Final = 3  # the rule of near-exact metrics uses the largest value of three processes
QUALITY_FACTS: Final = {
    "quality",
    "quality_conditions",
}  # of the quality probe: conditions, or why there is no quality


def verdicts(run: PairedRun, found: Found) -> list[Verdict]:
    """The verdicts that need no pairs, for every row, with the row's id and label."""
    by_row: dict[str, list[Verdict]] = {row.id: [] for row in run.rows}
    arms = {row.id: (_row(row, found, "base"), _row(row, found, "head")) for row in run.rows}
    decided: list[tuple[PairedRow, Decided]] = []
    for row in run.rows:
        there, here = arms[row.id]
        if (verdict := _without_base(there, here)) is not None:
            by_row[row.id] = [verdict]
            continue
        compared = Compared(candidate=_run_rows(run, row, here), sessions=(_run_rows(run, row, there),), scope="all")
        decided += [(row, each) for each in row_verdicts(compared, there, here) if each[0].kind != "noisy"]
    # Alarms are corrected over all rows of the run, like those of stored sessions.
    for (row, _), found_verdict in zip(decided, corrected([each for _, each in decided]), strict=True):
        there, here = arms[row.id]
        by_row[row.id].append(_few_processes(_one_window(found_verdict, there, here), there, here))
    for row in run.rows:
        if by_row[row.id] and by_row[row.id][0].metric != ROW_METRIC:
            by_row[row.id] += _unknown_quality(*arms[row.id])
    return [verdict for row in run.rows for verdict in _named(row, by_row[row.id])]


def _without_base(there: Row, here: Row) -> Verdict | None:
    """The verdict on a row without a result of the base; None if the base has one.

    A row that failed in both arms does not pass, because its speed is unknown. A row that is skipped in both passes,
    because its requirements are missing on this machine.
    """
    if NOT_RUN in (there.status, here.status):
        return row_verdict(here, "inconclusive", because(ReasonKind.PREFLIGHT_CUT_OFF))
    if there.ok:
        return None
    base, head = row_status(there), row_status(here)
    if here.ok and (there.status == "skipped" or unknown_name(there.reason)):
        return row_verdict(here, "new", because(ReasonKind.ONLY_IN_HEAD, base=base), gating=False)
    if here.ok and there.processes:
        return row_verdict(here, "not_comparable", because(ReasonKind.BASE_BROKEN, base=base))
    if here.ok:
        return row_verdict(here, "improved", because(ReasonKind.HEALTHY_IN_HEAD, base=base), gating=False)
    if there.status == here.status == "skipped":
        return row_verdict(here, "unchanged", because(ReasonKind.SKIPPED_IN_BOTH, head=head), gating=False)
    if there.status != "skipped":
        return row_verdict(here, "not_comparable", because(ReasonKind.BROKEN_IN_BOTH, base=base, head=head))
    return None


def _one_window(verdict: Verdict, there: Row, here: Row) -> Verdict:
    """Makes a verdict on energy advisory, because each arm has one measurement window and the noise is unknown. If a
    window was contended, the verdict is inconclusive."""
    if verdict.kind != "energy":
        return verdict
    if (contention := there.contention or here.contention) is not None:
        reason = because(ReasonKind.CONTENDED_ROW, contention=contention, would_read=_would_read(verdict))
        return replace(verdict, outcome="inconclusive", reason=reason, gating=False)
    return replace(verdict, reason=because(ReasonKind.ONE_WINDOW, reason=verdict.reason), gating=False)


def _would_read(verdict: Verdict) -> Reason:
    return because(ReasonKind.WOULD_READ, outcome=verdict.outcome, reason=verdict.reason)


def _few_processes(verdict: Verdict, there: Row, here: Row) -> Verdict:
    """Makes a change of a near-exact metric inconclusive if an arm has fewer than PROCESSES processes."""
    if verdict.kind != "near_exact" or verdict.outcome not in {"regressed", "improved"}:
        return verdict
    fewest = min(len(row.groups(verdict.metric)) for row in (there, here))
    if fewest >= PROCESSES:
        return verdict
    reason = because(ReasonKind.FEW_PROCESSES, processes=fewest, needed=PROCESSES, would_read=_would_read(verdict))
    return replace(verdict, outcome="inconclusive", reason=reason)


def other_outputs(run: PairedRun, found: Found) -> set[str]:
    """Rows that are ok in both arms and whose outputs are not bit-identical, so that their quality is measured."""
    rows = {row.id: [_row(row, found, arm) for arm in ("base", "head")] for row in run.rows}
    return {name for name, (there, here) in rows.items() if there.ok and here.ok and _differ(there, here)}


def outputs(run: PairedRun, found: Found) -> Reason:
    """The number of rows with bit-identical outputs in both arms, and of rows with a measured quality, as a reason."""
    differ, same = other_outputs(run, found), usable(run, found)
    rows = {row.id: [_row(row, found, arm) for arm in ("base", "head")] for row in run.rows}
    measured = sum(all(_has_quality(row) for row in both) for both in rows.values())
    return because(ReasonKind.OUTPUTS, same=len(same - differ), rows=len(run.rows), measured=measured)


def _has_quality(row: Row) -> bool:
    return any("quality_conditions" in m.facts for m in row.processes)


def _differ(there: Row, here: Row) -> bool:
    mine, theirs = here.fact("output_hash"), there.fact("output_hash")
    return mine is None or mine != theirs


def _unknown_quality(there: Row, here: Row) -> list[Verdict]:
    """The verdict on outputs that differ and whose quality was not measured; empty otherwise."""
    if not (there.ok and here.ok and _differ(there, here)):
        return []
    if all(any(QUALITY_FACTS & m.facts.keys() for m in row.processes) for row in (there, here)):
        return []
    whole = row_verdict(here, "inconclusive", because(ReasonKind.QUALITY_NOT_MEASURED))
    return [replace(whole, metric="quality", kind="quality_set")]


def usable(run: PairedRun, found: Found) -> set[str]:
    """Rows that may be timed: ok in both arms, with the same work."""
    settled = {v.case_id for v in verdicts(run, found) if v.metric == "row"}
    return {row.id for row in run.rows if row.id not in settled}


def undecided_memory(run: PairedRun, found: Found) -> set[str]:
    """Rows whose near-exact metrics differ after one process per arm, so that the rule needs three."""
    return {v.case_id for v in verdicts(run, found) if v.kind == "near_exact" and v.outcome not in {"unchanged"}}


def _row(row: PairedRow, found: Found, arm: str) -> Row:
    case = row.head if arm == "head" else row.base
    return row_from(case, [m for name, its_arm, m in found if name == row.id and its_arm == arm])


def _run_rows(run: PairedRun, row: PairedRow, one: Row) -> RunRows:
    metrics: dict[str, Metric] = run.metrics
    shell = Run(
        id=run.id,
        suite=run.suite,
        protocol=run.protocol,
        environment=run.environment,
        metrics=metrics,
        cases=(one.case,),
        measurements=one.processes,
    )
    # The arms of a row may be different cases, so each arm is found by the ids of both.
    return RunRows(run=shell, rows={row.base.id: one, row.head.id: one})


def _named(row: PairedRow, found: Iterable[Verdict]) -> list[Verdict]:
    return [replace(v, case_id=row.id, label=row.label) for v in found]
