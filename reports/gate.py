"""What a comparison means to CI: how each verdict stands, what disarms the whole, and one sentence for people. Pure.

    gate.sentence(comparison)      "Red: 2 rows are slower."

The exit code, the JUnit file, the annotations, the badge and the comment cannot disagree, because all of them ask here:
a comparison has a failure or an error exactly where `exit_code` is not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from baselines.stored.health import invalid_now
from baselines.verdict import (
    CONTENDED,
    INCONCLUSIVE,
    NOT_COMPARABLE,
    NOTHING_MEASURED,
    Comparison,
    Verdict,
    contended_rows,
    exit_code,
    no_pass,
)
from reports.wording import counted, listed

Standing = Literal["failure", "error", "skipped", "passed"]
TIMED: Final = frozenset({"noisy", "energy"})
INVALID: Final = "invalid"  # the family of rows that ran and gave, or were, something else
REASON_CHARACTERS: Final = 300
SEVERITY: Final = ("regressed", "missing", "not_comparable", "inconclusive", "improved", "new", "unchanged")


def standing(verdict: Verdict, comparison: Comparison, strict: bool = False) -> Standing:
    """How one verdict counts. Failure: it regressed. Error: absent, unknown or not comparable, which is no pass.
    Skipped: not decided, or timed on a machine that was not quiet. Passed: all else, and whatever is advisory."""
    if verdict.gating and verdict.outcome == "regressed":
        return "failure"
    if no_pass(verdict, comparison, strict):
        return "error"
    if verdict.outcome == "inconclusive" or (comparison.contended and verdict.kind in TIMED):
        return "skipped"
    return "passed"


def whole(comparison: Comparison, strict: bool = False) -> tuple[tuple[str, str], ...]:
    """(kind, reason) of everything that makes the gate red and that no single verdict tells."""
    if comparison.refused:
        kind = "benchmark error" if comparison.error else "no baseline" if comparison.absent else "refused"
        return tuple((kind, str(reason)) for reason in comparison.refused)
    found = [("contaminated", str(reason)) for reason in comparison.contended]
    found += [("contaminated", f"{label}: {reason}") for label, reason in contended_rows(comparison).items()]
    code = exit_code(comparison, strict=strict)
    if code == NOTHING_MEASURED:
        found.append(("nothing measured", "no row of this run has a value"))
    if code == INCONCLUSIVE:
        undecided = counted(_rows(comparison, lambda v: v.outcome == "inconclusive"), "row")
        found.append(("inconclusive", f"{undecided} could not be decided, and --strict asks for every one"))
    return tuple(found)


def gravest_first(comparison: Comparison) -> list[Verdict]:
    """All verdicts: first those that make the gate red, then by outcome, and within it the largest change."""
    return sorted(ranked(comparison.verdicts), key=lambda v: standing(v, comparison) not in {"failure", "error"})


def speed_rows(comparison: Comparison) -> tuple[set[str], set[str]]:
    """Case ids whose speed was judged and is not worse, and case ids of which something gating is undecided."""
    gating = [v for v in comparison.verdicts if v.gating]
    undecided = {v.case_id for v in gating if v.outcome in {"inconclusive", "new"}}
    not_slower = {v.case_id for v in gating if v.kind == "noisy" and v.outcome in {"unchanged", "improved"}}
    return not_slower - undecided, undecided


def sentence(comparison: Comparison, strict: bool = False) -> str:
    """What the gate says, for a reader who knows nothing of it: red is slower (or worse), green is not slower."""
    code = exit_code(comparison, strict=strict)
    if comparison.absent:
        return "No answer: there is no baseline to compare with yet."
    if comparison.refused:
        happened = "the benchmark broke" if comparison.error else "nothing was compared"
        return f"No answer: {happened}: {shortened('; '.join(map(str, comparison.refused)))}."
    if worse := _worse(comparison):
        return f"Red: {listed(worse, limit=9)}."
    if code == CONTENDED:
        return "No answer: the machine was not quiet enough to judge speed. That is no pass: run it again."
    if code == NOTHING_MEASURED:
        return "No answer: nothing was measured."
    if code == NOT_COMPARABLE:
        return f"No pass: {_absent(comparison, strict)}."
    not_slower, undecided = speed_rows(comparison)
    if undecided:
        lead = "No pass" if code == INCONCLUSIVE else "Not red"
        return f"{lead}: nothing regressed, but {counted(len(undecided), 'row')} could not be decided."
    if not not_slower:
        return "Not red: nothing regressed, but speed is not judged yet."
    return f"Green: not slower ({counted(len(not_slower), 'row')}, each within what it could see)."


def shortened(text: object, limit: int = REASON_CHARACTERS) -> str:
    """At most `limit` characters, on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _absent(comparison: Comparison, strict: bool) -> str:
    """What is missing, cannot be compared or is unknown, in words."""
    errors = [v for v in comparison.verdicts if standing(v, comparison, strict) == "error"]
    new = {v.case_id for v in errors if v.outcome == "new"}
    gone = {v.case_id for v in errors if v.outcome != "new"}
    found = [f"{_counted(len(gone), 'is missing', 'are missing')} or cannot be compared"] if gone else []
    known = "not known to the baseline (imgbench baseline save accepts it)"
    found += [_counted(len(new), f"is {known}", f"are {known}")] if new else []
    return listed(found)


def _worse(comparison: Comparison) -> list[str]:
    """What regressed, in words, the gravest first; empty where nothing that gates did."""
    rows: dict[str, set[str]] = {}
    for verdict in (v for v in comparison.verdicts if v.gating and v.outcome == "regressed"):
        rows.setdefault(_family(verdict), set()).add(verdict.case_id)
    quality, invalid, health, noisy = (len(rows.pop(f, ())) for f in ("quality", INVALID, "health", "noisy"))
    found = [f"the outputs of {counted(quality, 'row')} got worse"] if quality else []
    found += [_counted(invalid, "is no longer valid", "are no longer valid")] if invalid else []
    found += [_counted(health, "no longer runs", "no longer run")] if health else []
    found += [_counted(noisy, "is slower", "are slower")] if noisy else []
    return found + [f"{_counted(len(ids), 'is worse', 'are worse')} in {metric}" for metric, ids in rows.items()]


def _family(verdict: Verdict) -> str:
    if verdict.kind.startswith("quality"):
        return "quality"
    if verdict.kind == "health" and invalid_now(verdict):
        return INVALID
    return verdict.kind if verdict.kind in {"health", "noisy"} else verdict.metric


def _counted(number: int, one: str, many: str) -> str:
    return f"{counted(number, 'row')} {one if number == 1 else many}"


def _rows(comparison: Comparison, which: Callable[[Verdict], bool]) -> int:
    return len({v.case_id for v in comparison.verdicts if v.gating and which(v)})


def ranked(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The gravest outcome first, and within it the largest change."""
    return sorted(verdicts, key=lambda v: (SEVERITY.index(v.outcome), -abs((v.ratio or 1.0) - 1.0), v.label, v.metric))
