"""The decision beside a run, and the row of it that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from baselines.verdict import Verdict
from benches.failures import UsageError
from harness.units import counted

COMPARISON_FILE: Final = "comparison.json"


def row_named(asked: str, verdicts: Sequence[Verdict]) -> Verdict:
    """The row that `asked` names: its id, or a part of its id or label that only one row has."""
    rows = {v.case_id: v for v in verdicts}
    return rows[id_named(asked, {case_id: v.label for case_id, v in rows.items()})]


def id_named(asked: str, labels: Mapping[str, str]) -> str:
    """The id, of those with labels, that `asked` names. Raises UsageError unless it names exactly one."""
    exact = [i for i, label in labels.items() if asked in {i, label}]
    found = exact or [i for i, label in labels.items() if asked in i or asked in label]
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(f"{i}  {labels[i]}" for i in found or labels)
    raise UsageError(f"explain: {asked!r} names {counted(len(found), 'row')}; give one of\n  {listed}")
