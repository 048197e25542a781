"""`imgbench replay`: decides again from the raw values."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benches.cli.arguments import add_store
from benches.cli.run_folders import is_paired


def arguments(command: ArgumentParser) -> None:
    command.add_argument(
        "run", type=Path, metavar="RUN", help="a compared or paired run, or a folder of them (its newest)"
    )
    add_store(command)


def run(options: Namespace) -> int:
    """Decides again from the raw values."""
    if is_paired(options.run):
        from benches.cli.ab import replay
    else:
        from benches.cli.compare import replay
    return replay(options)
