"""`imgbench show`: a run as a table for a terminal."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from baselines.verdict import FINE
from benches.cli.printing import print_table
from benches.cli.run_folders import load_run


def arguments(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")


def run(options: Namespace) -> int:
    print_table(load_run(options.run))
    return FINE
