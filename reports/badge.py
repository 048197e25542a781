"""A comparison as a badge: the JSON that shields.io's endpoint reads. Pure. It never says more than was shown."""

from __future__ import annotations

import json

from baselines.verdict import CONTAMINATED, FINE, NOTHING_MEASURED, QUALITY_REGRESSED, REGRESSED, Comparison, exit_code


def badge(comparison: Comparison) -> str:
    """The JSON document of shields.io's endpoint schema 1."""
    message, color = _state(comparison)
    document = {"schemaVersion": 1, "label": f"imgbench {comparison.suite}", "message": message, "color": color}
    return json.dumps(document, ensure_ascii=False) + "\n"


def _state(comparison: Comparison) -> tuple[str, str]:
    if comparison.absent:
        return "no baseline", "lightgrey"
    if comparison.refused:
        return "not comparable", "lightgrey"
    code = exit_code(comparison)
    gating = [v for v in comparison.verdicts if v.gating]
    regressed = len({v.case_id for v in gating if v.outcome == "regressed"})
    if code == QUALITY_REGRESSED:
        return f"quality regressed in {regressed} row{'s' if regressed > 1 else ''}", "red"
    if code == REGRESSED:
        return f"regressed in {regressed} row{'s' if regressed > 1 else ''}", "red"
    if code == CONTAMINATED:
        return "contaminated", "yellow"
    if code == NOTHING_MEASURED:
        return "nothing measured", "lightgrey"
    if code != FINE:
        return "not comparable", "orange"
    rows = {v.case_id for v in gating}
    unclear = {v.case_id for v in gating if v.outcome in {"inconclusive", "new"}}
    if unclear:
        return f"{len(rows - unclear)} of {len(rows)} rows not slower", "yellow"
    timed = [v.gating for v in comparison.verdicts if v.kind == "noisy"]
    if timed and not any(timed):
        return "speed not judged yet", "lightgrey"
    return f"not slower ({len(rows)} rows)", "brightgreen"
