"""How fast a row is relative to another row of the same work, from the rounds in which both took turns.

Nothing else in a report divides the latencies of two rows. Rows that were measured one after the other have no ratio,
since the machine's speed may have changed between them: their latencies stand beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.ratios import Ratio
from reports.rows import Row, separable
from reports.section import ReportData
from reports.wording import ratio_text

LATENCY = "latency_s"


def relative_speed(row: Row, other: Row, data: ReportData) -> Ratio | None:
    """The paired ratio of two rows: 2.0 if `row` needs half the time of `other`. None if they are of different runs or
    groups, or have no rounds."""
    if row["run"] != other["run"]:
        return None
    return data.ratios[row["run"]].between(row["case_id"], other["case_id"])


def speed_text(ratio: Ratio) -> str:
    """'2.31x [2.27, 2.35]'."""
    return ratio_text(ratio.value, ratio.low, ratio.high)


def apart(row: Row, other: Row, data: ReportData) -> bool | None:
    """Whether the speeds of two rows are separable: the interval of their ratio excludes 1. Rows without a ratio are
    separable if the intervals of their latencies do not overlap. None without intervals."""
    ratio = relative_speed(row, other, data)
    return separable(row, other, LATENCY) if ratio is None else ratio.separable


def paired(rows: Sequence[Row]) -> bool:
    """Whether all of these rows have a speed relative to their reference."""
    return all(row.get("speedup") is not None for row in rows)


def by_speed(rows: Sequence[Row]) -> list[Row]:
    """Rows of equal work, the fastest first: by their speed relative to the reference if all have one, otherwise by
    latency."""
    if paired(rows):
        return sorted(rows, key=lambda row: -row["speedup"])
    return sorted(rows, key=lambda row: row[LATENCY])


def reference_speed(row: Row) -> str:
    """'2.31x [2.27, 2.35]' relative to the reference of the row's group, 'reference' for the reference itself, and ''
    if the row has no ratio."""
    if row.get("speedup") is None:
        return ""
    if row["speedup_reference"] == row["case_id"]:
        return "reference"
    return ratio_text(row["speedup"], row.get("speedup_low"), row.get("speedup_high"))


def measured_in_words(row: Row) -> str:
    """How the processes of a row were measured: 'once alone, then in 7 rounds in turns with rows of the same work'."""
    rounds = row.get("speedup_rounds")
    if not rounds:
        return "one process at a time" if row["replicates"] else ""
    how = (
        "in turns with rows of the same work"
        if row["speedup_simultaneous"]
        else "one process at a time, because these models do not fit into memory together"
    )
    return f"once alone, then in {rounds} {'round' if rounds == 1 else 'rounds'} {how}"
