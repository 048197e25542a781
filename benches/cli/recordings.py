"""`imgbench selftest --record` and `--recorded`: recordings of the machine's noise, and the error rates on them.

They need `baselines.detector`, which is part of a checkout of imgbench and not of the installed package.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from baselines.detector import recorded
from baselines.detector.ours import Ours
from baselines.detector.recorded import Recording
from baselines.detector.rules import RULES
from baselines.detector.table import evaluate, markdown, summary
from baselines.paired.decider import Recorder
from baselines.verdict import FINE
from benches.ab import driver
from benches.cli.ab import asked_of, suite_of
from benches.cli.printing import say
from benches.cli.run_folders import new_folder
from harness import storage
from harness.sweeping import progress


def record(options: Namespace) -> int:
    """Measures one A/A run in which no row stops early, and adds it to the recording."""
    suite = suite_of(options)
    asked = replace(asked_of(options, suite, ("", ""), None, Path.cwd()), apart=options.apart)
    folder = new_folder(options.out, f"recording-{suite.name}")
    with storage.locked(folder), progress.status(progress.console()) as tell:
        driver.measure(asked, folder, tell, Recorder)
    path: Path = options.record
    found = recorded.from_run(folder, options.conditions)
    whole = recorded.joined([recorded.load(path), found]) if path.exists() else found
    recorded.save(whole, path)
    say(f"{path}: {len(whole.blocks)} processes in all, {_pairs(found)} new pairs per group ({folder})")
    return FINE


def error_rates(options: Namespace) -> int:
    """Prints the error rates of imgbench's rule and of other tools' rules on resampled runs of a recording."""
    recording = recorded.load(options.recorded)
    say(f"{options.recorded}: {recording.metadata.cpu}, {recording.metadata.conditions}; {_pairs(recording)} pairs")
    frame = evaluate(recording, RULES, runs=options.trials, ours=Ours(rounds=options.rounds))
    say(markdown(summary(frame)))
    return FINE


def _pairs(recording: Recording) -> int:
    """The number of pairs in the group with the fewest."""
    by_group = {
        group: len({b.pair for b in recording.blocks if b.group == group}) for group in recording.groups.values()
    }
    return min(by_group.values(), default=0)
