"""What the ratios of a run can show: the A/A control of each group, and the ratios whose interval is too wide.

In each group a second copy of the reference takes turns with it. Their true ratio is 1. So what was measured of it,
with its interval, is a difference that two rows of the group may have without any difference of speed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.ratios import Ratio
from harness.speedups import SPEEDUP
from harness.units import counted
from reports.rows import WORK, Row, varying, work_label
from reports.section import ReportData


@dataclass(frozen=True, kw_only=True)
class Control:
    """The A/A control of a group: its name, its reference row, and the ratio of the second copy to the reference."""

    group: str
    reference: Row
    ratio: Ratio

    @property
    def invisible(self) -> float | None:
        """The relative difference up to which two rows of the group cannot be told apart: the bound of the interval
        that is farther from 1. None without an interval."""
        if self.ratio.low is None or self.ratio.high is None:
            return None
        return math.expm1(max(-math.log(self.ratio.low), math.log(self.ratio.high)))


def controls(data: ReportData) -> list[Control]:
    """The A/A control of each group of each run that has one, in the order of the rows."""
    by_id = {(row["run"], row["case_id"]): row for row in data.rows}
    found = [
        (by_id[name, reference], ratio)
        for name, ratios in data.ratios.items()
        for reference, ratio in ratios.controls.items()
    ]
    rows = [row for row, _ in found]
    axes = [axis for axis in (*WORK, "batch_size") if axis == "model" or axis in varying(rows, (axis,))]
    return [Control(group=work_label(row, axes), reference=row, ratio=ratio) for row, ratio in found]


def unreached(data: ReportData) -> list[Row]:
    """The rows whose ratio has a wider interval than the protocol asks for."""
    return [row for row in data.rows if row["status"] == "ok" and row.get("speedup_reached") is False]


def precision_sentences(data: ReportData) -> Iterator[str]:
    """What the page says at its top about the ratios of its runs."""
    for name in data.aliases:
        if not data.ratios[name].rounds:
            yield from _without_rounds(name, data)
    yield from _invisible(data)
    yield from _unreached(data)


def _without_rounds(name: str, data: ReportData) -> Iterator[str]:
    """Why no two rows of a run have a ratio; nothing if no two rows do the same work."""
    kinds = {(row["missing_kinds"] or {}).get(SPEEDUP) for row in data.rows if row["run"] == name}
    which = f" of run {name}" if name else ""
    if "not_in_rounds" in kinds:
        yield (
            f"**The rows{which} were measured one after the other**, so there is no ratio of two rows: it would "
            "contain the changes of the machine's speed between them."
        )
    elif "no_round" in kinds:
        yield f"**No round{which} was measured**, so there is no ratio of two rows."


def _invisible(data: ReportData) -> Iterator[str]:
    """The smallest and the largest difference that a group cannot show."""
    limits = {control.group: limit for control in controls(data) if (limit := control.invisible) is not None}
    if not limits:
        return
    least, most = min(limits, key=limits.__getitem__), max(limits, key=limits.__getitem__)
    reach = f"±{percent(limits[most])}" if least == most else f"±{percent(limits[least])} to ±{percent(limits[most])}"
    where = "" if least == most else f" (at {least} and at {most})"
    yield (
        f"**Two rows of the same work that differ by less than {reach}** cannot be told apart{where}: the 95 % "
        "interval of the ratio of a second copy of the reference to the reference extends as far."
    )


def _unreached(data: ReportData) -> Iterator[str]:
    wide = unreached(data)
    if not wide:
        return
    known = [row for row in data.rows if row.get("speedup_reached") is not None]
    targets = sorted({run.protocol.ratio_interval for run in data.runs if run.protocol.ratio_interval is not None})
    target = " or ".join(f"±{percent(value)}" for value in targets)
    verb = "is" if len(wide) == 1 else "are"
    yield (
        f"**{len(wide)} of {counted(len(known), 'ratio')} {verb} not within {target}**: the rounds ended before, "
        "because the budget of the run was spent or the row had as many rounds as a row can have."
    )


def percent(share: float) -> str:
    """'2.4 %', with two digits.

    >>> percent(0.0241), percent(0.126)
    ('2.4 %', '13 %')
    """
    return f"{100 * share:.2g} %"
