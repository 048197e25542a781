"""Rows that are not ok, missing metrics and warnings, with their reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.overhead import OVERHEAD
from harness.reasons import STATED
from harness.speedups import ALONE, SPEEDUP
from harness.units import counted
from reports import theme
from reports.conclusions import status_counts, status_words
from reports.rows import Row, warnings_of
from reports.section import SECTIONS, NotShown, ReportData, Section
from reports.templates import fragment


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Rows that share a status (or metric, or warning) and a reason."""

    name: str
    colour: str
    reason: str
    labels: tuple[str, ...]


@SECTIONS.add("problems")
def problems(data: ReportData) -> Section | NotShown:
    rows = data.rows
    failed = not_ok(rows)
    labels = {name: metric.label for name, metric in data.metrics.items()}
    missing = missing_metrics(rows, {OVERHEAD: "Overhead", SPEEDUP: "Speed relative to the reference"} | labels)
    warnings = warned(rows)
    if not (failed or missing or warnings):
        return NotShown(title="Problems", reason="every row is ok, complete and without a warning")
    content = fragment("problems.html", failed=failed, missing=missing, warnings=warnings, words=counted)
    bad = {status_words(s): n for s, n in status_counts(data).items() if s != "ok"}
    note = "Every row and every metric without a value is listed here with its reason."
    if bad:
        note += f" Rows without a result: {sum(bad.values())} of {len(rows)}."
    return Section(order=80, title="Problems", note=note, html=content)


def not_ok(rows: Iterable[Row]) -> list[Problem]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            found.setdefault((row["status"], row["reason"] or "no reason is recorded"), []).append(_name(row))
    order = ("invalid", "failed", "oom", "timeout", "skipped", "not_run")
    return [
        Problem(name=status_words(status), colour=theme.STATUSES[status], reason=reason, labels=tuple(labels))
        for (status, reason), labels in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]


def missing_metrics(rows: Iterable[Row], labels: Mapping[str, str]) -> list[Problem]:
    """One entry per kind of reason; metrics that are missing on the same rows share an entry. Reasons that a plugin or
    an older version stored as text are of one kind if they differ in numbers only. That a row has no other row to be
    compared with is no problem."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        for metric, reason in (row["missing"] or {}).items():
            kind = (row["missing_kinds"] or {}).get(metric, STATED)
            if kind == ALONE:
                continue
            alike = re.sub(r"\d+", "0", reason) if kind == STATED else kind
            found.setdefault((metric, alike), []).append((_name(row), reason))
    joined: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for (metric, _), pairs in found.items():
        joined.setdefault(tuple(pairs), []).append(labels.get(metric, metric))
    entries = sorted(joined.items(), key=lambda item: -len(item[0]))
    return [_alike(", ".join(metrics), theme.NEUTRAL, pairs) for pairs, metrics in entries]


def warned(rows: Iterable[Row]) -> list[Problem]:
    """One entry per kind of warning."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for kind, words in warnings_of(row):
            found.setdefault(kind, []).append((_name(row), words.removeprefix(f"{kind}: ")))
    return [_alike(kind, theme.STATUSES["timeout"], pairs) for kind, pairs in found.items()]


def _alike(name: str, colour: str, pairs: Sequence[tuple[str, str]]) -> Problem:
    """One entry for (row, text) pairs; if the texts differ, each row has its own."""
    texts = list(dict.fromkeys(words for _, words in pairs))
    if len(texts) == 1:
        return Problem(name=name, colour=colour, reason=texts[0], labels=tuple(row for row, _ in pairs))
    labels = tuple(f"{row}: {words}" for row, words in pairs)
    return Problem(name=name, colour=colour, reason=f"for example: {texts[0]}", labels=labels)


def _name(row: Row) -> str:
    return f"{row['run']} · {row['label']}" if row["run"] else str(row["label"])
