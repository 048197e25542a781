"""The speed of each row relative to its reference, as columns of the cases frame.

A speedup is a ratio of `harness.ratios`: both rows took turns in the same rounds. Two rows that were measured one after
the other have none, because the machine's speed may have changed between them; the row has the reason instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness.comparison_groups import Group, groups
from harness.ratios import Ratio, Ratios, ratios
from harness.reasons import Reason
from harness.types import Case, Protocol, Run

SPEEDUP: Final = "speedup"
COLUMNS: Final = (
    SPEEDUP,
    "speedup_low",
    "speedup_high",
    "speedup_reference",
    "speedup_rounds",
    "speedup_reached",
    "speedup_simultaneous",
)

ALONE: Final = "only_row_of_its_group"  # the reason of a row without another valid row of the same work

Cells = Mapping[str, Any]


def speedups(run: Run) -> dict[str, tuple[Cells, Reason | None]]:
    """Case id -> its cells of COLUMNS as far as they are known, and the reason if it has no speedup. Cases without a
    valid process are absent.

    `speedup` is 2.0 if the row needs half the time of its reference, whose case id is `speedup_reference`; the
    reference itself has 1.0 by definition, without an interval. `speedup_rounds` is the number of rounds behind it,
    `speedup_reached` whether its 95 % interval is within the protocol's `ratio_interval` (None without one), and
    `speedup_simultaneous` whether the processes of these rounds took turns (False: one process at a time).
    """
    valid = {m.case.id for m in (*run.measurements, *run.superseded) if m.status == "ok"}
    found = ratios(run)
    return {case.id: _cells(case, group, found, run) for group in groups(run.cases, valid) for case in group.cases}


def _cells(case: Case, group: Group, found: Ratios, run: Run) -> tuple[Cells, Reason | None]:
    if case == group.reference:
        return _of_reference(group, found, run)
    ratio = found.of.get(case.id)
    if ratio is None:
        return {}, _absent(group, run)
    return {
        SPEEDUP: ratio.value,
        **({} if ratio.low is None else {"speedup_low": ratio.low, "speedup_high": ratio.high}),
        "speedup_reference": group.id,
        "speedup_rounds": ratio.rounds,
        "speedup_reached": reached(ratio, run.protocol),
        "speedup_simultaneous": ratio.simultaneous,
    }, None


def _of_reference(group: Group, found: Ratios, run: Run) -> tuple[Cells, Reason | None]:
    rounds = sum(group.id in each.rows for each in found.rounds.values())
    mine = [found.of[case.id] for case in group.others if case.id in found.of]
    with_copy = found.controls.get(group.id)
    in_turns = [ratio.simultaneous for ratio in (*mine, with_copy) if ratio is not None]
    how = {"speedup_rounds": rounds, "speedup_simultaneous": all(in_turns)} if rounds and in_turns else {}
    if not mine:
        return how, _absent(group, run)
    return {SPEEDUP: 1.0, "speedup_reference": group.id, **how}, None


def reached(ratio: Ratio, protocol: Protocol) -> bool | None:
    """Whether the interval of a ratio is within the protocol's `ratio_interval`; None if the protocol has none."""
    if protocol.ratio_interval is None:
        return None
    return ratio.half_width is not None and ratio.half_width <= protocol.ratio_interval


def _absent(group: Group, run: Run) -> Reason:
    """Why a valid row has no speedup."""
    if not group.others:
        return Reason(ALONE)
    if not run.protocol.rounds or run.protocol.replicates == 1:
        return Reason("not_in_rounds")
    return Reason("no_round", {"reference": group.reference.label, "stopped": run.finished is None})
