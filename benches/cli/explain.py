"""`imgbench explain`: how the verdicts on one row were reached."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benches.cli.arguments import add_store
from benches.cli.run_folders import is_paired


def arguments(command: ArgumentParser) -> None:
    command.add_argument(
        "run", type=Path, metavar="RUN", help="a compared or paired run, or a folder of them (its newest)"
    )
    command.add_argument("row", metavar="ROW", help="the row's id, or a part of its id or label")
    add_store(command)


def run(options: Namespace) -> int:
    """Explains how the verdicts on one row were reached, in a paired run or in a stored comparison."""
    if is_paired(options.run):
        from benches.cli.ab import explain
    else:
        from benches.cli.compare import explain
    return explain(options)
