"""The page of a paired run: its result, the shift of each row, the controls, and the steps of each verdict.

    page.write(path, paired_page.build(decider, comparison))

Shifts are ln(head / base) of latency, shown in percent; a positive shift is slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from baselines.paired.decider import PairedDecider
from baselines.paired.question import Key, Question, Sensitivity
from baselines.paired.verdicts import AS_THINGS_ARE
from baselines.verdict import MEANINGS, Comparison, Verdict, exit_code, same_arms
from harness.paired.control_row import COPY
from harness.paired.paired_run import PairedRow, PairedRun
from harness.processes import threads
from harness.types import AXES
from harness.units import format_duration
from reports import charts, gate, theme
from reports.page.page import assembled
from reports.rows import axis_text
from reports.section import Chart, NotShown, Section
from reports.sections.comparison import printed, short
from reports.sections.environment import compared, flat, utc
from reports.templates import fragment

LATENCY: Final = "latency_s"
FEWEST: Final = 4
CONTROL: Final = "control"
COLOURS: Final = {**theme.OUTCOMES, CONTROL: theme.OUTCOMES["new"]}
PHASES: Final = {"screening pair": theme.NEUTRAL, "fresh pair": theme.OUTCOMES["new"]}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the charts: its latency question, and the outcome (or "control"), which gives its colour."""

    label: str
    question: Question
    outcome: str
    told: str


def build(decider: PairedDecider, comparison: Comparison, *, strict: bool = False) -> str:
    """The HTML page of a decider with all its processes, and of the comparison that it gave."""
    run = decider.run
    lines = _lines(decider, comparison)
    made: dict[str, Section | NotShown | None] = {
        "verdict": _verdict(comparison, strict),
        "shifts": _shifts(lines),
        "verdicts": _verdicts(comparison, run),
        "pairs": _pairs(lines),
        "how": _how(decider, comparison),
        "environment": _environment(run),
    }
    return assembled(
        made,
        title=f"{comparison.suite}: {'the same arm twice (A/A)' if same_arms(comparison) else 'base against head'}",
        eyebrow="Paired comparison",
        descriptions=[f"base: {run.arms[0]['text'] or AS_THINGS_ARE}; head: {run.arms[1]['text'] or AS_THINGS_ARE}"],
        runs=[_facts(decider)],
    )


def _verdict(comparison: Comparison, strict: bool) -> Section:
    code = exit_code(comparison, strict=strict)
    content = fragment(
        "paired_verdict.html",
        sentence=gate.sentence(comparison, strict),
        code=f"exit code {code}: {MEANINGS[code]}",
        contended=comparison.contended,
        notes=comparison.notes,
    )
    return Section(order=0, title="Result", html=content)


def _shifts(lines: Sequence[Line]) -> Section | NotShown:
    shown = [line for line in lines if len(line.question.best()) >= FEWEST]
    if not shown:
        return NotShown(title="Shift of each row", reason=f"no row has {FEWEST} pairs")
    chart = Chart(title="Latency of head against base", figure=_forest(shown), wide=True)
    note = (
        "Each mark is the trimmed mean of a row's pairs with its 95 % interval. For a confirmed change, it is the "
        "Hodges-Lehmann estimate of the fresh pairs with its rank interval. A positive shift is slower. A shift inside "
        "the dark band is not called a change. A row is unchanged if its 99 % interval is inside the light band. "
        "Controls run the same code in both arms, or work that no arm can change."
    )
    return Section(order=10, title="Shift of each row", note=note, figures=(chart,))


def _forest(lines: Sequence[Line]) -> go.Figure:
    rows = [line for line in lines if line.outcome != CONTROL]
    estimates = {id(line): line.question.estimate() for line in lines}
    rows.sort(key=lambda line: -estimates[id(line)][0])
    controls = [line for line in lines if line.outcome == CONTROL]
    groups = {"": [line.label for line in rows], "controls": [line.label for line in controls]}
    axis = charts.row_axis({heading: labels for heading, labels in groups.items() if labels})
    figure = charts.figure(**axis.layout)
    usual = Sensitivity()
    for size, opacity in ((usual.guarantee, 0.10), (usual.floor, 0.16)):
        figure.add_vrect(x0=-100 * size, x1=100 * size, fillcolor=theme.NEUTRAL, opacity=opacity, line_width=0)
    figure.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    placed = list(zip(axis.places, [*rows, *controls], strict=True))
    for outcome in dict.fromkeys(line.outcome for _, line in placed):
        mine = [(place, line, estimates[id(line)]) for place, line in placed if line.outcome == outcome]
        figure.add_trace(
            go.Scatter(
                x=[percent(e[0]) for _, _, e in mine],
                y=[place for place, _, _ in mine],
                error_x={
                    "type": "data", "symmetric": False, "thickness": 1.6, "width": 4,
                    "array": [percent(e[2]) - percent(e[0]) for _, _, e in mine],
                    "arrayminus": [percent(e[0]) - percent(e[1]) for _, _, e in mine],
                },
                mode="markers", name=outcome.replace("_", " "), hoverinfo="text",
                marker={"size": 9, "color": COLOURS[outcome], "symbol": "diamond" if outcome == CONTROL else "square"},
                hovertext=[charts.lines(line.label, line.told) for _, line, _ in mine],
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="head against base (%), positive is slower", ticksuffix=" %")
    return figure


def _pairs(lines: Sequence[Line]) -> Section | NotShown:
    """Every kept pair of every row, which shows the noise behind the verdicts."""
    rows = [line for line in lines if line.question.screened]
    if not rows:
        return NotShown(title="Every pair", reason="no pair was measured")
    axis = charts.row_axis({"": [line.label for line in rows]})
    figure = charts.figure(**axis.layout)
    for name, colour in PHASES.items():
        found = [
            (percent(value), place, number)
            for place, line in zip(axis.places, rows, strict=True)
            for number, value in enumerate(_values(line.question, name), start=1)
        ]
        if not found:
            continue
        figure.add_trace(
            go.Scatter(
                x=[x for x, _, _ in found], y=[y for _, y, _ in found], mode="markers", name=name, hoverinfo="text",
                marker={"size": 7, "color": colour, "opacity": 0.55},
                hovertext=[f"{name} {number}: {x:+.2f} %" for x, _, number in found],
            )
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="head against base (%), positive is slower", ticksuffix=" %")
    note = (
        "Each mark is one pair of fresh processes. Screening pairs raise a suspicion. Fresh pairs, measured after it, "
        "must confirm it, alone or together with the screening pairs. Contended pairs are left out."
    )
    return Section(order=30, title="Every pair", note=note, figures=(Chart(title="Latency", figure=figure, wide=True),))


def _values(question: Question, phase: str) -> list[float]:
    return question.confirmed if phase == "fresh pair" else question.screened


def _verdicts(comparison: Comparison, run: PairedRun) -> Section:
    content = fragment("comparison.html", comparisons=[{**printed(comparison, run.metrics), "notes": (), "title": ""}])
    note = "Every metric of every row. “Detectable from” is the smallest change that as many pairs detect."
    return Section(order=20, title="Verdicts", note=note, html=content)


def _how(decider: PairedDecider, comparison: Comparison) -> Section:
    rows = []
    for row in decider.run.rows:
        steps = []
        for verdict in (v for v in comparison.verdicts if v.case_id == row.id):
            question = decider.decision.questions.get(Key(row=row.id, metric=verdict.metric))
            looks = question.looks if question is not None else []
            steps.append((f"{verdict.metric}: {verdict.outcome.replace('_', ' ')}", str(verdict.reason), looks))
        dropped = [f"{number} pairs left out: {reason}" for reason, number in decider.left_out(row.id).items()]
        rows.append({"label": row.label, "steps": steps, "dropped": dropped})
    content = fragment("paired_how.html", rows=rows)
    return Section(order=40, title="Steps of each verdict", html=content)


def _environment(run: PairedRun) -> Section:
    machine = {k: v for k, v in flat(run.environment).items() if not k.startswith("versions.")}
    versions = flat(run.environment.get("versions") or {})
    tables = [("Machine", compared([machine])), ("Versions of the base", compared([versions]))]
    content = fragment("environment.html", tables=[t for t in tables if t[1]], names=[""])
    return Section(order=90, title="Environment", html=content)


def _facts(decider: PairedDecider) -> dict[str, Any]:
    run, count = decider.run, decider.decision.count()
    facts = {
        "Device": run.environment.get("device_name") or run.device,
        "Threads": threads.in_words(run.environment) or run.threads,
        "Measured": utc(run.created),
        "Budget": format_duration(run.budget_s),
        "Rows": len(run.rows),
        "Pairs": f"{count.kept} kept, {count.dropped} left out",
        "Fork servers": "one for both arms" if run.shared_server else "one for each arm",
        "Ended": run.ended or "interrupted",
    }
    return {
        "name": "", "id": run.id, "problems": (), "unfinished": run.finished is None,
        "facts": [(key, str(value)) for key, value in facts.items()],
    }  # fmt: skip


def _lines(decider: PairedDecider, comparison: Comparison) -> list[Line]:
    """The timed rows in the order of the suite, then the controls."""
    verdicts = {v.case_id: v for v in comparison.verdicts if v.metric == LATENCY}
    questions = decider.decision.questions
    found = []
    labels = short_labels(decider.run.rows)
    for row in decider.run.rows:
        question, verdict = questions.get(Key(row=row.id, metric=LATENCY)), verdicts.get(row.id)
        if question is not None and verdict is not None:
            found.append(Line(label=labels[row.id], question=question, outcome=verdict.outcome, told=_told(verdict)))
    for question in questions.values():
        if question.control and (question.key.row != COPY or question.key.metric == LATENCY):
            label = (
                "A/A: base against itself" if question.key.row == COPY else f"control workload: {question.key.metric}"
            )
            found.append(Line(label=label, question=question, outcome=CONTROL, told=f"{len(question.best())} pairs"))
    return found


def short_labels(rows: Sequence[PairedRow]) -> dict[str, str]:
    """Row id -> its model, the axes in which the rows of this run differ, and the values of the head."""
    values = {axis: {getattr(row.base, axis) for row in rows} - {None} for axis in AXES}
    varying = [axis for axis in AXES if axis != "model" and len(values[axis]) > 1]
    found = {}
    for row in rows:
        parts = [axis_text(axis, getattr(row.base, axis)) for axis in varying if getattr(row.base, axis) is not None]
        _, arrow, head = row.label.partition(" → ")
        found[row.id] = short(" · ".join([row.base.model, *parts])) + (f"{arrow}{head}" if arrow else "")
    return found


def _told(verdict: Verdict) -> str:
    return f"{verdict.outcome.replace('_', ' ')}: {verdict.reason}"


def percent(shift: float) -> float:
    """A shift in log ratio as percent."""
    return 100 * math.expm1(shift)
