"""How precise the ratios of each group are: its A/A control, its rounds, and the rows not within the target."""

from __future__ import annotations

import pandas as pd

from harness.units import MISSING
from reports.precision_of_ratios import Control, controls, percent, unreached
from reports.relative_speed import speed_text
from reports.rows import WORK, Row, engine
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.wording import ratio_text

TITLE = "Precision of the ratios"
NOTE = (
    "A ratio comes from rounds: in a round, fresh processes of the rows of a group and of its reference take turns, so "
    "that changes of the machine's speed cancel. Rounds go on until the 95 % interval of each ratio is within the "
    "target of the protocol, or until the budget is spent. A second copy of the reference takes part as well (A/A "
    "control): its true speed is 1x. A difference of two rows of the group that is smaller than the farther bound of "
    "this control cannot be seen in this run."
)


@SECTIONS.add("ratios")
def ratios(data: ReportData) -> Section | NotShown:
    """One line for each group that has a control."""
    found = controls(data)
    if not found:
        return NotShown(title=TITLE, reason="no round with a second copy of a reference was measured")
    wide = unreached(data)
    return Section(order=37, title=TITLE, note=NOTE, table=pd.DataFrame([_line(each, wide) for each in found]))


def _line(control: Control, wide: list[Row]) -> dict[str, str]:
    row, ratio, limit = control.reference, control.ratio, control.invisible
    mine = [each for each in wide if all(each[axis] == row[axis] for axis in (*WORK, "batch_size"))]
    return {
        "Group": " · ".join(filter(None, [row["run"], control.group])),
        "Reference": engine(row),
        "A/A ratio": speed_text(ratio),
        "Rounds": str(ratio.rounds),
        "Not visible": MISSING if limit is None else f"less than ±{percent(limit)}",
        "Measured": "in turns" if ratio.simultaneous else "one process at a time",
        "Ratios not within the target": "; ".join(map(_wide, mine)) or "none",
    }


def _wide(row: Row) -> str:
    """'onnxruntime int8 2.31x [2.1, 2.5]'."""
    return f"{engine(row)} {ratio_text(row['speedup'], row.get('speedup_low'), row.get('speedup_high'))}"
