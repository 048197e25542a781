"""The decision beside a run, and the row of it that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from baselines.verdict import Verdict
from benches.failures import UsageError

COMPARISON_FILE: Final = "comparison.json"


def row_named(asked: str, verdicts: Sequence[Verdict]) -> Verdict:
    """The row that `asked` names: its id, or a part of its id or label that only one row has."""
    rows = list({v.case_id: v for v in verdicts}.values())
    exact = [v for v in rows if asked in {v.case_id, v.label}]
    found = exact or [v for v in rows if asked in v.case_id or asked in v.label]
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(f"{v.case_id}  {v.label}" for v in found or rows)
    raise UsageError(f"explain: {asked!r} names {len(found)} rows; give one of\n  {listed}")
