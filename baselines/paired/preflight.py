"""What the preflight says: health, work, outputs, memory and counts of both arms, by the rules of stored baselines.

The base arm stands for the stored session and the head arm for this run; times are left to the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from baselines.stored.health import ROW_METRIC, row_verdict
from baselines.stored.multiplicity import Judged, settle
from baselines.stored.row_verdicts import Frame, Side, judge_row
from baselines.stored.rows import NOT_RUN, Row, row_from
from baselines.verdict import Verdict
from harness.paired.paired_run import PairedRow, PairedRun
from harness.types import Measurement, Metric, Run

Found = Sequence[tuple[str, str, Measurement]]

PROCESSES: Final = 3  # the near-exact rule takes the largest of three processes
JUDGED: Final = {"quality", "quality_conditions"}  # facts of the quality probe: judged, or why there is no judge


def judged(run: PairedRun, found: Found) -> list[Verdict]:
    """Verdicts of every row that need no pairs, under the row's own id and label."""
    by_row: dict[str, list[Verdict]] = {row.id: [] for row in run.rows}
    sides = {row.id: (_row(row, found, "base"), _row(row, found, "head")) for row in run.rows}
    asked: list[tuple[PairedRow, Judged]] = []
    for row in run.rows:
        there, here = sides[row.id]
        if (told := _without_base(there, here)) is not None:
            by_row[row.id] = [told]
            continue
        frame = Frame(here=_side(run, row, here), stored=(_side(run, row, there),), scope="all")
        asked += [(row, judged) for judged in judge_row(frame, there, here) if judged[0].kind != "noisy"]
    # Alarms by chance are held against all rows of the run, as those of stored sessions are.
    for (row, _), verdict in zip(asked, settle([judged for _, judged in asked]), strict=True):
        there, here = sides[row.id]
        by_row[row.id].append(_few_processes(_one_window(verdict, there, here), there, here))
    for row in run.rows:
        if by_row[row.id] and by_row[row.id][0].metric != ROW_METRIC:
            by_row[row.id] += _unjudged(*sides[row.id])
    return [verdict for row in run.rows for verdict in _named(row, by_row[row.id])]


def _without_base(there: Row, here: Row) -> Verdict | None:
    """The verdict on a row that the base does not have a measurement of to hold the head against; None where it has.

    A row that failed in both arms is no pass: nobody knows whether it is slower. One that is skipped in both is: what
    it needs is not on this machine, whichever code runs.
    """
    if NOT_RUN in (there.status, here.status):
        return row_verdict(here, "inconclusive", "budget: the run ended before both arms had measured this row once")
    if there.ok:
        return None
    base = f"{there.status}: {there.reason}"
    if here.ok and (there.status == "skipped" or (there.reason is not None and there.reason.kind == "unknown_name")):
        return row_verdict(here, "new", f"only the head has this row; base {base}", gating=False)
    if here.ok and there.processes:
        return row_verdict(here, "not_comparable", f"the base arm broke in one of its processes: {base}")
    if here.ok:
        return row_verdict(here, "improved", f"health: ok in the head; base {base}", gating=False)
    if there.status == here.status == "skipped":
        return row_verdict(here, "unchanged", f"skipped in both arms: {here.reason}", gating=False)
    if there.status != "skipped":
        return row_verdict(
            here, "not_comparable", f"broken in both arms: base {base}; head {here.status}: {here.reason}"
        )
    return None


def _one_window(verdict: Verdict, there: Row, here: Row) -> Verdict:
    """Energy decides nothing here: each arm has one window of it, so what two of them differ by is not known. Beside
    somebody else's work it says nothing at all, whichever arm that befell."""
    if verdict.kind != "energy":
        return verdict
    if (busy := there.contended or here.contended) is not None:
        told = f"{busy}; it would read: {verdict.outcome}"
        return replace(verdict, outcome="inconclusive", reason=told, gating=False)
    return replace(verdict, reason=f"{verdict.reason}; advisory: one window an arm", gating=False)


def _few_processes(verdict: Verdict, there: Row, here: Row) -> Verdict:
    """A near-exact figure that moved is judged by the largest of PROCESSES, and fewer of them decide nothing."""
    if verdict.kind != "near_exact" or verdict.outcome not in {"regressed", "improved"}:
        return verdict
    fewest = min(len(row.groups(verdict.metric)) for row in (there, here))
    if fewest >= PROCESSES:
        return verdict
    told = f"budget: {fewest} of {PROCESSES} processes an arm; it would read: {verdict.outcome}, {verdict.reason}"
    return replace(verdict, outcome="inconclusive", reason=told)


def other_outputs(run: PairedRun, found: Found) -> set[str]:
    """Rows that are ok in both arms and whose outputs are not bit for bit the same: their quality is to be judged."""
    rows = {row.id: [_row(row, found, arm) for arm in ("base", "head")] for row in run.rows}
    return {name for name, (there, here) in rows.items() if there.ok and here.ok and _differ(there, here)}


def outputs_in_words(run: PairedRun, found: Found) -> str:
    """In how many rows the timed batch gave the same outputs in both arms, and in how many the quality was judged."""
    differ, same = other_outputs(run, found), usable(run, found)
    rows = {row.id: [_row(row, found, arm) for arm in ("base", "head")] for row in run.rows}
    judged_rows = sum(all(_judged(row) for row in both) for both in rows.values())
    words = (
        f"outputs of the timed batch bit for bit the same in both arms: {len(same - differ)} of {len(run.rows)} rows"
    )
    return f"{words}; quality judged in both arms: {judged_rows} rows"


def _judged(row: Row) -> bool:
    return any("quality_conditions" in m.facts for m in row.processes)


def _differ(there: Row, here: Row) -> bool:
    mine, theirs = here.fact("output_hash"), there.fact("output_hash")
    return mine is None or mine != theirs


def _unjudged(there: Row, here: Row) -> list[Verdict]:
    """What is said of the quality of outputs that differ and that nobody judged."""
    if not (there.ok and here.ok and _differ(there, here)):
        return []
    judged_both = all(any(JUDGED & m.facts.keys() for m in row.processes) for row in (there, here))
    if judged_both:
        return []
    reason = "the outputs differ, and judging them did not end within the share of the budget that it may take"
    return [replace(row_verdict(here, "inconclusive", reason), metric="quality", kind="quality_set")]


def usable(run: PairedRun, found: Found) -> set[str]:
    """Rows that may be timed: ok in both arms, with the same work."""
    settled = {v.case_id for v in judged(run, found) if v.metric == "row"}
    return {row.id for row in run.rows if row.id not in settled}


def undecided_memory(run: PairedRun, found: Found) -> set[str]:
    """Rows whose near-exact metrics differ after one process an arm: the rule wants the largest of three."""
    return {v.case_id for v in judged(run, found) if v.kind == "near_exact" and v.outcome not in {"unchanged"}}


def _row(row: PairedRow, found: Found, arm: str) -> Row:
    case = row.head if arm == "head" else row.base
    return row_from(case, [m for name, side, m in found if name == row.id and side == arm])


def _side(run: PairedRun, row: PairedRow, one: Row) -> Side:
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
    # The two arms of a row may be two cases: each side answers to both ids.
    return Side(run=shell, rows={row.base.id: one, row.head.id: one})


def _named(row: PairedRow, verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [replace(v, case_id=row.id, label=row.label) for v in verdicts]
