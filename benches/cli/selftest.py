"""`imgbench selftest`: trials of the gate, recordings of the machine's noise, and the error rates that both give."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import benches
import reports.formats.terminal
from baselines.detector import recorded
from baselines.detector.ours import Ours
from baselines.detector.recorded import Recording
from baselines.detector.rules import RULES
from baselines.detector.table import evaluate, markdown, summary
from baselines.paired.decider import Recorder
from baselines.verdict import FINE, Comparison
from benches import selftest as room
from benches.ab import driver as ab_room
from benches.cli.ab import COMPARISON_FILE, as_json, asked_of, measured, say, suite_of
from benches.cli.run_folders import new_folder
from benches.failures import UsageError
from harness import storage
from harness.paired import paired_run
from harness.processes import progress
from harness.timing import perf_counter


def selftest(options: Namespace) -> int:
    """Runs the trials, records noise, or judges recorded noise; the exit code is 0 whatever was found."""
    how = [name for name in ("record", "recorded") if getattr(options, name)]
    if options.trials == 0 and not options.history:
        raise UsageError("selftest: --trials 0 counts the trials that --history FILE keeps; give it")
    if len(how) > 1:
        raise UsageError("selftest: --record measures, --recorded judges what was recorded; give one of them")
    if options.recorded:
        return _judge_recorded(options)
    benches.load_plugins()
    return _record(options) if options.record else _trials(options)


def _trials(options: Namespace) -> int:
    suite = suite_of(options)

    def measure(arm: str) -> tuple[Comparison, room.Conditions]:
        asked = replace(asked_of(options, suite, ("", arm), None, Path.cwd()), apart=options.apart)
        folder = new_folder(options.out, f"selftest-{suite.name}")
        began = perf_counter()
        found = measured(asked, folder)
        elapsed = perf_counter() - began
        storage.write_atomically(folder / COMPARISON_FILE, as_json(found))
        say(f"{arm or room.NOTHING}: {reports.formats.terminal.headline(found)}  ({folder})")
        return found, _conditions(paired_run.load(folder), elapsed)

    found = room.stored(options.history) if options.history else []
    plans = options.plan or room.PLANS
    for trial in room.trials(plans, options.trials, suite.cases, measure, tuple(found), options.rows):
        found.append(trial)
        if options.history:
            room.append(options.history, trial)
    say("\n".join([room.line(found), *room.details(found)]))
    return FINE


def _conditions(run: paired_run.PairedRun, elapsed_s: float) -> room.Conditions:
    environment = run.environment
    return room.Conditions(
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


def _record(options: Namespace) -> int:
    """One A/A run in which no row leaves early, added to the recording."""
    suite = suite_of(options)
    asked = replace(asked_of(options, suite, ("", ""), None, Path.cwd()), apart=options.apart)
    folder = new_folder(options.out, f"recording-{suite.name}")
    with storage.locked(folder), progress.status(progress.console()) as tell:
        ab_room.measure(asked, folder, tell, Recorder)
    path: Path = options.record
    found = recorded.from_run(folder, options.conditions)
    whole = recorded.joined([recorded.load(path), found]) if path.exists() else found
    recorded.save(whole, path)
    say(f"{path}: {len(whole.blocks)} blocks, {_pairs(found)} pairs a group of them new ({folder})")
    return FINE


def _judge_recorded(options: Namespace) -> int:
    """The table of error rates: our rule and those of other tools on resampled runs of a recording."""
    recording = recorded.load(options.recorded)
    say(f"{options.recorded}: {recording.metadata.cpu}, {recording.metadata.conditions}; {_pairs(recording)} pairs")
    frame = evaluate(recording, RULES, runs=options.trials, ours=Ours(rounds=options.rounds))
    say(markdown(summary(frame)))
    return FINE


def _pairs(recording: Recording) -> int:
    """Pairs of the group that has the fewest."""
    by_group = {
        group: len({b.pair for b in recording.blocks if b.group == group}) for group in recording.groups.values()
    }
    return min(by_group.values(), default=0)
