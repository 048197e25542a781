"""The verdicts of one row and of its metrics: which sessions count, and whether a rule is applicable.

`compare` iterates over the rows, and `rules` has the rules. This module has the conditions of a rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from baselines.stored import fid_and_kid
from baselines.stored.health import condition_difference, health, row_verdict, work_difference
from baselines.stored.measured import identical
from baselines.stored.multiplicity import Decided
from baselines.stored.rows import Groups, Row, bad_values, metric_differences, process_value
from baselines.stored.rules import INDISTINGUISHABLE_DB, Evidence, RuleResult, decide
from baselines.verdict import Outcome, Scope, Verdict
from baselines.wording import ReasonKind, because, several
from harness.processes.environment import shortest_sample_s
from harness.reasons import Reason
from harness.types import Metric, Run

# The kinds that are comparable with another machine. Continuous quality (PSNR of rounding errors) depends on the CPU's
# instruction set, so it is advisory there.
MACHINE_INDEPENDENT: Final = frozenset({"exact", "quality_item", "quality_set", "quality_continuous"})
TIMED: Final = frozenset({"noisy", "energy"})
QUALITY: Final = frozenset({"quality_item", "quality_set", "quality_continuous"})


@dataclass(frozen=True, kw_only=True)
class RunRows:
    """A run and its rows."""

    run: Run
    rows: dict[str, Row]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The candidate run, the usable sessions of the baseline (oldest first), and the scope. `other_host` are the soft
    differences that make speed advisory; empty if speed gates."""

    candidate: RunRows
    sessions: tuple[RunRows, ...]
    scope: Scope
    other_host: tuple[Reason, ...] = ()

    @property
    def newest(self) -> RunRows:
        return self.sessions[-1]

    def sessions_for(self, metric: Metric) -> tuple[RunRows, ...]:
        """The sessions that count for a metric, oldest first. For a time, these are the sessions whose samples are as
        long as the candidate's, if there are any; if there are none, `other_host` says so and nothing gates."""
        mine = shortest_sample_s(self.candidate.run.environment)
        alike = tuple(each for each in self.sessions if shortest_sample_s(each.run.environment) == mine)
        return alike if alike and metric.kind in TIMED else self.sessions


def row_verdicts(compared: Compared, there: Row, here: Row) -> list[Decided]:
    """The verdict on a row that is not ok or did other work, otherwise one per metric, before the correction."""
    broken = health(there, here, compared.scope)
    if broken:
        return [(broken, None)]
    other_work = work_difference(there, here)
    if other_work:
        return [(row_verdict(here, "not_comparable", other_work), None)]
    names = dict.fromkeys([*there.metrics(), *here.metrics()])
    missing = [m.missing for row in (there, here) for m in row.processes]
    names |= dict.fromkeys(name for told in missing for name, reason in told.items() if identical(reason))
    return [decided for name in names if (decided := _metric_verdict(compared, there, here, name))]


def _metric_verdict(compared: Compared, there: Row, here: Row, name: str) -> Decided | None:
    """The verdict on a metric of a row that is ok in both; None if the scope excludes it."""
    then, now = compared.newest.run.metrics.get(name), compared.candidate.run.metrics.get(name)
    described = then or now
    if described is None:
        return row_verdict(here, "not_comparable", because(ReasonKind.METRIC_NOT_DESCRIBED, metric=name)), None
    kinds = {metric.kind for metric in (then, now) if metric is not None}
    if kinds == {"advisory"} or (compared.scope != "all" and not kinds <= MACHINE_INDEPENDENT):
        return None  # advisory metrics are not compared, because their noise is not known
    there = _with_metric(compared, there, here, described)
    result = _result(compared, there, here, described)
    gating = result.gating and _gates(compared, described)
    reason = result.reason
    if compared.other_host and described.kind in TIMED:
        reason = because(ReasonKind.OTHER_HOST, differences=list(compared.other_host), reason=reason)
    return _verdict(here, described, replace(result, gating=gating, reason=reason)), result


def _with_metric(compared: Compared, there: Row, here: Row, metric: Metric) -> Row:
    """The newest stored row of the same work that has this metric; `there` if none has. So a session without quality,
    for example, does not remove the quality from the gate."""
    name = metric.name
    for session in reversed(compared.sessions_for(metric)):
        row = session.rows.get(there.case.id)
        if row is None or not row.ok or work_difference(row, here):
            continue
        if row.groups(name) or row.identical(name):
            return row
    return there


def _result(compared: Compared, there: Row, here: Row, metric: Metric) -> RuleResult:
    name = metric.name
    if metric.kind in TIMED:
        here = here.quiet(compared.candidate.run.protocol.replicates)
    if there.identical(name) or here.identical(name):
        return _identical(metric, there, here)
    if not there.groups(name):
        said = there.missing(name)
        return RuleResult(outcome="new", reason=because(ReasonKind.METRIC_NEW, reason=said), gating=False)
    if not here.groups(name) or name not in compared.candidate.run.metrics:
        return RuleResult(outcome="missing", reason=_no_value(here, name))
    wrong = metric_differences(compared.candidate.run.metrics[name], metric)
    if metric.kind in QUALITY:
        required = metric.kind == "quality_set"
        wrong += [reason for reason in [condition_difference(there, here, required=required)] if reason]
    sessions = history(compared, here, metric)
    if not sessions and metric.kind in TIMED and (contention := there.contention):
        reason = because(ReasonKind.CONTENDED_SESSIONS, contention=contention)
        return RuleResult(outcome="not_comparable", reason=reason)
    stored = [values for session in sessions for values in session]
    wrong += [bad for bad in (bad_values(metric, here.groups(name)), bad_values(metric, stored, here=False)) if bad]
    if wrong:
        return RuleResult(outcome="not_comparable", reason=several(wrong))
    found = decide(Evidence(metric=metric, sessions=sessions, here=here.groups(name)))
    if metric.kind == "quality_set" and found.reason.kind != ReasonKind.BIT_IDENTICAL:
        figures = (process_value(metric, sessions[-1][0]), process_value(metric, here.groups(name)[0]))
        paired = fid_and_kid.by_bootstrap(metric, there, here, *figures)
        return paired or replace(found, reason=because(ReasonKind.SET_FEATURES_NOT_KEPT, reason=found.reason))
    if metric.kind in TIMED and (contention := here.contention):
        would_read = because(ReasonKind.WOULD_READ, outcome=found.outcome, reason=found.reason)
        reason = because(ReasonKind.CONTENDED_ROW, contention=contention, would_read=would_read)
        return replace(found, outcome="inconclusive", reason=reason, p_worse=None, p_better=None)
    return found


def history(compared: Compared, here: Row, metric: Metric) -> tuple[Groups, ...]:
    """Samples of every session with the same work and the same definition of the metric, oldest first. For times, it
    leaves out contended sessions, and sessions whose samples have another length if there are others."""
    found = []
    for session in compared.sessions_for(metric):
        row = session.rows.get(here.case.id)
        described = session.run.metrics.get(metric.name)
        if row is None or not row.ok or described is None or metric_differences(described, metric):
            continue
        if metric.kind in TIMED:
            row = row.quiet(session.run.protocol.replicates)
            if row.contention:
                continue
        if row.groups(metric.name) and not work_difference(row, here):
            found.append(row.groups(metric.name))
    return tuple(found)


def _identical(metric: Metric, there: Row, here: Row) -> RuleResult:
    """The result for identical images, whose PSNR is not defined: it is missing with the reason `identical_output`."""
    now, then = here.identical(metric.name), there.identical(metric.name)
    if now and then:
        return RuleResult(outcome="unchanged", reason=because(ReasonKind.IDENTICAL_TO_REFERENCE))
    groups = (there if now else here).groups(metric.name)
    if not groups:
        return RuleResult(outcome="missing", reason=_no_value(here, metric.name))
    value = process_value(metric, groups[0])
    outcome: Outcome = "improved" if now else "regressed"
    if value >= INDISTINGUISHABLE_DB:
        outcome = "unchanged"
    if now:
        return RuleResult(outcome=outcome, reason=because(ReasonKind.IDENTICAL_NOW), baseline=value)
    return RuleResult(outcome=outcome, reason=because(ReasonKind.IDENTICAL_BEFORE), candidate=value)


def _no_value(row: Row, name: str) -> Reason:
    """Why a row has no value of a metric."""
    said = row.missing(name)
    return because(ReasonKind.NO_VALUE) if said is None else said


def _gates(compared: Compared, metric: Metric) -> bool:
    if compared.other_host and metric.kind in TIMED:
        return False
    return compared.scope == "all" or metric.kind != "quality_continuous"


def _verdict(row: Row, metric: Metric, result: RuleResult) -> Verdict:
    there, here = result.baseline, result.candidate
    return Verdict(
        case_id=row.case.id,
        label=row.case.label,
        metric=metric.name,
        kind=metric.kind,
        unit=metric.unit,
        outcome=result.outcome,
        reason=result.reason,
        baseline=there,
        candidate=here,
        ratio=here / there if here is not None and there is not None and here > 0 and there > 0 else None,
        low=result.low,
        high=result.high,
        minimum_detectable=result.minimum_detectable,
        gating=result.gating,
    )
