"""Stored decisions: the comparison beside a run, read back, and the fields in which two of them differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from baselines.verdict import Comparison, Verdict
from benches.failures import UsageError
from harness import storage, strict_json
from harness.stored_types import check

COMPARISON_FILE = "comparison.json"


class StoredVerdict(TypedDict):
    """The keys of a stored verdict that are read."""

    case_id: str
    metric: str
    outcome: str


class StoredComparison(TypedDict, total=False):
    """The keys of a stored comparison that are read."""

    considered: list[str]
    notes: list[str]
    max_age_days: float | None
    allow_new: bool
    verdicts: list[StoredVerdict]


def stored_json(path: Path) -> dict[str, Any]:
    """A stored comparison. Raises UnreadableRun."""
    try:
        found = strict_json.read(path)
    except OSError as error:
        raise storage.UnreadableRun(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise storage.UnreadableRun(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise storage.UnreadableRun(f"{path}: not a comparison")
    try:
        check(found, StoredComparison, "comparison")
    except ValueError as error:
        raise storage.UnreadableRun(f"{path}: {error}") from None
    return found


def stored_text(path: Path) -> str:
    """The text of a stored comparison. Raises UnreadableRun if the file does not hold one."""
    stored_json(path)
    return path.read_text(encoding="utf-8")


def as_json(comparison: Comparison) -> str:
    return json.dumps(asdict(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def row_named(asked: str, verdicts: Sequence[Verdict]) -> Verdict:
    """The row that `asked` names: its id, or a part of its id or label that only one row has."""
    rows = list({v.case_id: v for v in verdicts}.values())
    exact = [v for v in rows if asked in {v.case_id, v.label}]
    found = exact or [v for v in rows if asked in v.case_id or asked in v.label]
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(f"{v.case_id}  {v.label}" for v in found or rows)
    raise UsageError(f"explain: {asked!r} names {len(found)} rows; give one of\n  {listed}")


def changes(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The fields in which two stored comparisons differ, in words."""
    found = [
        f"{k}: {there.get(k)!r} stored, {here.get(k)!r} now"
        for k in here
        if k != "verdicts" and there.get(k) != here[k]
    ]
    stored = {(v["case_id"], v["metric"]): v for v in there.get("verdicts", [])}
    for verdict in here["verdicts"]:
        before = stored.get((verdict["case_id"], verdict["metric"]))
        if before != verdict:
            outcome = before["outcome"] if before else "absent"
            found.append(f"{verdict['label']} {verdict['metric']}: {outcome} stored, {verdict['outcome']} now")
    return found
