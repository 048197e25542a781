"""What imgbench itself costs an iteration, by backend, and the rows for which that is more than a hundredth."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness import overhead as costs
from harness.reasons import Reason
from harness.types import Run
from harness.units import MISSING, format_value
from reports.rows import Row, warnings_of
from reports.section import SECTIONS, NotShown, ReportData, Section

TITLE = "What imgbench itself costs an iteration"
SHOWN = 4  # rows named in a cell


@SECTIONS.add("overhead")
def overhead(data: ReportData) -> Section | NotShown:
    lines = [
        line
        for run, name in zip(data.runs, data.aliases, strict=True)
        for line in _lines(run, name, [row for row in data.rows if row["run"] == name])
    ]
    if not lines:
        return NotShown(title=TITLE, reason="no run measured the model null")
    table = pd.DataFrame(lines, columns=["Run", "Backend", "Seconds per iteration", "Rows that it matters for"])
    note = (
        "The latency of the model null, which does no work, in fp32 at batch 1: calling the backend, moving inputs and "
        "outputs across its border, and counting the calls. It matters for a row whose iteration takes less than "
        f"{costs.FEWEST} times as long; such a row has the warning overhead."
    )
    return Section(order=78, title=TITLE, note=note, table=table if len(data.runs) > 1 else table.drop(columns="Run"))


def _lines(run: Run, name: str, rows: Sequence[Row]) -> list[list[str]]:
    """A line of the table for each backend whose overhead the run measured or tried to measure."""
    return [
        [name, backend, *_cells(found, [row for row in rows if row["backend"] == backend])]
        for backend, found in costs.by_backend(run).items()
    ]


def _cells(found: float | Reason, rows: Sequence[Row]) -> tuple[str, str]:
    if isinstance(found, Reason):
        return f"{MISSING} ({found})", MISSING
    labels = [str(row["label"]) for row in rows if any(kind == "overhead" for kind, _ in warnings_of(row))]
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    named = f": {'; '.join(labels[:SHOWN])}{more}" if labels else ""
    return format_value(found, "s"), f"{len(labels)} of {len(rows)}{named}"
