"""The parts of a report. A section is a function of the data, registered under a name.

    @SECTIONS.add("latency")
    def latency(data: ReportData) -> Section | NotShown | None: ...

A new section is one file in reports/sections/. It may return None (nothing to show), or NotShown with the reason, which
the footer of the page shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from baselines.verdict import Comparison
from harness import entries
from harness.entries import BadEntry
from harness.quoting import quoted
from harness.ratios import Ratios, ratios
from harness.registry import Registry
from harness.types import Metric, Run
from reports.records import records


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """The data of all sections. `cases` and `samples` are the frames of all runs, with a first column `run`.

    `run` is "" in a report of one run, otherwise A, B, ... in the given order. `images` maps (run, file name) to a data
    URI. The quality of rows with random weights is already removed.
    """

    runs: tuple[Run, ...]
    cases: pd.DataFrame
    samples: pd.DataFrame
    metrics: Mapping[str, Metric]
    comparisons: tuple[Comparison, ...] = ()
    images: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The rows of `cases` as mappings, with None for missing values. Sections must not change them."""
        return tuple(records(self.cases))

    @cached_property
    def ratios(self) -> Mapping[str, Ratios]:
        """The paired ratios of each run, by the value of the column `run`."""
        return {name: ratios(run) for name, run in zip(self.aliases, self.runs, strict=True)}

    @property
    def aliases(self) -> tuple[str, ...]:
        """The value of the column `run` of each run."""
        return tuple(alias(i, len(self.runs)) for i in range(len(self.runs)))


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure with its heading, and a note and a numbered list below it; a `wide` one has the width of the page."""

    title: str
    figure: go.Figure
    note: str = ""
    listing: tuple[tuple[str, str], ...] = ()
    wide: bool = False

    def __post_init__(self) -> None:
        entries.demand("a chart", self, OF_CHART)


OF_CHART: Mapping[str, entries.Rule] = {
    "title": entries.TEXT,
    "figure": entries.instance_of(go.Figure),
    "note": entries.TEXT,
}


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a note, charts, a table of texts, and HTML that is already escaped. Raises BadEntry for a
    field of another type."""

    order: int
    title: str
    note: str = ""
    figures: tuple[Chart, ...] = ()
    table: pd.DataFrame | None = None
    html: Markup | None = None

    def __post_init__(self) -> None:
        entries.demand("a section", self, FIELDS)


FIELDS: Mapping[str, entries.Rule] = {
    "order": entries.NUMBER,
    "title": entries.TEXT,
    "note": entries.TEXT,
    "figures": entries.Rule(
        lambda value: isinstance(value, tuple) and all(isinstance(chart, Chart) for chart in value),
        "a tuple of reports.section.Chart",
    ),
    "table": entries.optional(entries.instance_of(pd.DataFrame)),
    "html": entries.optional(entries.instance_of(Markup)),
}


@dataclass(frozen=True, kw_only=True)
class NotShown:
    """A section without data, and the reason."""

    title: str
    reason: str


SectionFunction = Callable[[ReportData], Section | NotShown | None]
SECTIONS: Registry[SectionFunction] = Registry("section")


@SECTIONS.checked_by
def _check(subject: str, _name: str, entry: Any) -> None:
    if not callable(entry):
        raise BadEntry(f"{subject}: the entry must be a function of the report's data, not {quoted(entry)}")


def alias(index: int, count: int) -> str:
    """A short name of one run among several; "" for the only one.

    >>> alias(0, 1), alias(1, 2), alias(26, 30)
    ('', 'B', 'R27')
    """
    if count == 1:
        return ""
    return chr(ord("A") + index) if index < 26 else f"R{index + 1}"
