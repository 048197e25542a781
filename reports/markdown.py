"""A run, and a comparison, as Markdown: for a pull request, a step summary, a note.

    from reports import markdown
    print(markdown.summary(run, comparisons))

Names and reasons come from elsewhere, so whatever Markdown or HTML would read in them is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from baselines.verdict import Comparison
from harness.types import Run
from harness.units import format_value
from reports import findings
from reports.data import report_data
from reports.rows import QUALITY_FIRST, Row, records
from reports.section import ReportData
from reports.sections.comparison import ranked
from reports.wording import MISSING, estimate, ratio_text, value_text

MAX_VERDICTS = 200


def summary(run: Run, comparisons: Sequence[Comparison] = ()) -> str:
    """Headline findings, a table of all rows, and the comparisons of one run."""
    return summarised(report_data([run], comparisons))


def summarised(data: ReportData) -> str:
    """The same from data that are already at hand."""
    title = " and ".join(f"`{run.id}`".replace("``", "") for run in data.runs)
    parts = [f"## imgbench: {title}", bullets(_sentences(data))]
    rows = records(data.cases)
    if rows:
        parts.append(_rows_table(rows, data))
    parts += [comparison(found) for found in data.comparisons]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison(found: Comparison) -> str:
    """The verdicts that say something, the gravest first; unchanged ones only counted."""
    sentence = findings.comparison_sentence(found.baseline, [v.outcome for v in found.verdicts], found.refused)
    telling = [v for v in ranked(found.verdicts) if v.outcome != "unchanged"]
    parts = [f"### Comparison with {escaped(found.baseline)}", styled(sentence)]
    if found.differences:
        parts.append(bullets(found.differences))
    if telling:
        rows = [
            [
                v.outcome.replace("_", " "), v.label, v.metric, format_value(v.baseline, v.unit),
                format_value(v.candidate, v.unit),
                MISSING if v.ratio is None else ratio_text(v.ratio, v.low, v.high), v.reason,
            ]
            for v in telling[:MAX_VERDICTS]
        ]  # fmt: skip
        parts.append(table(["outcome", "row", "metric", "baseline", "this run", "ratio [95 %]", "reason"], rows))
    if len(telling) > MAX_VERDICTS:
        parts.append(f"{len(telling) - MAX_VERDICTS} more verdicts are in the report.")
    return "\n\n".join(parts)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with every cell escaped.

    >>> print(table(["a"], [["x|y"]]))
    | a |
    | --- |
    | x\\|y |
    """
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows)])


def bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {styled(sentence)}" for sentence in sentences)


def escaped(words: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    one_line = " ".join(words.split())
    shown = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", shown)


def styled(sentence: str) -> str:
    """A finding escaped, with its **stars** still bold."""
    return "**".join(escaped_part(part) for part in sentence.split("**"))


def escaped_part(part: str) -> str:
    lead, trail = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
    return f"{lead}{escaped(part)}{trail}" if part.strip() else part


def _sentences(data: ReportData) -> Iterable[str]:
    yield from findings.overview(data)
    for found in findings.model_findings(data):
        name = f"run {found.run}, {found.model}" if found.run else found.model
        for race in found.races:
            yield from (f"{name}: {sentence}" for sentence in findings.race_sentences(race, data))
        yield from (f"{name}: {sentence}" for sentence in found.sentences)


def _rows_table(rows: Sequence[Row], data: ReportData) -> str:
    names = [n for n in ("latency_s", "throughput", *QUALITY_FIRST) if any(r.get(n) is not None for r in rows)]
    metrics = [data.metrics[name] for name in names]
    lines = [
        [
            f"{row['run']} · {row['label']}" if row["run"] else row["label"],
            row["status"] if row["reason"] is None else f"{row['status']}: {row['reason']}",
            *(estimate(row, m) if row.get(m.name) is not None else value_text(row, m) for m in metrics),
        ]
        for row in rows
    ]
    return table(["row", "status", *(metric.label for metric in metrics)], lines)
