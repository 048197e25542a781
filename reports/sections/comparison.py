"""The comparison with the baseline: ratios with intervals, coloured by outcome, and every verdict with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from baselines.stored.relative_verdicts import RELATIVE_LATENCY
from baselines.verdict import OUTCOMES, Comparison, Verdict
from harness.types import Metric
from harness.units import MISSING, format_value, percent
from reports import charts, theme
from reports.conclusions import comparison_sentence
from reports.gate import ranked
from reports.rows import grouped
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section
from reports.templates import fragment
from reports.wording import ratio_text

MAX_ROWS = 60


@SECTIONS.add("comparison")
def comparison(data: ReportData) -> Section | NotShown:
    if not data.comparisons:
        return NotShown(title="Comparison with the baseline", reason="the report was made without a baseline")
    figures = [chart for c in data.comparisons for chart in _charts(c, data.metrics)]
    content = fragment("comparison.html", comparisons=[printed(c, data.metrics) for c in data.comparisons])
    sentences = " ".join(comparison_sentence(c) for c in data.comparisons)
    note = (
        f"{sentences.replace('**', '')} A ratio is this run divided by the baseline, with its 95 % interval. Below 1 "
        "is better if lower is better. “Inconclusive” means that the noise is too large for a decision. “Detectable "
        "from” is the smallest change that the comparison detects."
    )
    return Section(order=25, title="Comparison with the baseline", note=note, figures=tuple(figures), html=content)


def _charts(found: Comparison, metrics: Mapping[str, Metric]) -> list[Chart]:
    """A forest plot for each gated metric that has ratios with intervals."""
    having = [v for v in found.verdicts if v.ratio is not None and v.low is not None and v.high is not None]
    gated = [v for v in having if v.gating] or having
    several = len({v.metric for v in gated}) > 1
    return [
        Chart(
            title=f"{_label(name, metrics)} against {found.baseline}",
            figure=forest(ranked(verdicts)[:MAX_ROWS], _label(name, metrics)),
            note=f"{len(verdicts) - MAX_ROWS} more rows are in the list below." if len(verdicts) > MAX_ROWS else "",
            wide=not several,
        )
        for name, verdicts in grouped(gated, lambda v: v.metric).items()
    ]


def _label(name: str, metrics: Mapping[str, Metric]) -> str:
    described = {RELATIVE_LATENCY.name: RELATIVE_LATENCY, **metrics}
    return described[name].label if name in described else name


def short(label: str) -> str:
    """A row's label, abbreviated and without image size and guidance, because a heading shows 46 characters.

    >>> short("digits_dit · onnxruntime · fp32 · batch 8 · 32 px · dpmpp_2m · 10 steps · guidance 1.5")
    'digits_dit onnxruntime fp32 b8 dpmpp_2m 10 st.'
    """
    parts = [p for p in label.split(" · ") if not p.endswith(" px") and not p.startswith("guidance ")]
    return " ".join(parts).replace("batch ", "b").replace(" steps", " st.")


def forest(verdicts: Sequence[Verdict], label: str) -> go.Figure:
    """Ratios with intervals, one row per case and one trace per outcome; the dotted line is "no change"."""
    groups = grouped(verdicts, lambda v: short(v.label))
    axis = charts.row_axis({name: [_change(v) for v in group] for name, group in groups.items()})
    ordered = [verdict for group in groups.values() for verdict in group]
    figure = charts.figure(**axis.layout)
    for outcome in (o for o in OUTCOMES if any(v.outcome == o for v in ordered)):
        pairs = [(p, v) for p, v in zip(axis.places, ordered, strict=True) if v.outcome == outcome]
        figure.add_trace(_whiskers(outcome, pairs))
    figure.update_xaxes(title_text=charts.text(f"{label}: this run / baseline"), tickformat=".2~f")
    figure.add_vline(x=1, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    return figure


def _change(verdict: Verdict) -> str:
    return verdict.outcome.replace("_", " ") if verdict.ratio is None else percent(verdict.ratio - 1)


def _whiskers(outcome: str, pairs: Sequence[tuple[float, Verdict]]) -> go.Scatter:
    verdicts = [v for _, v in pairs]
    return go.Scatter(
        x=[v.ratio for v in verdicts],
        y=[place for place, _ in pairs],
        error_x={
            "type": "data", "symmetric": False, "thickness": 1.6, "width": 4,
            "array": [(v.high or 0.0) - (v.ratio or 0.0) for v in verdicts],
            "arrayminus": [(v.ratio or 0.0) - (v.low or 0.0) for v in verdicts],
        },
        mode="markers", marker={"size": 9, "color": theme.OUTCOMES[outcome], "symbol": "square"},
        name=outcome.replace("_", " "), hoverinfo="text",
        hovertext=[charts.lines(v.label, f"{v.outcome}: {v.reason}", _ratio(v)) for v in verdicts],
    )  # fmt: skip


def printed(found: Comparison, metrics: Mapping[str, Metric]) -> dict[str, object]:
    rows = [_row(v, metrics) for v in ranked(found.verdicts)]
    return {
        "title": f"{found.run_id} against {found.baseline}",
        "scope": found.scope,
        "sessions": found.sessions,
        "notes": (*(f"the run is contended: {reason}" for reason in found.contended), *found.notes),
        "differences": found.differences,
        "telling": [row for row in rows if row["outcome"] != "unchanged"],
        "unchanged": [row for row in rows if row["outcome"] == "unchanged"],
    }


def _row(verdict: Verdict, metrics: Mapping[str, Metric]) -> dict[str, str]:
    seen = verdict.minimum_detectable
    return {
        "outcome": verdict.outcome,
        "colour": theme.OUTCOMES[verdict.outcome],
        "label": verdict.label,
        "metric": _label(verdict.metric, metrics),
        "baseline": format_value(verdict.baseline, verdict.unit),
        "candidate": format_value(verdict.candidate, verdict.unit),
        "ratio": _ratio(verdict),
        "seen": MISSING if seen is None else percent(seen, ".1"),
        "reason": f"{verdict.reason}{'' if verdict.gating else ' (advisory)'}",
    }


def _ratio(verdict: Verdict) -> str:
    return MISSING if verdict.ratio is None else ratio_text(verdict.ratio, verdict.low, verdict.high)
