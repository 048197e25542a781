"""What commands print on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from baselines.verdict import Comparison
from harness import streams
from harness.sweeping import progress
from harness.types import Run
from reports.formats.plain_table import plain_table


def say(text: str) -> None:
    """Prints a line."""
    progress.console().out(text, highlight=False)


def say_json(value: Any) -> None:
    """Prints JSON in an encoding that stdout has."""
    say(streams.escaped(json.dumps(value, indent=1, ensure_ascii=False), sys.stdout))


def print_rows(rows: Sequence[Mapping[str, Any]], empty: str = "none") -> None:
    """Prints rows as a table."""
    progress.console().print(plain_table(rows, empty=empty))


def print_comparison(comparison: Comparison) -> None:
    """Prints the table of verdicts, the notes, and the comparison in one line."""
    import reports.formats.terminal

    progress.console().print(reports.formats.terminal.verdicts(comparison))
    for note in comparison.notes:
        say(str(note))
    for reason in comparison.contended:
        say(f"the run is contended: {reason}")
    say(reports.formats.terminal.headline(comparison))


def print_table(measured: Run) -> None:
    """Prints a run as a table of its cases, and how precise their speeds are."""
    import reports.formats.terminal
    from harness import frames

    console = progress.console()
    cases = frames.cases_frame(measured, reports.formats.terminal.SHOWN)
    console.print(reports.formats.terminal.table(cases, console.width))
    for note in reports.formats.terminal.speed_notes(measured, cases):
        say(note)
