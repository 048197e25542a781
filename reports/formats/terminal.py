"""Tables of a run and of a comparison for a terminal. Frame or verdicts in, a rich table out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from baselines.verdict import Comparison, same_arms
from harness.frames import cases_frame
from harness.speedups import SPEEDUP
from harness.types import Run
from harness.units import MISSING, format_value, percent
from reports.precision_of_ratios import precision_sentences
from reports.records import records
from reports.relative_speed import reference_speed
from reports.section import ReportData
from reports.wording import cosine_text, outcomes_text

WIDE = 130
COSINE = "cosine_similarity"
SECONDARY = ("image_size", "guidance_scale")
QUALITY_COLUMNS = (("top1", "share"), ("recognised", "share"), ("fid", "1"), (COSINE, "1"))
SHOWN = ("latency_s", "throughput", *(name for name, _ in QUALITY_COLUMNS), SPEEDUP)  # what `table` reads
HEADS = {"top1": "top-1", "recognised": "recognised", "fid": "FID", COSINE: "cosine"}
STYLES = {
    "regressed": "red",
    "improved": "green",
    "missing": "red",
    "not_comparable": "yellow",
    "inconclusive": "yellow",
}


def table(cases: pd.DataFrame, width: int = WIDE) -> Table:
    """One line per case: p50 with its 95 % interval, speed relative to the reference of the same work with its
    interval, throughput, quality, and status with kinds of warnings or reason.

    A terminal narrower than WIDE columns shows only the case, its p50, its speed without the interval, and its status.
    A table in which no row has a speed has no such column.
    """
    if width < WIDE:
        return _narrow(cases)
    shown = [(name, unit) for name, unit in QUALITY_COLUMNS if name in cases and cases[name].notna().any()]
    out = Table(box=None, pad_edge=False, header_style="bold")
    speeds = _has_speeds(cases)
    heads = ("case", "p50", "95 %", *(["speed"] if speeds else []), "image/s", *(HEADS[name] for name, _ in shown))
    for head in (*heads, "status"):
        out.add_column(head, justify="left" if head in {"case", "status"} else "right", overflow="fold")
    fixed = _fixed_axes(cases)
    for row in records(cases):
        cells = [_label(row, fixed), _value(row, "latency_s", "s"), _interval(row)]
        cells += [reference_speed(row) or MISSING] if speeds else []
        cells.append(_value(row, "throughput", "1"))
        cells += [_cosine(row) if name == COSINE else _value(row, name, unit) for name, unit in shown]
        out.add_row(*(Text(c) for c in cells), _status(row))
    return out


def _narrow(cases: pd.DataFrame) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("case", ratio=1)
    out.add_column("p50", justify="right", no_wrap=True)
    speeds = _has_speeds(cases)
    if speeds:
        out.add_column("speed", justify="right", no_wrap=True)
    out.add_column("status", max_width=26)
    fixed = _fixed_axes(cases)
    for row in records(cases):
        speed = [Text(reference_speed(row).partition(" ")[0] or MISSING)] if speeds else []
        out.add_row(Text(_label(row, fixed)), Text(_value(row, "latency_s", "s")), *speed, _status(row))
    return out


def _has_speeds(cases: pd.DataFrame) -> bool:
    return SPEEDUP in cases and bool(cases[SPEEDUP].notna().any())


def speed_notes(run: Run, cases: pd.DataFrame) -> list[str]:
    """What to read below the table of a run (`cases`): what the speeds are relative to, and how precise they are; for a
    run without rounds, why there are none."""
    data = ReportData(runs=(run,), cases=cases.assign(run=""), samples=pd.DataFrame(), metrics={})
    told = ["speed: relative to the row of the same work that is marked reference"] if _has_speeds(cases) else []
    return told + [sentence.replace("**", "") for sentence in precision_sentences(data)]


def speed_lines(run: Run) -> list[str]:
    """One line for each row of a run that has a speed relative to another one, and the notes on all of them."""
    cases = cases_frame(run, [SPEEDUP])
    rows = records(cases)
    labels = {row["case_id"]: row["label"] for row in rows}
    lines = [
        f"{row['label']}: {reference_speed(row)} the speed of {labels[row['speedup_reference']]}"
        for row in rows
        if row[SPEEDUP] is not None and row["speedup_reference"] != row["case_id"]
    ]
    return [*lines, *speed_notes(run, cases)[1 if lines else 0 :]]


def verdicts(comparison: Comparison) -> Table:
    """One line for each verdict that is not "unchanged", and for each latency, because its detectable change is part of
    the result. The headline counts the other unchanged ones."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("case", "metric", "baseline", "now", "ratio", "detectable", "verdict"):
        out.add_column(head, overflow="fold")
    for v in (v for v in comparison.verdicts if v.outcome != "unchanged" or v.kind == "noisy"):
        ratio = MISSING if v.ratio is None else f"{v.ratio:.3f}"
        if v.low is not None and v.high is not None:
            ratio += f" [{v.low:.3f}, {v.high:.3f}]"
        if v.pairs is not None:
            dropped = f", {v.dropped} dropped" if v.dropped else ""
            ratio += f" ({v.pairs} pairs{dropped})"
        seen = MISSING if v.minimum_detectable is None else percent(v.minimum_detectable, ".1")
        verdict = Text(f"{v.outcome}{'' if v.gating else ' (advisory)'}: {v.reason}", style=STYLES.get(v.outcome, ""))
        values = (format_value(v.baseline, v.unit), format_value(v.candidate, v.unit))
        out.add_row(Text(v.label), Text(v.metric), *(Text(x) for x in values), ratio, seen, verdict)
    return out


def _fixed_axes(cases: pd.DataFrame) -> dict[str, set[str]]:
    """Model -> those of its secondary axes that have one value in all of its rows."""
    counts = cases.groupby("model")[list(SECONDARY)].nunique(dropna=False)
    return {str(model): {axis for axis in SECONDARY if row[axis] <= 1} for model, row in counts.iterrows()}


def _label(row: Mapping[str, Any], fixed: Mapping[str, set[str]]) -> str:
    """The row's label without the parts that are equal in all rows of its model."""
    shared = {
        f"{row['image_size']:g} px" if "image_size" in fixed[row["model"]] and pd.notna(row["image_size"]) else "",
        f"guidance {row['guidance_scale']:g}"
        if "guidance_scale" in fixed[row["model"]] and pd.notna(row["guidance_scale"])
        else "",
    }
    return " · ".join(part for part in str(row["label"]).split(" · ") if part not in shared)


def _value(row: Mapping[str, Any], name: str, unit: str) -> str:
    value = row.get(name)
    return format_value(None if value is None or pd.isna(value) else float(value), unit)


def _cosine(row: Mapping[str, Any]) -> str:
    """The cosine, and the floor of the row's precision."""
    text = cosine_text(row.get(COSINE))
    return text if MISSING in (text, _value(row, "cosine_floor", "1")) else f"{text} (>= {row['cosine_floor']:g})"


def _interval(row: Mapping[str, Any]) -> str:
    low, high = (_value(row, f"latency_s_{end}", "s") for end in ("low", "high"))
    return "" if MISSING in (low, high) else f"{low} to {high}"


def _status(row: Mapping[str, Any]) -> Text:
    if row["status"] == "ok":
        kinds = dict.fromkeys(row["warnings"])
        return Text(", ".join(["ok", *kinds]), style="yellow" if kinds else "green")
    return Text(f"{row['status']}: {row['reason']}", style="dim" if row["status"] == "skipped" else "red")


def headline(comparison: Comparison) -> str:
    """The comparison in one line: its baseline, and the number of verdicts of each outcome.

    "compared with digits-20261122 (all, 1 session): 2 regressed, 140 unchanged"
    """
    if comparison.refused:
        return f"not compared: {'; '.join(map(str, comparison.refused))}"
    told = ", ".join(outcomes_text(comparison.verdicts)) or "nothing to compare"
    if comparison.rule == "paired":
        disarmed = "the run is contended, so nothing is decided about speed: " if comparison.contended else ""
        what = "A/A, both arms are the same" if same_arms(comparison) else "head against base"
        return f"{what}: {disarmed}{told}"
    sessions = f"{comparison.sessions} session{'s' if comparison.sessions != 1 else ''}"
    return f"compared with {comparison.baseline} ({comparison.scope}, {sessions}): {told}"
