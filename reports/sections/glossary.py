"""The definition of each metric, from its record: label, unit, direction, kind and description."""

from __future__ import annotations

from collections.abc import Mapping

from harness.types import Metric
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.templates import fragment

UNITS: Mapping[str, str] = {"1": "no unit", "share": "share of 1, printed in %", "count": "count"}
RULES: Mapping[str, str] = {
    "noisy": "compared by a statistical test",
    "exact": "compared by equality",
    "near_exact": "compared within 0.5 % or 2 MiB",
    "energy": "compared with a wide tolerance",
    "quality_item": "one right or wrong answer per item",
    "quality_continuous": "one value per image",
    "quality_set": "one value per set of images",
    "advisory": "shown, without effect on the exit code",
}


@SECTIONS.add("glossary")
def glossary(data: ReportData) -> Section | NotShown:
    rows = data.rows
    used = [
        m
        for name, m in data.metrics.items()
        if any(r.get(name) is not None or name in (r["missing"] or {}) for r in rows)
    ]
    if not used:
        return NotShown(title="What the numbers mean", reason="no row has a value")
    note = (
        "A value is the median over the processes, each with equal weight; shares and energies use the mean, and peaks "
        "the maximum. Intervals are 95 % intervals of a two-level bootstrap over processes and samples; shares have "
        "Wilson intervals. “–” is a missing value; it never means zero."
    )
    content = fragment("glossary.html", entries=[(m, unit_words(m), direction_words(m), RULES[m.kind]) for m in used])
    return Section(order=95, title="What the numbers mean", note=note, html=content)


def unit_words(metric: Metric) -> str:
    return UNITS.get(metric.unit, metric.unit)


def direction_words(metric: Metric) -> str:
    return "no direction" if metric.better is None else f"{metric.better} is better"
