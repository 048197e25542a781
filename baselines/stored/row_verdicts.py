"""One row, and one metric of one row: which sessions count, whether the two can be compared, and the rule's verdict.

`compare` walks over the rows; `rules` holds the rules; here stands what must be true before a rule is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from baselines.stored import set_distance
from baselines.stored.health import condition_difference, health, row_verdict, work_difference
from baselines.stored.multiplicity import Judged
from baselines.stored.rows import Groups, Row, bad_values, metric_differences, process_value
from baselines.stored.rules import IDENTICAL_SAMPLES, INDISTINGUISHABLE_DB, Evidence, Finding, judge
from baselines.verdict import Outcome, Scope, Verdict
from harness.processes.environment import shortest_sample_s
from harness.types import IDENTICAL, Metric, Run

# What another machine's figures can be held against. Continuous quality (PSNR of rounding errors) follows the CPU's
# instruction set, so there it is shown and not gated.
MACHINE_INDEPENDENT: Final = frozenset({"exact", "quality_item", "quality_set", "quality_continuous"})
TIMED: Final = frozenset({"noisy", "energy"})
NO_FEATURES: Final = "one figure a side: the pictures' features were not kept on both, so no interval"
QUALITY: Final = frozenset({"quality_item", "quality_set", "quality_continuous"})


@dataclass(frozen=True, kw_only=True)
class Side:
    """A run and its rows, looked up once."""

    run: Run
    rows: dict[str, Row]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All that one comparison holds: this run, the usable sessions (oldest first), and what is known of the pair."""

    here: Side
    stored: tuple[Side, ...]
    scope: Scope
    other_host: str = ""

    @property
    def newest(self) -> Side:
        return self.stored[-1]

    def sides(self, metric: Metric) -> tuple[Side, ...]:
        """The sessions that count for a metric, oldest first: for a time those whose samples are as long as this run's,
        if there are any (where there are none, `other_host` says so, and nothing gates)."""
        mine = shortest_sample_s(self.here.run.environment)
        alike = tuple(side for side in self.stored if shortest_sample_s(side.run.environment) == mine)
        return alike if alike and metric.kind in TIMED else self.stored


def judge_row(frame: Frame, there: Row, here: Row) -> list[Judged]:
    broken = health(there, here, frame.scope)
    if broken:
        return [(broken, None)]
    other_work = work_difference(there, here)
    if other_work:
        return [(row_verdict(here, "not_comparable", other_work), None)]
    names = dict.fromkeys([*there.metrics(), *here.metrics()])
    identical = [m.missing for row in (there, here) for m in row.processes]
    names |= dict.fromkeys(n for missing in identical for n, reason in missing.items() if reason == IDENTICAL)
    return [judged for name in names if (judged := _judge_metric(frame, there, here, name))]


def _judge_metric(frame: Frame, there: Row, here: Row, name: str) -> Judged | None:
    """One metric of a row that is ok on both sides; None where this scope leaves it out."""
    then, now = frame.newest.run.metrics.get(name), frame.here.run.metrics.get(name)
    described = then or now
    if described is None:
        return row_verdict(here, "not_comparable", f"{name} is not described in either run"), None
    kinds = {metric.kind for metric in (then, now) if metric is not None}
    if kinds == {"advisory"} or (frame.scope != "all" and not kinds <= MACHINE_INDEPENDENT):
        return None  # advisory metrics are shown and not judged: nothing is known of their noise
    there = _with_metric(frame, there, here, described)
    finding = _finding(frame, there, here, described)
    gating = finding.gating and _gates(frame, described)
    reason = finding.reason
    if frame.other_host and described.kind in TIMED:
        reason = f"advisory: {frame.other_host}; {reason}"
    return _verdict(here, described, replace(finding, gating=gating, reason=reason)), finding


def _with_metric(frame: Frame, there: Row, here: Row, metric: Metric) -> Row:
    """The newest stored row of the same work that tells this metric; `there` where none does. A session that was
    accepted without its quality, say, does not take the quality out of the gate."""
    name = metric.name
    for side in reversed(frame.sides(metric)):
        row = side.rows.get(there.case.id)
        if row is None or not row.ok or work_difference(row, here):
            continue
        if row.groups(name) or row.missing(name) == IDENTICAL:
            return row
    return there


def _finding(frame: Frame, there: Row, here: Row, metric: Metric) -> Finding:
    name = metric.name
    if metric.kind in TIMED:
        here = here.quiet(frame.here.run.protocol.replicates)
    if any(row.missing(name) == IDENTICAL and not row.groups(name) for row in (there, here)):
        return _identical(metric, there, here)
    if not there.groups(name):
        said = there.missing(name)
        return Finding(outcome="new", reason=f"not in the baseline{f' ({said})' if said else ''}", gating=False)
    if not here.groups(name) or name not in frame.here.run.metrics:
        return Finding(outcome="missing", reason=str(here.missing(name) or "no value, and no reason recorded"))
    wrong = metric_differences(frame.here.run.metrics[name], metric)
    if metric.kind in QUALITY:
        required = metric.kind == "quality_set"
        wrong += [line for line in [condition_difference(there, here, required=required)] if line]
    sessions = history(frame, here, metric)
    if not sessions and metric.kind in TIMED and there.contended:
        return Finding(outcome="not_comparable", reason=f"no stored session of a quiet machine: {there.contended}")
    wrong += [f"{text} here" for text in [bad_values(metric, here.groups(name))] if text]
    wrong += [f"{text} in the baseline" for text in [bad_values(metric, [v for s in sessions for v in s])] if text]
    if wrong:
        return Finding(outcome="not_comparable", reason="; ".join(wrong))
    found = judge(Evidence(metric=metric, sessions=sessions, here=here.groups(name)))
    if metric.kind == "quality_set" and found.reason != IDENTICAL_SAMPLES:
        figures = (process_value(metric, sessions[-1][0]), process_value(metric, here.groups(name)[0]))
        paired = set_distance.judged(metric, there, here, *figures)
        return paired or replace(found, reason=f"{found.reason}; {NO_FEATURES}")
    if metric.kind in TIMED and (reason := here.contended):
        return replace(
            found,
            outcome="inconclusive",
            reason=f"{reason}; it would read: {found.reason}",
            p_worse=None,
            p_better=None,
        )
    return found


def history(frame: Frame, here: Row, metric: Metric) -> tuple[Groups, ...]:
    """Samples of every session that did the same work and describes the metric alike, oldest first. A session in which
    the row met a busy machine gives no time, nor does one that took samples of another length where others did not."""
    found = []
    for side in frame.sides(metric):
        row = side.rows.get(here.case.id)
        described = side.run.metrics.get(metric.name)
        if row is None or not row.ok or described is None or metric_differences(described, metric):
            continue
        if metric.kind in TIMED:
            row = row.quiet(side.run.protocol.replicates)
            if row.contended:
                continue
        if row.groups(metric.name) and not work_difference(row, here):
            found.append(row.groups(metric.name))
    return tuple(found)


def _identical(metric: Metric, there: Row, here: Row) -> Finding:
    """PSNR of identical pictures has no value: it is missing with the reason `identical`, and nothing is better."""
    now, then = (row.missing(metric.name) == IDENTICAL and not row.groups(metric.name) for row in (here, there))
    if now and then:
        return Finding(outcome="unchanged", reason="identical to its reference, as in the baseline")
    groups = (there if now else here).groups(metric.name)
    if not groups:
        return Finding(outcome="missing", reason=str(here.missing(metric.name) or "no value, and no reason recorded"))
    value = process_value(metric, groups[0])
    outcome: Outcome = "improved" if now else "regressed"
    if value >= INDISTINGUISHABLE_DB:
        outcome = "unchanged"
    if now:
        return Finding(outcome=outcome, reason="identical to its reference now, not in the baseline", baseline=value)
    return Finding(outcome=outcome, reason="identical to its reference in the baseline, not now", candidate=value)


def _gates(frame: Frame, metric: Metric) -> bool:
    if frame.other_host and metric.kind in TIMED:
        return False
    return frame.scope == "all" or metric.kind != "quality_continuous"


def _verdict(row: Row, metric: Metric, finding: Finding) -> Verdict:
    there, here = finding.baseline, finding.candidate
    return Verdict(
        case_id=row.case.id,
        label=row.case.label,
        metric=metric.name,
        kind=metric.kind,
        unit=metric.unit,
        outcome=finding.outcome,
        reason=finding.reason,
        baseline=there,
        candidate=here,
        ratio=here / there if here is not None and there is not None and here > 0 and there > 0 else None,
        low=finding.low,
        high=finding.high,
        minimum_detectable=finding.minimum_detectable,
        gating=finding.gating,
    )
