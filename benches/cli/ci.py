"""The files that the commands `compare` and `ab` write for CI before the exit code is decided."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from baselines.verdict import Comparison
from benches.cli.printing import say


def arguments(parser: ArgumentParser) -> None:
    """Adds the options for the files."""
    group = parser.add_argument_group("for CI")
    group.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    group.add_argument("--markdown", type=Path, metavar="FILE", help="write the comparison as Markdown")
    group.add_argument(
        "--comment", type=Path, metavar="FILE", help="write a pull-request comment (at most 65,536 characters)"
    )
    group.add_argument("--badge", type=Path, metavar="FILE", help="write a badge in the JSON of shields.io's endpoint")
    group.add_argument("--json-file", type=Path, metavar="FILE", help="write the comparison as JSON")
    group.add_argument("--annotations", action="store_true", help="print GitHub annotations")
    group.add_argument(
        "--step-summary",
        type=Path,
        nargs="?",
        const=Path(os.environ.get("GITHUB_STEP_SUMMARY") or "step-summary.md"),
        metavar="FILE",
        help="append the Markdown summary (default: $GITHUB_STEP_SUMMARY)",
    )


def write_artifacts(options: Namespace, comparison: Comparison) -> None:
    """Writes the files that the options name."""
    from reports.ci import artifacts

    targets = artifacts.Targets(
        junit=options.junit,
        markdown=options.markdown,
        comment=options.comment,
        badge=options.badge,
        json=options.json_file,
        step_summary=options.step_summary,
        annotations=options.annotations,
    )
    artifacts.write(comparison, targets, say, strict=options.strict)
