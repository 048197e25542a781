"""A comparison as a badge: the JSON that shields.io's endpoint reads. Pure."""

from __future__ import annotations

import json

from baselines.verdict import CONTENDED, FINE, NOTHING_MEASURED, QUALITY_REGRESSED, REGRESSED, Comparison, exit_code
from harness.units import counted
from reports import gate


def badge(comparison: Comparison) -> str:
    """The JSON document of shields.io's endpoint schema 1."""
    message, color = _state(comparison)
    document = {"schemaVersion": 1, "label": f"imgbench {comparison.suite}", "message": message, "color": color}
    return json.dumps(document, ensure_ascii=False) + "\n"


def _state(comparison: Comparison) -> tuple[str, str]:
    if comparison.absent:
        return "no baseline", "lightgrey"
    if comparison.refused:
        return "error" if comparison.error else "not comparable", "lightgrey"
    code = exit_code(comparison)
    regressed = [v for v in comparison.verdicts if v.gating and v.outcome == "regressed"]
    if code == QUALITY_REGRESSED:
        rows = {v.case_id for v in regressed if v.kind.startswith("quality")}
        return f"quality regressed in {counted(len(rows), 'row')}", "red"
    if code == REGRESSED:
        return f"regressed in {counted(len({v.case_id for v in regressed}), 'row')}", "red"
    if code == CONTENDED:
        return "contended", "yellow"
    if code == NOTHING_MEASURED:
        return "nothing measured", "lightgrey"
    if code != FINE:
        return "not comparable", "orange"
    not_slower, undecided = gate.speed_rows(comparison)
    if undecided and not not_slower:
        return "inconclusive", "yellow"
    if undecided:
        return f"{len(not_slower)} of {len(not_slower | undecided)} rows not slower", "yellow"
    if not not_slower:
        return "speed undecided", "lightgrey"
    return f"not slower ({counted(len(not_slower), 'row')})", "brightgreen"
