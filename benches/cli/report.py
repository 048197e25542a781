"""`imgbench report`: the HTML report of runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import reports.page.page
from baselines.verdict import FINE
from benches.cli.arguments import add_store, store_of
from benches.cli.compare import compare_with_stored
from benches.cli.printing import say
from benches.cli.run_folders import REPORT_FILE, is_paired, load_run, paired_folder
from benches.failures import UsageError


def arguments(command: ArgumentParser) -> None:
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the (first) run folder")
    add_store(command)


def run(options: Namespace) -> int:
    if is_paired(options.runs[0]):
        return _paired_report(options)
    runs = [load_run(path) for path in options.runs]
    comparisons = [c for r in runs for c in compare_with_stored(r, store_of(options))]
    path = options.out or Path(str(runs[0].folder)) / REPORT_FILE
    reports.page.page.write(path, reports.page.page.build(runs, comparisons))
    say(str(path))
    return FINE


def _paired_report(options: Namespace) -> int:
    if len(options.runs) > 1:
        raise UsageError("report: a paired run has its own page, so give no other run with it")
    from benches.ab import driver
    from benches.cli.ab import write_page

    folder = paired_folder(options.runs[0])
    say(str(write_page(driver.decide(folder), options.out or folder / REPORT_FILE)))
    return FINE
