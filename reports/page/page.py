"""ReportData -> one HTML file that loads nothing from the network.

    from reports.page import page
    page.write(path, page.build([run], comparisons))

The same data give the same bytes: the page has no time stamp, no random id and no order of a set.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import reports.sections  # noqa: F401  registers the sections
from baselines.verdict import Comparison
from harness import streams
from harness.causes import one_line
from harness.processes import threads
from harness.quoting import quoted
from harness.types import Run
from harness.units import format_duration
from reports import theme
from reports.data import report_data
from reports.section import SECTIONS, Chart, NotShown, ReportData, Section, SectionFunction
from reports.sections.environment import utc
from reports.templates import asset, fragment


@dataclass(frozen=True, kw_only=True)
class Swatch:
    """An entry of a chart's legend, which shows and hides all traces of one name."""

    name: str
    label: str
    colour: str
    symbol: str
    dash: str


@dataclass(frozen=True, kw_only=True)
class DrawnChart:
    """A chart as the template prints it; `figure` is JSON that is escaped for a script element."""

    id: str
    chart: Chart
    height: int
    swatches: tuple[Swatch, ...]
    figure: Markup


@dataclass(frozen=True, kw_only=True)
class DrawnSection:
    id: str
    section: Section
    charts: tuple[DrawnChart, ...]


def build(runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> str:
    """The HTML report of one or several runs."""
    return render(report_data(runs, comparisons))


def render(data: ReportData) -> str:
    """The page with every section that has data, and the reasons of the others. A section that raises an error is not
    shown, with the error as the reason, also on stderr."""
    made = {name: _made(name, make, data) for name, make in SECTIONS.items()}
    return assembled(
        made,
        title=" and ".join(dict.fromkeys(run.suite for run in data.runs)) or "no run",
        eyebrow="Benchmark report",
        descriptions=list(dict.fromkeys(run.description for run in data.runs if run.description)),
        runs=[run_facts(run, name) for run, name in zip(data.runs, data.aliases, strict=True)],
    )


def _made(name: str, make: SectionFunction, data: ReportData) -> Section | NotShown | None:
    try:
        found: Any = make(data)
    except Exception as error:  # the other sections do not depend on it
        return _failed(name, f"the section failed: {one_line(error)}")
    if found is None or isinstance(found, Section | NotShown):
        return found
    return _failed(name, f"the section returns {quoted(found)} instead of a reports.section.Section")


def _failed(name: str, reason: str) -> NotShown:
    streams.complain(f"imgbench: section {name!r}: {reason}")
    return NotShown(title=_title(name), reason=reason)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def assembled(made: Mapping[str, Section | NotShown | None], **head: Any) -> str:
    """The page of these sections, in their order. `head` has the fields above them: title, eyebrow, descriptions and
    runs."""
    drawn, absent = _sections(made)
    return str(
        fragment(
            "page.html",
            **head,
            sections=drawn,
            absent=absent,
            light=Markup(theme.css_variables(theme.LIGHT)),
            dark=Markup(theme.css_variables(theme.DARK)),
            font=Markup(theme.FONT),
            mono=Markup(theme.MONO),
            style=asset("page.css"),
            script=asset("page.js") + asset("table.js"),
            plotly=Markup(get_plotlyjs()) if any(d.charts for d in drawn) else Markup(),
        )
    )


def write(path: Path, page: str) -> None:
    """Writes the page, with the same bytes on every system."""
    Path(path).write_text(page, encoding="utf-8", newline="\n")


def _sections(made: Mapping[str, Section | NotShown | None]) -> tuple[list[DrawnSection], list[NotShown]]:
    shown: list[DrawnSection] = []
    absent: list[NotShown] = []
    for name, section in made.items():
        if not isinstance(section, Section):
            absent.append(section or NotShown(title=_title(name), reason="there are no data for this section"))
            continue
        try:
            charts = tuple(_drawn(c, f"{name}-{i}") for i, c in enumerate(section.figures, start=1))
        except Exception as error:  # what a figure holds is seen when it is drawn
            absent.append(_failed(name, f"a chart of the section failed: {one_line(error)}"))
        else:
            shown.append(DrawnSection(id=name, section=section, charts=charts))
    return sorted(shown, key=lambda drawn: (drawn.section.order, drawn.id)), absent


def _drawn(chart: Chart, name: str) -> DrawnChart:
    figure = go.Figure(chart.figure)
    swatches = _swatches(figure)
    figure.update_layout(showlegend=False)
    height = int(figure.layout.height or 380)
    return DrawnChart(id=f"chart-{name}", chart=chart, height=height, swatches=swatches, figure=script_json(figure))


def script_json(figure: go.Figure) -> Markup:
    """The figure as JSON that cannot close its script element."""
    document = str(figure.to_json())
    return Markup(document.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _swatches(figure: go.Figure) -> tuple[Swatch, ...]:
    found: dict[str, Swatch] = {}
    for trace in figure.data:
        if not trace.name or trace.showlegend is False or trace.name in found:
            continue
        look = json.loads(trace.to_json())
        marker, line = look.get("marker", {}), look.get("line", {})
        found[trace.name] = Swatch(
            name=trace.name,
            label=html.unescape(trace.name),
            colour=_colour(marker.get("color") or line.get("color")),
            symbol="bar" if trace.type == "bar" else str(marker.get("symbol", "line")),
            dash=str(line.get("dash", "solid")) if "lines" in str(look.get("mode")) else "",
        )
    return tuple(found.values()) if len(found) > 1 else ()


def _colour(value: Any) -> str:
    return value if isinstance(value, str) else theme.NEUTRAL


def _processes(run: Run) -> str:
    """The number of processes per row; of rows with rounds, from the fewest to the most of an ok row."""
    counts = [len(many) for many in run.by_case.values() if all(m.status == "ok" for m in many)]
    if not counts or not run.protocol.rounds:
        return str(run.protocol.replicates)
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def run_facts(run: Run, name: str) -> dict[str, Any]:
    """The facts of one run at the top of the page."""
    environment = run.environment
    git = environment.get("git") or {}
    commit = str(git.get("commit") or "")[:10] + (" with uncommitted changes" if git.get("dirty") else "")
    if git.get("reason"):
        commit = f"unknown: {git['reason']}"
    versions = environment.get("versions") or {}
    seconds = sum(m.duration_s or 0.0 for m in run.measurements)
    facts = {
        "Device": environment.get("device_name") or environment.get("device"),
        "Threads": threads.in_words(environment),
        "Measured": utc(run.created) or None,
        "Measurement time": format_duration(seconds) if seconds else None,
        "torch": versions.get("torch"),
        "Commit": commit or None,
        "Processes per row": _processes(run),
        "Caches": "flushed before each iteration" if run.protocol.cold_cache else None,
    }
    return {
        "name": name, "id": run.id, "problems": run.problems, "unfinished": run.finished is None,
        "facts": [(key, str(value)) for key, value in facts.items() if value is not None],
    }  # fmt: skip
