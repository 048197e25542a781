"""`imgbench selftest --stored`: how often the comparison with stored sessions calls a row slower than its group, in
runs of equal code and in runs with a slow-down planted in one row.

It measures the sessions first, and keeps them beside the runs. Then each trial is a complete run and its comparison,
with further rounds of the suspects as in `imgbench compare`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import benches
from baselines.stored import fingerprint
from baselines.stored.compare import compare
from baselines.stored.relative_verdicts import RELATIVE_LATENCY
from baselines.stored.store import Session
from baselines.stored.suspects import suspects
from benches import suites
from benches.cli.arguments import seconds
from benches.cli.printing import say
from benches.cli.run_folders import new_folder
from benches.failures import UsageError
from benches.preload import libraries
from harness import storage
from harness import suite as suite_module
from harness.processes.worker import Workers
from harness.ratios import ratios
from harness.stats import wilson
from harness.stored_types import Environment
from harness.sweeping import progress
from harness.sweeping.sweep import collect_environment, extend_rounds, new_run, sweep
from harness.types import Run, Suite
from harness.units import percent

SLOWDOWN = "busy=0.05"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run: the row in which the slow-down was planted (None in a run of equal code), and the rows that were called
    slower than their group."""

    planted: str | None
    regressed: frozenset[str]


def run(options: Namespace) -> None:
    """Measures the sessions and the trials, and says the rates after each trial."""
    chosen = suites.find(options.suite)
    cases = suite_module.only(chosen.cases, options.only) if options.only else chosen.cases
    chosen = replace(chosen, cases=cases, protocol=replace(chosen.protocol, budget_s=seconds(options.budget)))
    found: list[Trial] = []
    for trial in _trials(options, chosen):
        found.append(trial)
        say(line(found))


def _trials(options: Namespace, chosen: Suite) -> Iterator[Trial]:
    """The sessions, and then a run of equal code and a run with a slower row, in turns; another row each time."""
    sessions = []
    for number in range(options.sessions):
        measured, _ = _measured(options, chosen, ())
        sessions.append(Session(run=measured, reason="selftest", saved=str(measured.finished)))
        say(f"session {number + 1} of {options.sessions}: {measured.folder}")
    rows = list(ratios(sessions[-1].run).of)
    if not rows:
        raise UsageError(f"selftest --stored: the suite {chosen.name} has no two valid rows of the same work")
    for number in range(options.trials):
        for planted in (None, rows[number % len(rows)]):
            injections = () if planted is None else (f"{SLOWDOWN}@{planted}",)
            measured, workers = _measured(options, chosen, injections)
            yield Trial(planted=planted, regressed=_regressed(options, measured, sessions, workers))


def _measured(options: Namespace, chosen: Suite, injections: tuple[str, ...]) -> tuple[Run, Workers]:
    """A complete run with the given slow-downs, and the workers that measured it."""
    folder = new_folder(options.out, f"selftest-{chosen.name}")
    workers = Workers(_plugins(options), folder / "logs", libraries(chosen.cases))
    environment = collect_environment(workers, options.device, options.threads)
    known: Environment = {"fingerprint": fingerprint.fingerprint(environment), "injections": list(injections)}
    with storage.locked(folder), progress.listener(progress.console()) as listener:
        started = new_run(chosen, folder, environment | known, options.only)
        return sweep(started, workers, _plugins(options), listener), workers


def _regressed(options: Namespace, measured: Run, sessions: Sequence[Session], workers: Workers) -> frozenset[str]:
    """The rows that are called slower than their group, after further rounds of the suspects."""
    found = compare(measured, sessions)
    if wanted := suspects(measured, found):
        with storage.locked(Path(str(measured.folder))):
            extend_rounds(measured, wanted, workers, _plugins(options), seconds(options.budget))
        found = compare(storage.load(Path(str(measured.folder))), sessions)
    if found.refused:
        raise UsageError(f"selftest --stored: {'; '.join(map(str, found.refused))}")
    relative = (v for v in found.verdicts if v.metric == RELATIVE_LATENCY.name)
    return frozenset(v.case_id for v in relative if v.outcome == "regressed")


def _plugins(options: Namespace) -> tuple[str, ...]:
    return (*benches.PLUGINS, *benches.modules(options.plugin or ()))


def line(found: Sequence[Trial]) -> str:
    """The rates in one line.

    >>> line([Trial(planted="a", regressed=frozenset("a")), Trial(planted=None, regressed=frozenset())])
    'equal runs with an alarm 0/1 [0 %, 79 %]; planted rows caught 1/1 [21 %, 100 %]; alarms elsewhere in 0/1 runs'
    """
    equal = [t for t in found if t.planted is None]
    planted = [t for t in found if t.planted is not None]
    said = []
    if equal:
        said.append(f"equal runs with an alarm {_rate(sum(bool(t.regressed) for t in equal), len(equal))}")
    if planted:
        said.append(f"planted rows caught {_rate(sum(t.planted in t.regressed for t in planted), len(planted))}")
        elsewhere = sum(bool(t.regressed - {t.planted}) for t in planted)
        said.append(f"alarms elsewhere in {elsewhere}/{len(planted)} runs")
    return "; ".join(said)


def _rate(successes: int, count: int) -> str:
    low, high = wilson(successes, count)
    return f"{successes}/{count} [{percent(low, '.0')}, {percent(high, '.0')}]"
