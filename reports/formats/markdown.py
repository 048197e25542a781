"""A run or a comparison as Markdown, for a pull request, a step summary or a note.

    from reports.formats import markdown
    print(markdown.summary(run, comparisons))

Names and reasons may contain any text, so Markdown and HTML in them are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from baselines.verdict import Comparison, Verdict
from harness.types import Run
from harness.units import counted, format_value, percent
from reports import conclusions
from reports.data import report_data
from reports.gate import gravest_first, sentence, shortened
from reports.relative_speed import reference_speed
from reports.rows import QUALITY_FIRST, Row
from reports.section import ReportData
from reports.wording import MISSING, estimate, listed, outcomes_text, ratio_text, value_text

MAX_VERDICTS = 200
SUMMARY_BYTES = 1024 * 1024
COMMENT_BYTES = 65_536  # GitHub counts characters, which are at most as many as bytes
MAX_NOTES = 40
NOTE_CHARACTERS = 1_000
CUT = "The rest exceeds the size limit; the JSON has all of it."


def summary(run: Run, comparisons: Sequence[Comparison] = ()) -> str:
    """Headline findings, a table of all rows, and the comparisons of one run."""
    return summarised(report_data([run], comparisons))


def summarised(data: ReportData) -> str:
    """`summary` of data that are already loaded."""
    title = " and ".join(f"`{run.id}`".replace("``", "") for run in data.runs)
    parts = [f"## imgbench: {title}", bullets(_sentences(data))]
    rows = data.rows
    if rows:
        parts.append(_rows_table(rows, data))
    parts += [comparison(found) for found in data.comparisons]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison(found: Comparison, limit: int = MAX_VERDICTS) -> str:
    """All verdicts but unchanged ones, the most severe first. A paired run also shows the unchanged ones."""
    title = f"### Comparison with {escaped(found.baseline or 'no baseline')}"
    parts = [title, *_alarms(found), styled(_counted(found))]
    about = [f"base: {found.arms[0]}", f"head: {found.arms[1]}"] if found.arms else []
    told = [shortened(line, NOTE_CHARACTERS) for line in (*about, *found.notes, *found.differences)]
    if len(told) > MAX_NOTES:
        told = [*told[:MAX_NOTES], f"The JSON has {len(told) - MAX_NOTES} more notes."]
    parts.append(bullets(told))
    telling = _telling(found)
    if telling and limit:
        heads = ["outcome", "row", "metric", "baseline", "this run", "ratio [95 %]", "detectable", "reason"]
        parts.append(table(heads, (_verdict_cells(v) for v in telling[:limit])))
    if left := telling[limit:]:
        kinds = listed(outcomes_text(left), limit=9)
        parts.append(f"{counted(len(left), 'more verdict')} left out here: {kinds}. The JSON has all of them.")
    return "\n\n".join(part for part in parts if part)


def step_summary(found: Comparison, room: int = SUMMARY_BYTES) -> str:
    """The comparison for GitHub's step summary, cut to whole rows within `room` bytes (1 MiB at most)."""

    def made(limit: int) -> str:
        return comparison(found, limit) + "\n"

    return _fitted(made, lambda text: len(text.encode(errors="replace")) <= room, len(_telling(found)))


def pull_request_comment(found: Comparison, *, strict: bool = False) -> str:
    """The comparison as a comment, cut to whole rows below GitHub's 65,536 characters, counted in bytes.

    The first line is a marker by which a bot finds its comment of this suite and replaces it.
    """
    marker = f"<!-- imgbench {re.sub('[^A-Za-z0-9_.+]+', '-', found.suite)} -->"
    lead = f"**{escaped(sentence(found, strict))}**"

    def made(limit: int) -> str:
        return "\n\n".join([marker, lead, comparison(found, limit)]) + "\n"

    return _fitted(made, lambda text: len(text.encode(errors="replace")) <= COMMENT_BYTES, len(_telling(found)))


def _telling(found: Comparison) -> list[Verdict]:
    return [v for v in gravest_first(found) if v.outcome != "unchanged" or v.pairs is not None]


def _fitted(made: Callable[[int], str], fits: Callable[[str], bool], rows: int) -> str:
    """The longest of `made(0)` to `made(rows)` that fits; if none fits, as many whole lines of it as fit."""
    if not fits(made(0)):
        lines = made(0).splitlines()
        return _longest(lambda n: "\n".join([*lines[:n], "", CUT, ""]), fits, len(lines) - 1)
    return _longest(made, fits, rows)


def _longest(made: Callable[[int], str], fits: Callable[[str], bool], most: int) -> str:
    """`made` of the largest number up to `most` that fits; "" if not even 0 fits."""
    low, high = -1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(made(middle)) else (low, middle - 1)
    return made(low) if low >= 0 else ""


def _counted(found: Comparison) -> str:
    if found.refused:
        return f"**Not compared**: {'; '.join(map(str, found.refused))}."
    return conclusions.comparison_sentence(found)


def _alarms(found: Comparison) -> list[str]:
    return [f"**The run is contended: {escaped(shortened(reason, NOTE_CHARACTERS))}**" for reason in found.contended]


def _verdict_cells(v: Verdict) -> list[str]:
    ratio = MISSING if v.ratio is None else ratio_text(v.ratio, v.low, v.high)
    pairs = "" if v.pairs is None else f" ({v.pairs} pairs{f', {v.dropped} dropped' if v.dropped else ''})"
    return [
        f"{v.outcome.replace('_', ' ')}{'' if v.gating else ' (advisory)'}",
        v.label,
        v.metric,
        format_value(v.baseline, v.unit),
        format_value(v.candidate, v.unit),
        ratio + pairs,
        MISSING if v.minimum_detectable is None else percent(v.minimum_detectable, ".1"),
        shortened(v.reason),
    ]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with every cell escaped.

    >>> print(table(["a"], [["x|y"]]))
    | a |
    | --- |
    | x\\|y |
    """
    lines = [f"| {' | '.join(map(escaped, heads))} |", f"| {' | '.join('---' for _ in heads)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows)])


def bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {styled(sentence)}" for sentence in sentences)


def escaped(words: str) -> str:
    """Text that Markdown and HTML show unchanged, on one line, without links, formulas and mentions."""
    one_line = " ".join(words.split())
    shown = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", shown)
    return shown.replace("@", "@\u2060").replace("://", ":\u2060//").replace("www.", "www\u2060.")


def styled(sentence: str) -> str:
    """A finding escaped, except that its **stars** remain bold."""
    return "**".join(escaped_part(part) for part in sentence.split("**"))


def escaped_part(part: str) -> str:
    lead, trail = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
    return f"{lead}{escaped(part)}{trail}" if part.strip() else part


def _sentences(data: ReportData) -> Iterable[str]:
    yield from conclusions.overview(data)
    for found in conclusions.model_findings(data):
        name = f"run {found.run}, {found.model}" if found.run else found.model
        for race in found.races:
            yield from (f"{name}: {sentence}" for sentence in conclusions.race_sentences(race, data))
        yield from (f"{name}: {sentence}" for sentence in found.sentences)


def _rows_table(rows: Sequence[Row], data: ReportData) -> str:
    names = [n for n in ("latency_s", "throughput", *QUALITY_FIRST) if any(r.get(n) is not None for r in rows)]
    metrics = [data.metrics[name] for name in names]
    speeds = any(row.get("speedup") is not None for row in rows)
    lines = [
        [
            f"{row['run']} · {row['label']}" if row["run"] else row["label"],
            row["status"] if row["reason"] is None else f"{row['status']}: {row['reason']}",
            *([reference_speed(row) or MISSING] if speeds else []),
            *(estimate(row, m) if row.get(m.name) is not None else value_text(row, m) for m in metrics),
        ]
        for row in rows
    ]
    return table(["row", "status", *(["speed"] if speeds else []), *(metric.label for metric in metrics)], lines)
