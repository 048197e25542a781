"""One function a command: options in, exit code out. Work is done by the rooms; this file only puts them together."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import baselines.stored.compare
import baselines.stored.store
import baselines.verdict
import benches
import reports.formats.benchmark_json
import reports.formats.terminal
import reports.page.page
from baselines.stored import controls, fingerprint
from baselines.verdict import BENCHMARK_ERROR, FINE, NOTHING_MEASURED
from benches import failures, suites
from benches.ab import driver
from benches.ab.arms import OURS
from benches.cli import INTERRUPTED, listing
from benches.cli import ab as paired_commands
from benches.cli import compare as stored_commands
from benches.cli import doctor as doctor_room
from benches.cli import selftest as selftest_commands
from benches.cli.ab import REPORT_FILE
from benches.cli.compare import changed, compare_with_stored, store_of
from benches.cli.run_folders import is_paired, load_run, new_folder, paired_folder
from benches.failures import NotComparable, UsageError
from benches.preload import libraries
from harness import attempts, frames, storage, streams, weights
from harness import suite as suite_room
from harness.causes import WORDS
from harness.devices import unmeasured
from harness.processes import progress
from harness.processes.loaded_code import source_digests
from harness.processes.sweep import StorageFailed, collect_environment, new_run, remaining, sweep
from harness.processes.worker import Workers
from harness.types import Run, Suite

BROKEN = {"failed", "invalid", "timeout"}


def run(options: Namespace) -> int:
    """Measures, then compares and reports; the last line of stdout is the report's path (or the run folder's)."""
    if (options.suite is None) == (options.resume is None):
        raise UsageError("run: give a SUITE, or --resume RUN")
    if options.retry_failed and not options.resume:
        raise UsageError("run: --retry-failed measures again what failed in a run; give it with --resume RUN")
    if options.resume:
        _refuse_with_resume(options)
    plugins = (*benches.PLUGINS, *benches.modules(options.plugin or ()))
    finished = _resume(options, plugins) if options.resume else _measure(options, plugins)
    if finished is None:
        return FINE
    folder = Path(str(finished.folder))
    _print_table(finished)
    if control := controls.control(finished):
        _say(f"A/A control: {control}")
    if not options.no_report:
        comparisons = compare_with_stored(finished, store_of(options))
        for comparison in comparisons:
            _say(reports.formats.terminal.headline(comparison))
        reports.page.page.write(folder / REPORT_FILE, reports.page.page.build([finished], comparisons))
    if told := environment_words(finished):
        _say(told)
    _say(f"run {folder}")
    _say(str(folder / REPORT_FILE if not options.no_report else folder))
    return _measured_code(finished)


def report(options: Namespace) -> int:
    if is_paired(options.runs[0]):
        return _paired_report(options)
    runs = [load_run(path) for path in options.runs]
    comparisons = [c for r in runs for c in compare_with_stored(r, store_of(options))]
    path = options.out or Path(str(runs[0].folder)) / REPORT_FILE
    reports.page.page.write(path, reports.page.page.build(runs, comparisons))
    _say(str(path))
    return FINE


def _paired_report(options: Namespace) -> int:
    if len(options.runs) > 1:
        raise UsageError("report: a paired run has a page of its own; give it alone")
    folder = paired_folder(options.runs[0])
    _say(str(paired_commands.write_page(driver.decide(folder), options.out or folder / REPORT_FILE)))
    return FINE


def baseline(options: Namespace) -> int:
    root = store_of(options)
    if options.action == "list":
        return _baseline_list(root, options.json)
    save = baselines.stored.store.save_reference if options.reference else baselines.stored.store.save
    session = save(load_run(options.run), options.reason, root, force=options.force)
    _say(str(session.path))
    return FINE


def _baseline_list(root: Path, as_json: bool) -> int:
    rows = baselines.stored.store.listing_rows(root)
    if as_json:
        _say(streams.escaped(json.dumps(rows, indent=1, ensure_ascii=False), sys.stdout))
    else:
        progress.console().print(reports.formats.terminal.plain_table(rows, empty=f"no baselines below {root}"))
    return FINE


def export(options: Namespace) -> int:
    measured = load_run(options.run)
    if options.format == "pytest-benchmark":
        return _export_benchmarks(measured, options)
    frame = frames.samples_frame(measured) if options.samples else frames.cases_frame(measured)
    if options.format == "parquet":
        if options.out is None:
            raise UsageError("export: Parquet is binary; give it a file with --out FILE")
        frames.flat(frame).to_parquet(options.out, index=False)
    else:
        text = frames.to_json(frame) if options.format == "json" else frames.to_csv(frame)
        return _write(text, options.out)
    _say(str(options.out))
    return FINE


def _export_benchmarks(measured: Run, options: Namespace) -> int:
    if options.samples:
        raise UsageError("export: --format pytest-benchmark holds the samples already; leave --samples out")
    try:
        document = reports.formats.benchmark_json.document(measured)
    except reports.formats.benchmark_json.NotInstalled as error:
        raise UsageError(f"export: {error}") from None
    if apart := reports.formats.benchmark_json.pooled_medians_apart(document["benchmarks"]):
        streams.complain(f"imgbench: {apart}")
    return _write(json.dumps(document, indent=1, allow_nan=False), options.out)


def _write(text: str, path: Path | None) -> int:
    """To the file, whose path is said then, or to stdout."""
    if path is None:
        shown = streams.escaped(text, sys.stdout)
        if shown != text:
            streams.complain(
                f"imgbench: export: the encoding of stdout, {sys.stdout.encoding}, lacks characters of the table: they "
                "are written as escapes (\\u00b7); --out FILE writes UTF-8"
            )
        streams.output().write(shown if shown.endswith("\n") else shown + "\n")
    else:
        storage.write_atomically(path, text)
        _say(str(path))
    return FINE


def show(options: Namespace) -> int:
    _print_table(load_run(options.run))
    return FINE


def explain(options: Namespace) -> int:
    """Says in words how the verdicts of one row came about, of a paired run or of a stored comparison."""
    return (paired_commands if is_paired(options.run) else stored_commands).explain(options)


def replay(options: Namespace) -> int:
    """Decides again from the raw values."""
    return (paired_commands if is_paired(options.run) else stored_commands).replay(options)


def list_entries(options: Namespace) -> int:
    benches.load_plugins()
    rows = listing.rows(options.what, options.device)
    if options.json:
        _say(streams.escaped(json.dumps(rows, indent=1, ensure_ascii=False), sys.stdout))
    else:
        progress.console().print(reports.formats.terminal.plain_table(listing.for_people(options.what, rows)))
    return FINE


def doctor(options: Namespace) -> int:
    benches.load_plugins()
    findings = doctor_room.findings()
    if options.json:
        _say(streams.escaped(json.dumps(findings, indent=1, ensure_ascii=False), sys.stdout))
    else:
        progress.console().print(reports.formats.terminal.plain_table(findings))
    return FINE


def _measure(options: Namespace, plugins: tuple[str, ...]) -> Run | None:
    benches.load_plugins()
    chosen = _chosen_suite(options)
    if options.dry_run:
        for case in chosen.cases:
            _say(f"{case.id}  {case.label}")
        _say(f"{len(chosen.cases)} cases x {chosen.protocol.replicates} processes")
        return None
    _say(f"suite {chosen.name}: {len(chosen.cases)} cases x {chosen.protocol.replicates} processes")
    with tempfile.TemporaryDirectory(prefix="imgbench-") as logs:
        workers = Workers(plugins, Path(logs), libraries(chosen.cases))
        environment = collect_environment(workers, options.device, options.threads)
    if options.device is None and (told := unmeasured.at_the_start(environment)):
        _say(told)
    environment |= {
        "fingerprint": fingerprint.fingerprint(environment),
        "plugins": options.plugin or [],
        "sources": source_digests((*OURS, *plugins)),
    }
    folder = new_folder(options.out, chosen.name)
    workers.logs = folder / "logs"
    with storage.locked(folder):
        started = new_run(chosen, folder, environment, options.only)
        storage.write_atomically(folder / "suite.yaml", chosen.source)
        return _sweep(started, workers, plugins)


def _refuse_with_resume(options: Namespace) -> None:
    given = ("only", "device", "threads", "replicates", "dry_run")
    asked = [f"--{name.replace('_', '-')}" for name in given if getattr(options, name)]
    if asked:
        raise UsageError(f"--resume goes on as the run was begun; it does not take {', '.join(asked)}")


def _resume(options: Namespace, plugins: tuple[str, ...]) -> Run | None:
    benches.load_plugins()
    folder = Path(str(load_run(options.resume).folder))
    with storage.locked(folder):
        stored = storage.load(folder)
        kept = stored.environment.get("plugins", [])
        benches.load_plugins(*kept)
        plugins = (*plugins, *(p for p in benches.modules(kept) if p not in plugins))
        if stored.finished and not remaining(stored, retry_failed=options.retry_failed):
            failed = {m.case.id for m in stored.measurements if attempts.to_retry(m, retry_failed=True)}
            hint = f"; --retry-failed measures the {len(failed)} failed rows again" if failed else ""
            _say(f"nothing is missing from this run{hint}")
            return stored
        stored = weights.checked(stored)
        workers = Workers(plugins, folder / "logs", libraries(stored.cases))
        here = collect_environment(workers, stored.environment["device"], stored.environment["threads"])
        differ = [str(reason) for reason in changed(here, stored.environment)]
        if stored.environment.get("sources") not in (None, source_digests((*OURS, *plugins))):
            differ.append("the source is not that which the run was begun with")
        if differ:
            raise NotComparable(f"the conditions are not those that the run was begun under: {'; '.join(differ)}")
        storage.write_header(folder, stored)  # this adds the weight folders to an older run's header
        return _sweep(stored, workers, plugins, retry_failed=options.retry_failed)


def _sweep(started: Run, workers: Workers, plugins: tuple[str, ...], *, retry_failed: bool = False) -> Run:
    go_on = f"finished measurements are kept. Resume with: imgbench run --resume {shlex.quote(str(started.folder))}"
    try:
        with progress.listener(progress.console()) as listener:
            return sweep(started, workers, plugins, listener, retry_failed=retry_failed)
    except KeyboardInterrupt:
        _say(f"interrupted; {go_on}")
        raise SystemExit(INTERRUPTED) from None
    except (StorageFailed, OSError) as error:
        raise StorageFailed(f"the run stops: {failures.text(error)}; {go_on}") from error


def environment_words(run: Run) -> str | None:
    """One line: how many rows failed because of the environment, why, and how to resume; None if there are none."""
    found = [m for m in run.measurements if attempts.of_environment(m)]
    if not found:
        return None
    rows = len({m.case.id for m in found})
    what = "; ".join(dict.fromkeys(WORDS[m.cause] for m in found if m.cause is not None))
    return (
        f"{rows} row{'' if rows == 1 else 's'} failed because of the environment, not the code under test ({what}): "
        f"fix that, then resume with: imgbench run --resume {shlex.quote(str(run.folder))}"
    )


def _chosen_suite(options: Namespace) -> Suite:
    chosen = suites.find(options.suite)
    if options.only:
        chosen = replace(chosen, cases=suite_room.only(chosen.cases, options.only))
    if options.replicates:
        chosen = replace(chosen, protocol=replace(chosen.protocol, replicates=options.replicates))
    return chosen


def _measured_code(finished: Run) -> int:
    statuses = {m.status for m in finished.measurements}
    if "ok" not in statuses:
        return NOTHING_MEASURED
    return BENCHMARK_ERROR if statuses & BROKEN else FINE


def _print_table(measured: Run) -> None:
    console = progress.console()
    cases = frames.cases_frame(measured, reports.formats.terminal.SHOWN)
    console.print(reports.formats.terminal.table(cases, console.width))


def _say(text: str) -> None:
    progress.console().out(text, highlight=False)


COMMANDS = {
    "run": run,
    "report": report,
    "compare": stored_commands.compare,
    "baseline": baseline,
    "export": export,
    "show": show,
    "ab": paired_commands.ab,
    "selftest": selftest_commands.selftest,
    "explain": explain,
    "replay": replay,
    "list": list_entries,
    "doctor": doctor,
}
