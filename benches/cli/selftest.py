"""`imgbench selftest`: trials of the gate, and the error rates that result."""

from __future__ import annotations

import importlib.util
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import benches
import reports.formats.terminal
from baselines.verdict import FINE, Comparison
from benches import selftest as gate_trials
from benches.cli import stored_trials
from benches.cli.ab import asked_of, measured, suite_of
from benches.cli.arguments import add_measuring, count, positive
from benches.cli.decisions import COMPARISON_FILE
from benches.cli.printing import say
from benches.cli.run_folders import new_folder
from benches.failures import UsageError
from harness import storage
from harness.measuring import injection
from harness.paired import paired_run
from harness.timing import perf_counter
from reports.formats import comparison_json


def arguments(command: ArgumentParser) -> None:
    command.add_argument("suite", nargs="?", default="gate", metavar="SUITE", help="default: gate")
    command.add_argument(
        "--trials", type=count, default=1, metavar="N", help="runs of each plan (1; 0 only counts the stored trials)"
    )
    command.add_argument(
        "--history", type=Path, metavar="FILE", help="append the trials to this file, and count all that it has"
    )
    command.add_argument(
        "--record", type=Path, metavar="FILE", help="measure one full A/A run and add it to this recording"
    )
    command.add_argument("--conditions", default="", metavar="TEXT", help="with --record: what else ran on the machine")
    command.add_argument(
        "--recorded", type=Path, metavar="FILE", help="simulate --trials runs, resampled from this recording"
    )
    command.add_argument(
        "--rounds", type=positive, default=32, metavar="N", help="pairs of each row in a resampled run (32)"
    )
    command.add_argument("--apart", action="store_true", help="start a fork server for each arm, as for two git refs")
    command.add_argument(
        "--plan",
        action="append",
        metavar="PLAN",
        help=f"what to plant; may be repeated (default: {', '.join(gate_trials.PLANS)})",
    )
    command.add_argument("--rows", type=positive, default=1, metavar="N", help="slowed-down rows in each run (1)")
    command.add_argument(
        "--stored",
        action="store_true",
        help="runs against stored sessions instead: --trials runs of equal code and as many with +5 %% in one row",
    )
    command.add_argument(
        "--sessions", type=positive, default=4, metavar="N", help="with --stored: sessions to measure first (4)"
    )
    command.add_argument("--budget", default="5m", metavar="TIME", help="time limit of each run (5m)")
    add_measuring(command, threads="one fewer than")


def run(options: Namespace) -> int:
    """Runs the trials, records noise, or simulates runs of recorded noise; the exit code is 0 for any error rates."""
    how = [name for name in ("record", "recorded", "stored") if getattr(options, name)]
    if options.trials == 0 and not options.history:
        raise UsageError("selftest: --trials 0 counts the trials of --history FILE, so it needs that option")
    if len(how) > 1:
        raise UsageError("selftest: --record, --recorded and --stored are different tests; give only one of them")
    if options.stored:
        benches.load_plugins()
        stored_trials.run(options)
        return FINE
    if how:
        return _recordings(options)
    _check_plans(options.plan or ())
    benches.load_plugins()
    return _trials(options)


def _check_plans(plans: Sequence[str]) -> None:
    for plan in plans:
        if plan == gate_trials.NOTHING:
            continue
        try:
            injection.parse(plan)
        except injection.InjectionError as error:
            raise UsageError(f"selftest: --plan: {error}") from None


def _recordings(options: Namespace) -> int:
    """Records noise, or simulates runs of recorded noise. Raises UsageError if the installed package lacks the
    study."""
    if importlib.util.find_spec("baselines.detector") is None:
        raise UsageError(
            "selftest: --record and --recorded need a checkout of imgbench: the installed package does not contain the "
            "study of the gate's error rates"
        )
    from benches.cli import recordings

    if options.recorded:
        return recordings.error_rates(options)
    benches.load_plugins()
    return recordings.record(options)


def _trials(options: Namespace) -> int:
    suite = suite_of(options)

    def measure(arm: str) -> tuple[Comparison, gate_trials.Conditions]:
        asked = replace(asked_of(options, suite, ("", arm), None, Path.cwd()), apart=options.apart)
        folder = new_folder(options.out, f"selftest-{suite.name}")
        began = perf_counter()
        decided = measured(asked, folder)
        elapsed, found = perf_counter() - began, decided.comparison
        storage.write_atomically(folder / COMPARISON_FILE, comparison_json.text(found))
        say(f"{arm or gate_trials.NOTHING}: {reports.formats.terminal.headline(found)}  ({folder})")
        return found, _conditions(decided.decider.run, elapsed)

    found = gate_trials.stored(options.history) if options.history else []
    plans = options.plan or gate_trials.PLANS
    for trial in gate_trials.trials(plans, options.trials, suite.cases, measure, tuple(found), options.rows):
        found.append(trial)
        if options.history:
            gate_trials.append(options.history, trial)
    say("\n".join([gate_trials.line(found), *gate_trials.details(found)]))
    return FINE


def _conditions(run: paired_run.PairedRun, elapsed_s: float) -> gate_trials.Conditions:
    environment: Mapping[str, Any] = run.environment
    return gate_trials.Conditions(
        created=run.created,
        cpu=str(environment["cpu"]["model"]),
        cores=int(environment["cpu"]["cores_allowed"]),
        threads=run.threads,
        suite=run.suite,
        commit=str((environment.get("git") or {}).get("commit")),
        budget_s=run.budget_s,
        elapsed_s=round(elapsed_s, 1),
        apart=not run.shared_server,
        isa=environment["cpu"].get("isa"),
    )
