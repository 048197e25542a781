"""Verdicts on whole rows that are not ok, missing, new or do other work, so that no metric is compared.

Their metric is "row" and their kind "health".
"""

from __future__ import annotations

from collections.abc import Mapping

from baselines.stored.measured import same_reason
from baselines.stored.rows import NOT_RUN, FactVaries, Row
from baselines.verdict import Outcome, Scope, Verdict
from baselines.wording import ReasonKind, because, field_differs
from harness.reasons import Reason

ROW_METRIC = "row"
KIND = "health"
# On another machine, these statuses may come from the machine (less memory, a slower clock, a missing package).
OF_THE_MACHINE = frozenset({"oom", "timeout", "skipped"})


def row_verdict(row: Row, outcome: Outcome, reason: Reason, *, gating: bool = True) -> Verdict:
    return Verdict(
        case_id=row.case.id,
        label=row.case.label,
        metric=ROW_METRIC,
        kind=KIND,
        unit="1",
        outcome=outcome,
        reason=reason,
        gating=gating,
    )


def health(there: Row, here: Row, scope: Scope) -> Verdict | None:
    """The verdict on a row of the baseline; None if it is ok in both, so that its metrics are compared."""
    if there.ok and here.ok:
        return None
    if here.status == NOT_RUN:
        return row_verdict(here, "missing", because(ReasonKind.ROW_NOT_MEASURED), gating=there.ok)
    now, before = row_status(here), row_status(there)
    if here.ok:
        return row_verdict(here, "improved", because(ReasonKind.ROW_HEALTHY_NOW, before=before), gating=False)
    if here.status == "skipped":
        outcome: Outcome = "unchanged" if same_reason(now, before) else "missing"
        reason = because(ReasonKind.ROW_SKIPPED, now=now, before=before)
        return row_verdict(here, outcome, reason, gating=there.ok and scope == "all")
    if not there.ok and there.status != "skipped":
        reason = because(ReasonKind.ROW_STILL_BROKEN, now=now, before=before)
        return row_verdict(here, "unchanged", reason, gating=False)
    if scope != "all" and (here.status in OF_THE_MACHINE or not there.ok):
        return row_verdict(here, "missing", because(ReasonKind.ROW_BROKEN_ELSEWHERE, now=now), gating=False)
    before = because(ReasonKind.ROW_STATUS, status=there.status)
    return row_verdict(here, "regressed", because(ReasonKind.ROW_BROKEN, now=now, before=before))


def invalid_now(verdict: Verdict) -> bool:
    """Whether a row that was ok is invalid now: it does not compute what was requested."""
    return verdict.reason.kind == ReasonKind.ROW_BROKEN and verdict.reason.data["now"].data["status"] == "invalid"


def row_status(row: Row) -> Reason:
    """The row's status with its reason."""
    if row.reason is None:
        return because(ReasonKind.ROW_STATUS, status=row.status)
    return because(ReasonKind.ROW_STATUS, status=row.status, reason=row.reason)


def appeared(row: Row, scope: Scope) -> Verdict:
    """The verdict on a row that is not in the baseline. It passes only if it is accepted, because it may have been
    removed from the baseline. Against the reference of another machine it is advisory."""
    if row.status == NOT_RUN:
        return row_verdict(row, "missing", because(ReasonKind.NOT_MEASURED_NOR_STORED))
    acceptable = scope == "all"
    reason = because(ReasonKind.ROW_NEW, status=None if row.ok else row_status(row), acceptable=acceptable)
    return row_verdict(row, "new", reason, gating=acceptable)


def work_difference(there: Row, here: Row) -> Reason | None:
    """Why the work of the two rows differs or is unknown; None if it is the same."""
    try:
        mine, theirs = here.fact("work_hash"), there.fact("work_hash")
        networks = _other_precisions(there, here)
    except FactVaries as varies:
        return varies.reason
    if mine is None or theirs is None:
        return because(ReasonKind.NO_WORK_IDENTITY, here=mine is None)
    if mine == theirs or _same_by_name(there, here):
        return because(ReasonKind.OTHER_WORK, differences=networks) if networks else None
    found = fact_differences(here.fact("identity"), there.fact("identity"))
    return because(
        ReasonKind.OTHER_WORK,
        differences=found or [because(ReasonKind.FIELD_DIFFERS, name="work identity", here=mine, there=theirs)],
    )


def _other_precisions(there: Row, here: Row) -> list[Reason]:
    """The networks that run in different precisions although the rows request the same one. For example, a network that
    overflows in fp16 runs in fp32, which is not a part of the work's identity. Raises FactVaries."""
    asked = here.case.precision
    mine, theirs = (row.fact("component_precisions") or {} for row in (here, there))
    if there.case.precision != asked:
        return []
    pairs = {name: (mine.get(name, asked), theirs.get(name, asked)) for name in {**theirs, **mine}}
    return [
        because(ReasonKind.NETWORK_PRECISION, network=name, here=a, there=b) for name, (a, b) in pairs.items() if a != b
    ]


def _same_by_name(there: Row, here: Row) -> bool:
    """Whether the work is the same if one row was stored before weights were hashed by value, so that its identity has
    the model's name for them."""
    names = [row.fact("weights_source") for row in (there, here)]
    if (names[0] is None) == (names[1] is None):
        return False
    identities = [row.fact("identity") for row in (there, here)]
    if not all(isinstance(identity, Mapping) for identity in identities):
        return False
    named = [i if n is None else {**i, "weights_hash": n} for i, n in zip(identities, names, strict=True)]
    return bool(named[0] == named[1])


def condition_difference(there: Row, here: Row, *, required: bool) -> Reason | None:
    """Why the conditions of two quality metrics differ; if `required`, missing conditions are a difference, too."""
    name = "quality_conditions"
    try:
        mine, theirs = here.fact(name), there.fact(name)
    except FactVaries as varies:
        return varies.reason
    if required and (mine is None or theirs is None):
        return because(ReasonKind.NO_CONDITIONS, here=mine is None)
    if mine == theirs:
        return None
    found = fact_differences(mine, theirs) or [field_differs("conditions", mine, theirs)]
    return because(ReasonKind.OTHER_CONDITIONS, differences=found)


def fact_differences(here: object, there: object) -> list[Reason]:
    """The keys in which two mappings differ; empty if one of them is not a mapping."""
    if not isinstance(here, Mapping) or not isinstance(there, Mapping):
        return []
    names = [name for name in dict.fromkeys([*here, *there]) if here.get(name) != there.get(name)]
    return [field_differs(name, here.get(name), there.get(name)) for name in names]
