"""The findings as sentences: a card per model with its fastest valid row, and the state of the whole run."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from markupsafe import Markup

from harness.units import counted
from reports import conclusions as findings
from reports import pareto as fronts
from reports import theme
from reports.pareto import Front
from reports.relative_speed import relative_speed
from reports.rows import Row, engine
from reports.section import SECTIONS, ReportData, Section
from reports.templates import fragment
from reports.wording import ratio_text, value_text


@dataclass(frozen=True, kw_only=True)
class Card:
    """The findings on a model, as the template prints them."""

    model: str
    run: str
    weights: str
    value: str
    caption: str
    speedup: str
    against: str
    colour: str
    sentences: tuple[Markup, ...]


@SECTIONS.add("headline")
def headline(data: ReportData) -> Section:
    """The section of findings, which an empty run has, too."""
    counts = findings.status_counts(data)
    bar = [(findings.status_words(s), n, theme.STATUSES[s]) for s, n in counts.items()]
    trades = [_front_sentence(front) for front in fronts.fronts(data) if front.metric.kind == "quality_item"]
    models = findings.model_findings(data)
    content = fragment(
        "headline.html",
        overview=[emphasised(s) for s in findings.overview(data)],
        bar=bar,
        total=max(1, sum(counts.values())),
        cards=[_card(found, data) for found in models if not is_single(found)],
        singles=[_single(found, data) for found in models if is_single(found)],
        fronts=[emphasised(s) for s in trades],
    )
    return Section(order=10, title="Findings", html=content)


def emphasised(sentence: str) -> Markup:
    """Escaped text in which **stars** are bold, without line breaks between a number and its unit."""
    joined = re.sub(r"(?<=\d) (?=(ms|µs|s|%|[KMGT]iB|m?J|m?W|dB|image/s)\b|%)", "\u00a0", sentence)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(joined)))


def is_single(found: findings.ModelFindings) -> bool:
    """Whether the model has one row only, so that there is no ranking."""
    return len(found.races) == 1 and len(found.races[0].rows) == 1


def _single(found: findings.ModelFindings, data: ReportData) -> Markup:
    run = f"run {found.run} · " if found.run else ""
    words = " ".join(findings.race_sentences(found.races[0], data))
    return emphasised(f"**{run}{found.model}** ({found.weights} weights): {words[0].lower()}{words[1:]}")


def _card(found: findings.ModelFindings, data: ReportData) -> Card:
    first = found.races[0]
    sentences = [s for race in found.races for s in findings.race_sentences(race, data)]
    if found.more_races:
        sentences.append(f"The table has {counted(found.more_races, 'more comparison')} of this model.")
    ratio = relative_speed(first.winner, first.reference, data) if first.reference else None
    return Card(
        model=found.model,
        run=found.run,
        weights=found.weights,
        value=value_text(first.winner, data.metrics["latency_s"]),
        caption=f"{engine(first.winner)} · {first.where}",
        speedup=ratio_text(ratio.value) if ratio else "",
        against="the speed of eager fp32",
        colour=theme.backend_colour(first.winner["backend"]),
        sentences=tuple(emphasised(s) for s in (*sentences, *found.sentences)),
    )


def _front_sentence(front: Front) -> str:
    words = "; ".join(front_point(row, front) for row in front.best[:5])
    more = f"; and {len(front.best) - 5} more" if len(front.best) > 5 else ""
    return f"**{front.title}**, {front.metric.label} against latency per image: {words}{more}."


def front_point(row: Row, front: Front) -> str:
    """'onnxruntime int8 at batch 32 (0.07 ms per image, 99.0 %)'."""
    return f"{fronts.point_name(row, front.rows)} ({fronts.point_value(row, front)})"
