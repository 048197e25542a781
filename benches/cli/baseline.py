"""`imgbench baseline`: accepts runs as baselines, and lists the stored ones."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import baselines.stored.store
from baselines.verdict import FINE, NOT_COMPARABLE
from benches.cli.arguments import Parser, add_store, store_of
from benches.cli.printing import print_rows, say, say_json
from benches.cli.run_folders import load_run
from harness import streams


def arguments(command: ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    save = actions.add_parser("save", help="accept a run as a baseline of this machine")
    save.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")
    save.add_argument("--reason", required=True, help="why this run is accepted; stored with it")
    save.add_argument("--force", action="store_true", help="accept a run with rows that are not ok or are missing")
    save.add_argument(
        "--reference", action="store_true", help="store it as the suite's reference run, for every machine"
    )
    add_store(save)
    listing = actions.add_parser("list", help="list the stored baselines")
    listing.add_argument("--json", action="store_true", help="print JSON")
    add_store(listing)


def run(options: Namespace) -> int:
    root = store_of(options)
    if options.action == "list":
        return _baseline_list(root, options.json)
    save = baselines.stored.store.save_reference if options.reference else baselines.stored.store.save
    try:
        session = save(load_run(options.run), options.reason, root, force=options.force)
    except baselines.stored.store.BaselineRefused as error:
        for reason in error.reasons:
            streams.complain(f"imgbench: {reason}")
        return NOT_COMPARABLE
    say(str(session.path))
    return FINE


def _baseline_list(root: Path, as_json: bool) -> int:
    rows = baselines.stored.store.listing_rows(root)
    if as_json:
        say_json(rows)
    else:
        print_rows(rows, empty=f"no baselines below {root}")
    return FINE
