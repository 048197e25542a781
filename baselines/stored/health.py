"""Verdicts on whole rows: a row that broke, vanished, appeared, or does other work has no metric to compare.

They stand under the metric name "row" and the kind "health".
"""

from __future__ import annotations

from collections.abc import Mapping

from baselines.stored.rows import NOT_RUN, Row
from baselines.verdict import Outcome, Scope, Verdict

ROW_METRIC = "row"
KIND = "health"
LONGEST_FACT = 160
ACCEPT = "accept it with imgbench baseline save, or give --allow-new"
# On another machine these say something about the machine (less memory, a slower clock, a missing package).
OF_THE_MACHINE = frozenset({"oom", "timeout", "skipped"})


def row_verdict(row: Row, outcome: Outcome, reason: str, *, gating: bool = True) -> Verdict:
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
    """What became of a row of the baseline; None where it is ok in both and its metrics say the rest."""
    if there.ok and here.ok:
        return None
    if here.status == NOT_RUN:
        return row_verdict(here, "missing", "not measured in this run", gating=there.ok)
    if here.ok:
        return row_verdict(here, "improved", f"ok now; in the baseline {_story(there)}", gating=False)
    if here.status == "skipped":
        outcome: Outcome = "unchanged" if _story(here) == _story(there) else "missing"
        then = "ok" if there.ok else _story(there)
        return row_verdict(here, outcome, f"{_story(here)}; in the baseline {then}", gating=there.ok and scope == "all")
    if not there.ok and there.status != "skipped":
        return row_verdict(here, "unchanged", f"health: {_story(here)}; in the baseline {_story(there)}", gating=False)
    if scope != "all" and (here.status in OF_THE_MACHINE or not there.ok):
        return row_verdict(here, "missing", f"{_story(here)}, on another machine than the baseline", gating=False)
    return row_verdict(here, "regressed", f"health: {_story(here)}; in the baseline {there.status}")


def appeared(row: Row, scope: Scope) -> Verdict:
    """A row that the baseline does not have: no pass until it is accepted, since a row that was taken out of the
    baseline looks the same. Another machine's reference is no list of what this one must have, so there it is shown."""
    if row.status == NOT_RUN:
        return row_verdict(row, "missing", "not measured in this run, and not in the baseline")
    state = "" if row.ok else f"; {_story(row)}"
    if scope != "all":
        return row_verdict(row, "new", f"not in the baseline{state}", gating=False)
    return row_verdict(row, "new", f"not in the baseline{state}; {ACCEPT}")


def work_difference(there: Row, here: Row) -> str | None:
    """Why the two rows did other work, or work that cannot be told; None where it is the same."""
    try:
        mine, theirs = here.fact("work_hash"), there.fact("work_hash")
        other = _other_precisions(there, here)
    except ValueError as error:
        return str(error)
    if mine is None or theirs is None:
        return f"no work identity recorded {'here' if mine is None else 'in the baseline'}"
    if mine == theirs or _same_by_name(there, here):
        return f"other work: {other}" if other else None
    named = fact_differences(here.fact("identity"), there.fact("identity"))
    return f"other work: {named or f'work identity {mine} here, {theirs} in the baseline'}"


def _other_precisions(there: Row, here: Row) -> str:
    """The networks that run in another precision although the rows ask for the same one, in words: a network may
    overflow in fp16 and then runs in fp32, which the work's identity does not hold. Empty where there is none. Raises
    ValueError where processes disagree."""
    asked = here.case.precision
    mine, theirs = (row.fact("component_precisions") or {} for row in (here, there))
    if there.case.precision != asked:
        return ""
    pairs = {name: (mine.get(name, asked), theirs.get(name, asked)) for name in {**theirs, **mine}}
    return ", ".join(f"{name} in {a} here, in {b} in the baseline" for name, (a, b) in pairs.items() if a != b)


def _same_by_name(there: Row, here: Row) -> bool:
    """Whether the work is the same if one of the rows was stored before weights were hashed by value, and so has the
    model's own name for them in its identity."""
    names = [row.fact("weights_source") for row in (there, here)]
    if (names[0] is None) == (names[1] is None):
        return False
    identities = [row.fact("identity") for row in (there, here)]
    if not all(isinstance(identity, Mapping) for identity in identities):
        return False
    named = [i if n is None else {**i, "weights_hash": n} for i, n in zip(identities, names, strict=True)]
    return bool(named[0] == named[1])


def condition_difference(there: Row, here: Row, *, required: bool) -> str | None:
    """Why two quality figures were made under other conditions; `required` where none recorded is refused too."""
    name = "quality_conditions"
    try:
        mine, theirs = here.fact(name), there.fact(name)
    except ValueError as error:
        return str(error)
    if required and (mine is None or theirs is None):
        return f"no quality conditions recorded {'here' if mine is None else 'in the baseline'}"
    if mine == theirs:
        return None
    return f"other quality conditions: {fact_differences(mine, theirs) or f'{mine} here, {theirs} in the baseline'}"


def fact_differences(here: object, there: object) -> str:
    """The keys in which two mappings differ, in words; empty where one of them is no mapping."""
    if not isinstance(here, Mapping) or not isinstance(there, Mapping):
        return ""
    names = [name for name in dict.fromkeys([*here, *there]) if here.get(name) != there.get(name)]
    return ", ".join(_fact(name, here.get(name), there.get(name)) for name in names)


def _fact(name: str, here: object, there: object) -> str:
    """One differing fact; values too long to read are left out."""
    words = f"{name} {here} here, {there} in the baseline"
    return words if len(words) <= LONGEST_FACT else f"{name} differs"


def _story(row: Row) -> str:
    return f"{row.status}: {row.reason}" if row.reason else row.status
