"""What a comparison means to CI: the standing of each verdict, the reasons of the whole, and one sentence. Pure.

    gate.sentence(comparison)      "Red: 2 rows are slower."

The JUnit file, the annotations, the badge and the comment agree with the exit code, because all of them use this
module: a comparison has a failure or an error exactly if `exit_code` is not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from baselines.stored.health import invalid_now
from baselines.stored.relative_verdicts import RELATIVE_LATENCY
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
from harness.units import counted
from reports.wording import listed

Standing = Literal["failure", "error", "skipped", "passed"]
TIMED: Final = frozenset({"noisy", "energy"})
INVALID: Final = "invalid"  # the family of rows that were ok and are invalid now
REASON_CHARACTERS: Final = 300
SEVERITY: Final = ("regressed", "missing", "not_comparable", "inconclusive", "improved", "new", "unchanged")


def standing(verdict: Verdict, comparison: Comparison, strict: bool = False) -> Standing:
    """How one verdict counts. Failure: it regressed. Error: it is missing, new or not comparable. Skipped: it is
    undecided, or timed in a contended run. Passed: all others, and advisory ones."""
    if verdict.gating and verdict.outcome == "regressed":
        return "failure"
    if no_pass(verdict, comparison, strict):
        return "error"
    if verdict.outcome == "inconclusive" or (comparison.contended and verdict.kind in TIMED):
        return "skipped"
    return "passed"


def whole(comparison: Comparison, strict: bool = False) -> tuple[tuple[str, str], ...]:
    """(kind, reason) of everything that fails the gate and is not the reason of a single verdict."""
    if comparison.refused:
        kind = "benchmark error" if comparison.error else "no baseline" if comparison.absent else "refused"
        return tuple((kind, str(reason)) for reason in comparison.refused)
    found = [("contended", str(reason)) for reason in comparison.contended]
    found += [("contended", f"{label}: {reason}") for label, reason in contended_rows(comparison).items()]
    code = exit_code(comparison, strict=strict)
    if code == NOTHING_MEASURED:
        found.append(("nothing measured", "no row of this run has a value"))
    if code == INCONCLUSIVE:
        undecided = counted(_rows(comparison, lambda v: v.outcome == "inconclusive"), "row")
        found.append(
            ("inconclusive", f"{undecided} could not be decided, and --strict requires a decision on every row")
        )
    return tuple(found)


def gravest_first(comparison: Comparison) -> list[Verdict]:
    """All verdicts: first those that fail the gate, then by outcome, and within it the largest change first."""
    return sorted(ranked(comparison.verdicts), key=lambda v: standing(v, comparison) not in {"failure", "error"})


def speed_rows(comparison: Comparison) -> tuple[set[str], set[str]]:
    """Case ids whose speed is decided and not worse, and case ids with an undecided gating verdict. That a row is
    unchanged relative to its group does not say that it is not slower."""
    gating = [v for v in comparison.verdicts if v.gating]
    undecided = {v.case_id for v in gating if v.outcome in {"inconclusive", "new"}}
    speed = [v for v in gating if v.kind == "noisy" and v.metric != RELATIVE_LATENCY.name]
    not_slower = {v.case_id for v in speed if v.outcome in {"unchanged", "improved"}}
    return not_slower - undecided, undecided


def sentence(comparison: Comparison, strict: bool = False) -> str:
    """The result of the gate in one sentence: red is slower (or worse), green is not slower."""
    code = exit_code(comparison, strict=strict)
    if comparison.absent:
        return "No answer: there is no baseline yet."
    if comparison.refused:
        happened = "the benchmark failed" if comparison.error else "nothing was compared"
        return f"No answer: {happened}: {shortened('; '.join(map(str, comparison.refused)))}."
    if worse := _worse(comparison):
        return f"Red: {listed(worse, limit=9)}."
    if code == CONTENDED:
        return (
            "No answer: the run was contended, so nothing is decided about speed. The gate does not pass: run it again."
        )
    if code == NOTHING_MEASURED:
        return "No answer: nothing was measured."
    if code == NOT_COMPARABLE:
        return f"Not passed: {_absent(comparison, strict)}."
    not_slower, undecided = speed_rows(comparison)
    if undecided:
        lead = "Not passed" if code == INCONCLUSIVE else "Not red"
        return f"{lead}: nothing regressed, but {counted(len(undecided), 'row')} could not be decided."
    if not not_slower:
        return "Not red: nothing regressed, but nothing is decided about speed yet."
    return f"Green: not slower ({counted(len(not_slower), 'row')}, each within its detectable change)."


def shortened(text: object, limit: int = REASON_CHARACTERS) -> str:
    """At most `limit` characters, on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _absent(comparison: Comparison, strict: bool) -> str:
    """The rows that are missing, not comparable or new, in words."""
    errors = [v for v in comparison.verdicts if standing(v, comparison, strict) == "error"]
    new = {v.case_id for v in errors if v.outcome == "new"}
    gone = {v.case_id for v in errors if v.outcome != "new"}
    found = [f"{_counted(len(gone), 'is missing', 'are missing')} or cannot be compared"] if gone else []
    known = "not in the baseline (accept with imgbench baseline save)"
    found += [_counted(len(new), f"is {known}", f"are {known}")] if new else []
    return listed(found)


def _worse(comparison: Comparison) -> list[str]:
    """What regressed, in words, the most severe first; empty if no gating verdict regressed."""
    rows: dict[str, set[str]] = {}
    for verdict in (v for v in comparison.verdicts if v.gating and v.outcome == "regressed"):
        rows.setdefault(_family(verdict), set()).add(verdict.case_id)
    quality, invalid, health, noisy = (len(rows.pop(f, ())) for f in ("quality", INVALID, "health", "noisy"))
    found = [f"the outputs of {counted(quality, 'row')} got worse"] if quality else []
    found += [_counted(invalid, "is no longer valid", "are no longer valid")] if invalid else []
    found += [_counted(health, "no longer runs", "no longer run")] if health else []
    found += [_counted(noisy, "is slower", "are slower")] if noisy else []
    relative = len(rows.pop(RELATIVE_LATENCY.name, ()))
    found += (
        [_counted(relative, "is slower relative to its group", "are slower relative to their groups")]
        if relative
        else []
    )
    return found + [f"{_counted(len(ids), 'is worse', 'are worse')} in {metric}" for metric, ids in rows.items()]


def _family(verdict: Verdict) -> str:
    if verdict.kind.startswith("quality"):
        return "quality"
    if verdict.kind == "health" and invalid_now(verdict):
        return INVALID
    if verdict.metric == RELATIVE_LATENCY.name:
        return verdict.metric
    return verdict.kind if verdict.kind in {"health", "noisy"} else verdict.metric


def _counted(number: int, one: str, many: str) -> str:
    return f"{counted(number, 'row')} {one if number == 1 else many}"


def _rows(comparison: Comparison, which: Callable[[Verdict], bool]) -> int:
    return len({v.case_id for v in comparison.verdicts if v.gating and which(v)})


def ranked(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The most severe outcome first, and within it the largest change first."""
    return sorted(verdicts, key=lambda v: (SEVERITY.index(v.outcome), -abs((v.ratio or 1.0) - 1.0), v.label, v.metric))
