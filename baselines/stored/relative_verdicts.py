"""The verdicts on the latency of each row relative to its group: the values of runs with rounds for
`baselines.stored.relative`, its results as verdicts, and the rows that are measured again.

Contention does not make these verdicts inconclusive, because all rows of a round have it in common.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from baselines.stored.health import work_difference
from baselines.stored.noisy import quantile
from baselines.stored.relative import (
    FEWEST_CONTRASTS,
    GUARANTEE,
    Member,
    Shift,
    alarms,
    contrasts,
    shifts,
)
from baselines.stored.row_verdicts import Compared, RunRows
from baselines.stored.rows import Row
from baselines.verdict import Outcome, Verdict
from baselines.wording import ReasonKind, because
from harness.ratios import Ratio, Ratios, ratios
from harness.types import Metric, Run

RELATIVE_LATENCY: Final = Metric(
    name="relative_latency",
    unit="1",
    label="Latency relative to its group",
    better="lower",
    kind="noisy",
    description="latency of a row divided by that of its group's reference, which took turns with it",
)
LATENCY: Final = "latency_s"
# A row is measured again at these probabilities, before any correction. One that became slower must not be overlooked.
SUSPECT_WORSE: Final = 0.1
SUSPECT_BETTER: Final = 0.001

Logs = Mapping[str, tuple[float, float]]  # case id -> (log of the relative latency, variance of the row's own part)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The members of a group with their values; the first one is the reference. `sessions` counts those that have all
    of them."""

    members: tuple[Member, ...]
    sessions: int


def relative_verdicts(compared: Compared) -> list[Verdict]:
    """A verdict on each row that took turns with its group, here or in the newest session. Empty for runs without
    rounds, and against another machine's reference run."""
    if compared.scope != "all":
        return []
    metric = compared.candidate.run.metrics.get(LATENCY)
    sessions = compared.sessions_for(metric) if metric is not None else compared.sessions
    here = ratios(compared.candidate.run)
    stored = [_renamed(ratios(session.run), session) for session in sessions]
    found = _groups(compared, here, sessions, stored)
    decided = _decided(compared, found)
    known = {verdict.case_id for verdict in decided}
    return decided + _undecided(compared, here, stored[-1], known)


def suspected(verdict: Verdict) -> bool:
    """Whether further rounds of this row are measured, after which it is decided again."""
    return verdict.metric == RELATIVE_LATENCY.name and bool(verdict.reason.data.get("suspect"))


def has_further_rounds(run: Run, row: Row) -> bool:
    """Whether a row of a finished run was measured in rounds that began after the run was finished."""
    finished = run.finished
    return finished is not None and any(m.round is not None and m.started > finished for m in row.processes)


def _decided(compared: Compared, groups: Sequence[_Group]) -> list[Verdict]:
    sizes = {m.case_id: group for group in groups for m in group.members}
    found = shifts([group.members for group in groups])
    tested = [s for s in found if s.members > 2 or s.case_id != _reference(sizes[s.case_id])]
    run = compared.candidate.run
    worse, better = alarms(tested, {i for i, row in compared.candidate.rows.items() if has_further_rounds(run, row)})
    gating = contrasts([group.members for group in groups]) >= FEWEST_CONTRASTS
    outcomes = {s.case_id: _outcome(s, worse, better) for s in tested}
    verdicts = []
    for shift in found:
        group = sizes[shift.case_id]
        outcome = outcomes.get(shift.case_id)
        if outcome is None:  # the reference of a group of two: which of both changed is unknown
            other = outcomes[group.members[1].case_id]
            outcome = "unchanged" if other == "unchanged" else "inconclusive"
        verdicts.append(_verdict(compared, shift, group, outcome, gating=gating))
    return verdicts


def _outcome(shift: Shift, worse: set[str], better: set[str]) -> Outcome:
    if shift.case_id in worse:
        return "regressed"
    if shift.case_id in better:
        return "improved"
    return "unchanged" if shift.excluded else "inconclusive"


def _verdict(compared: Compared, shift: Shift, group: _Group, outcome: Outcome, *, gating: bool) -> Verdict:
    """The value now is the one of the sessions, changed by the shift against the centre of the others: the latency
    relative to a reference that did not change."""
    member = next(m for m in group.members if m.case_id == shift.case_id)
    row = compared.candidate.rows[shift.case_id]
    alone = group.members[1 if member is group.members[0] else 0].case_id if shift.members == 2 else None
    reason = because(
        ReasonKind.RELATIVE_SHIFT,
        change=math.expm1(shift.shift),
        threshold=math.expm1(shift.threshold),
        detectable=math.expm1(shift.detectable),
        members=shift.members,
        other=None if alone is None else compared.candidate.rows[alone].case.label,
        sessions=group.sessions,
        needed=None if gating else FEWEST_CONTRASTS,
        excluded=None if outcome != "inconclusive" or shift.excluded else GUARANTEE,
        suspect=shift.p_worse <= SUSPECT_WORSE or shift.p_better <= SUSPECT_BETTER,
    )
    if compared.other_host:
        reason = because(ReasonKind.OTHER_HOST, differences=list(compared.other_host), reason=reason)
    baseline = math.exp(statistics.fmean(member.logs[:-1]))
    low, high = shift.interval
    return replace(
        _empty(row, outcome),
        reason=reason,
        baseline=baseline,
        candidate=baseline * math.exp(shift.shift),
        ratio=math.exp(shift.shift),
        low=math.exp(low),
        high=math.exp(high),
        minimum_detectable=math.expm1(shift.detectable),
        gating=gating and not compared.other_host,
    )


def _undecided(compared: Compared, here: Ratios, newest: Ratios, known: set[str]) -> list[Verdict]:
    """Verdicts on the rows that are ok in both and have a ratio in one of them only."""
    found = []
    for case_id, row in compared.candidate.rows.items():
        there = compared.newest.rows.get(case_id)
        if case_id in known or there is None or not (row.ok and there.ok) or work_difference(there, row):
            continue
        if case_id in newest.of and case_id not in here.of and not _is_reference(case_id, here):
            found.append(replace(_empty(row, "missing"), reason=because(ReasonKind.NO_ROUNDS)))
        elif case_id in here.of and case_id not in newest.of and not _is_reference(case_id, newest):
            reason = because(ReasonKind.METRIC_NEW, reason=None)
            found.append(replace(_empty(row, "new"), reason=reason, gating=False))
    return found


def _is_reference(case_id: str, found: Ratios) -> bool:
    return any(ratio.reference_id == case_id for ratio in found.of.values())


def _empty(row: Row, outcome: Outcome) -> Verdict:
    return Verdict(
        case_id=row.case.id,
        label=row.case.label,
        metric=RELATIVE_LATENCY.name,
        kind=RELATIVE_LATENCY.kind,
        unit=RELATIVE_LATENCY.unit,
        outcome=outcome,
        reason=because(ReasonKind.NO_VALUE),
    )


def _reference(group: _Group) -> str:
    return group.members[0].case_id


def _groups(compared: Compared, here: Ratios, sessions: Sequence[RunRows], stored: Sequence[Ratios]) -> list[_Group]:
    """The groups of this run with the sessions that have the same rows of the same work. The newest session determines
    which rows these are."""
    found = []
    for reference in dict.fromkeys(ratio.reference_id for ratio in here.of.values()):
        ids = [case_id for case_id, ratio in here.of.items() if ratio.reference_id == reference]
        mine = _logs(here, reference, ids)
        values = [
            _logs(each, reference, [i for i in ids if _same_work(compared, session, i)])
            if _same_work(compared, session, reference)
            else {}
            for session, each in zip(sessions, stored, strict=True)
        ]
        ids = [case_id for case_id in mine if case_id in values[-1]]
        whole = [one for one in values if all(case_id in one for case_id in ids)]
        if len(ids) > 1:
            members = [_member(case_id, [*whole, mine]) for case_id in ids]
            found.append(_Group(members=tuple(members), sessions=len(whole)))
    return found


def _same_work(compared: Compared, session: RunRows, case_id: str) -> bool:
    there, here = session.rows.get(case_id), compared.candidate.rows[case_id]
    return there is not None and there.ok and here.ok and work_difference(there, here) is None


def _member(case_id: str, values: Sequence[Logs]) -> Member:
    return Member(
        case_id=case_id,
        logs=tuple(one[case_id][0] for one in values),
        variances=tuple(one[case_id][1] for one in values),
    )


def _logs(found: Ratios, reference: str, ids: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The values of the reference and of those rows that have an interval relative to it; empty without any. The
    variance of a ratio is that of the row and that of the reference; the copy of the reference tells the latter, since
    a row is compared with the mean of both (`harness.ratios`)."""
    measured = {i: ratio for i in ids if (ratio := found.between(i, reference)) is not None and ratio.half_width}
    if not measured:
        return {}
    variances = {case_id: _variance(ratio) for case_id, ratio in measured.items()}
    control = found.controls.get(reference)
    shared = _variance(control) / 4 if control and control.half_width else min(variances.values()) / 2
    rows = {
        case_id: (-math.log(ratio.value), max(variances[case_id] - shared, variances[case_id] / 3))
        for case_id, ratio in measured.items()
    }
    return {reference: (0.0, shared), **rows}


def _variance(ratio: Ratio) -> float:
    assert ratio.half_width is not None
    return (ratio.half_width / quantile(0.975, math.inf)) ** 2


def _renamed(found: Ratios, session: RunRows) -> Ratios:
    """The ratios of a session under the ids that its rows have here."""
    names = {m.case.id: new for new, row in session.rows.items() for m in row.processes}
    if all(old == new for old, new in names.items()):
        return found

    def renamed(ratio: Ratio) -> Ratio:
        return replace(
            ratio,
            case_id=names.get(ratio.case_id, ratio.case_id),
            reference_id=names.get(ratio.reference_id, ratio.reference_id),
        )

    return replace(
        found,
        of={(new := renamed(ratio)).case_id: new for ratio in found.of.values()},
        controls={(new := renamed(ratio)).case_id: new for ratio in found.controls.values()},
        rounds={
            number: replace(
                each,
                rows={names.get(old, old): player for old, player in each.rows.items()},
                copies={names.get(old, old): player for old, player in each.copies.items()},
            )
            for number, each in found.rounds.items()
        },
    )
