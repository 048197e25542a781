"""`imgbench run`: measures a suite, compares it with the stored baseline, and writes the report."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

import benches
import reports.formats.terminal
import reports.page.page
from baselines.stored import controls
from baselines.verdict import BENCHMARK_ERROR, FINE, NOTHING_MEASURED
from benches import failures, suites
from benches.cli import INTERRUPTED, run_start
from benches.cli.arguments import add_measuring, add_store, positive, seconds, store_of
from benches.cli.compare import changed, compare_with_stored
from benches.cli.printing import print_table, say
from benches.cli.run_folders import REPORT_FILE, load_run, run_folder
from benches.failures import NotComparable, UsageError
from benches.preload import libraries
from harness import attempts, storage, weights
from harness import suite as suite_module
from harness.causes import WORDS
from harness.devices import unmeasured
from harness.processes.worker import Workers
from harness.sweeping import progress
from harness.sweeping.sweep import StorageFailed, collect_environment, complete, sweep
from harness.types import Protocol, Run, Suite
from harness.units import counted

BROKEN = {"failed", "invalid", "timeout"}


def arguments(command: ArgumentParser) -> None:
    command.add_argument("suite", nargs="?", metavar="SUITE", help="a built-in suite's name, or a YAML file")
    command.add_argument("--resume", type=Path, metavar="RUN", help="finish an interrupted run instead")
    command.add_argument("--retry-failed", action="store_true", help="with --resume: also measure failed rows again")
    add_measuring(command, threads="as many as")
    command.add_argument(
        "--replicates", type=positive, metavar="N", help="fewest processes per case, instead of the suite's number"
    )
    command.add_argument(
        "--budget",
        metavar="TIME",
        help="time limit of the measurement, such as 90s, 10m or 1h; every row is measured once and in one round, "
        "whatever the limit",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="measure one round with few samples, without quality and stages: a first look in little time",
    )
    command.add_argument(
        "--fresh-builds",
        action="store_true",
        help="build anew in each process of a round, so that the ratios include how much builds differ",
    )
    command.add_argument("--no-report", action="store_true", help="neither compare nor write a report")
    command.add_argument("--dry-run", action="store_true", help="print the cases and stop")
    add_store(command)


def run(options: Namespace) -> int:
    """Measures, then compares and reports; the last line of stdout is the report's path (or the run folder's)."""
    if options.retry_failed and not options.resume:
        raise UsageError("run: --retry-failed measures the failed rows of a run again, so it needs --resume RUN")
    if options.suite is not None and options.resume:
        raise UsageError(f"run: --resume continues a run of its own suite, so it does not take SUITE ({options.suite})")
    if options.suite is None and not options.resume:
        raise UsageError("run: SUITE is missing; give a suite, or --resume RUN to finish an interrupted run")
    if options.resume:
        _refuse_with_resume(options)
    plugins = run_start.modules(options.plugin or ())
    finished = _resume(options, plugins) if options.resume else _measure(options, plugins)
    if finished is None:
        return FINE
    folder = Path(str(finished.folder))
    print_table(finished)
    one_row = any(c.side in {"a", "b"} for c in finished.controls)  # the notes of the table have those of the rounds
    if one_row and (control := controls.control(finished)):
        say(f"A/A control: {control}")
    if not options.no_report:
        comparisons = compare_with_stored(finished, store_of(options))
        for comparison in comparisons:
            say(reports.formats.terminal.headline(comparison))
        reports.page.page.write(folder / REPORT_FILE, reports.page.page.build([finished], comparisons))
    if line := environment_words(finished):
        say(line)
    say(f"run {folder}")
    say(str(folder / REPORT_FILE if not options.no_report else folder))
    return _measured_code(finished)


def _measure(options: Namespace, plugins: tuple[str, ...]) -> Run | None:
    benches.load_plugins()
    chosen = _chosen_suite(options)
    if options.dry_run:
        for case in chosen.cases:
            say(f"{case.id}  {case.label}")
        say(_extent(chosen))
        return None
    say(f"suite {chosen.name}: {_extent(chosen)}")
    workers = Workers(plugins, options.out, libraries(chosen.cases))
    environment = run_start.conditions(workers, options.plugin or (), options.device, options.threads)
    if options.device is None and (reason := unmeasured.at_the_start(environment)):
        say(str(reason))
    with run_start.started(chosen, options.out, environment, workers, options.only) as started:
        return _sweep(started, workers, plugins)


def _refuse_with_resume(options: Namespace) -> None:
    names = ("only", "device", "threads", "replicates", "budget", "quick", "fresh_builds", "dry_run")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    if given:
        raise UsageError(f"--resume continues a run with its own settings, so it does not take {', '.join(given)}")


def _resume(options: Namespace, plugins: tuple[str, ...]) -> Run | None:
    benches.load_plugins()
    folder = run_folder(options.resume)
    with storage.locked(folder):
        stored = load_run(folder)
        kept = stored.environment.get("plugins", [])
        benches.load_plugins(*kept)
        plugins = (*plugins, *(p for p in benches.modules(kept) if p not in plugins))
        if stored.finished and complete(stored, retry_failed=options.retry_failed):
            failed = {m.case.id for m in stored.measurements if attempts.to_retry(m, retry_failed=True)}
            hint = f"; --retry-failed measures the {len(failed)} failed rows again" if failed else ""
            say(f"nothing is missing from this run{hint}")
            return stored
        stored = weights.checked(stored)
        workers = Workers(plugins, folder / "logs", libraries(stored.cases))
        here = collect_environment(workers, stored.environment["device"], stored.environment["threads"])
        differ = [str(reason) for reason in changed(here, stored.environment)]
        if stored.environment.get("sources") not in (None, run_start.sources(plugins)):
            differ.append("the source code has changed since the run began")
        if differ:
            raise NotComparable(f"the conditions have changed since the run began: {'; '.join(differ)}")
        storage.write_header(folder, stored)  # adds the folders of weights to the header of an older run
        return _sweep(stored, workers, plugins, retry_failed=options.retry_failed)


def _sweep(started: Run, workers: Workers, plugins: tuple[str, ...], *, retry_failed: bool = False) -> Run:
    go_on = f"finished measurements are kept. Resume with: imgbench run --resume {shlex.quote(str(started.folder))}"
    try:
        with progress.listener(progress.console()) as listener:
            return sweep(started, workers, plugins, listener, retry_failed=retry_failed)
    except KeyboardInterrupt:
        say(f"interrupted; {go_on}")
        raise SystemExit(INTERRUPTED) from None
    except (StorageFailed, OSError) as error:
        raise StorageFailed(f"the run stops: {failures.text(error)}; {go_on}") from error


def environment_words(run: Run) -> str | None:
    """One line with the number of rows that failed because of the environment, the causes, and how to resume; None if
    there are none."""
    found = [m for m in run.measurements if attempts.of_environment(m)]
    if not found:
        return None
    rows = len({m.case.id for m in found})
    what = "; ".join(dict.fromkeys(WORDS[m.cause] for m in found if m.cause is not None))
    return (
        f"{rows} row{'' if rows == 1 else 's'} failed because of the environment, not the code under test ({what}): "
        f"fix the cause, then resume with: imgbench run --resume {shlex.quote(str(run.folder))}"
    )


def _chosen_suite(options: Namespace) -> Suite:
    chosen = suites.find(options.suite)
    if options.only:
        chosen = replace(chosen, cases=suite_module.only(chosen.cases, options.only))
    if options.quick:
        chosen = replace(chosen, protocol=quick(chosen.protocol))
    if options.replicates:
        chosen = replace(chosen, protocol=replace(chosen.protocol, replicates=options.replicates))
    if options.fresh_builds:
        chosen = replace(chosen, protocol=replace(chosen.protocol, fresh_builds=True))
    if options.budget:
        chosen = replace(chosen, protocol=replace(chosen.protocol, budget_s=seconds(options.budget)))
    return chosen


def quick(protocol: Protocol) -> Protocol:
    """One round and few samples, without quality and stages. A baseline of the whole protocol is not compared with
    it."""
    return replace(
        protocol,
        replicates=2,
        ratio_interval=None,
        min_samples=3,
        min_sample_time_s=min(protocol.min_sample_time_s, 0.1),
        max_sample_time_s=min(protocol.max_sample_time_s, 1.0),
        warmup_min_s=min(protocol.warmup_min_s, 0.1),
        warmup_max_s=min(protocol.warmup_max_s, 1.0),
        quality=False,
        stages=False,
    )


def _extent(suite: Suite) -> str:
    """'35 cases x at least 3 processes'."""
    protocol = suite.protocol
    further = protocol.rounds and protocol.replicates > 1 and protocol.ratio_interval is not None
    least = "at least " if further else ""
    return f"{counted(len(suite.cases), 'case')} x {least}{counted(protocol.replicates, 'process')}"


def _measured_code(finished: Run) -> int:
    statuses = {m.status for m in finished.measurements}
    if "ok" not in statuses:
        return NOTHING_MEASURED
    return BENCHMARK_ERROR if statuses & BROKEN else FINE
