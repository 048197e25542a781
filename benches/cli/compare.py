"""The commands of the stored rule: compare with stored sessions, measure suspects again, explain and replay."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import baselines.stored.compare
import baselines.stored.store
import benches
from baselines.stored import explanation as sessions_in_words
from baselines.stored import fingerprint
from baselines.stored.suspects import suspects
from baselines.verdict import FINE, NOT_COMPARABLE, Comparison, exit_code
from baselines.wording import ReasonKind, because
from benches.cli import ci, run_start
from benches.cli.arguments import add_store, seconds, store_of
from benches.cli.ci import write_artifacts
from benches.cli.decisions import COMPARISON_FILE, id_named, row_named
from benches.cli.printing import print_comparison, say, say_json
from benches.cli.run_folders import load_run
from benches.failures import UsageError
from benches.preload import libraries
from harness import storage, streams, weights
from harness.devices import NoSuchDevice
from harness.processes.environment import host_hash
from harness.processes.threads import ThreadsRefused
from harness.processes.worker import Workers
from harness.reasons import STATED, Reason, stated
from harness.registry import UnknownName
from harness.sweeping import planning
from harness.sweeping.sweep import EnvironmentFailed, StorageFailed, collect_environment, extend, extend_rounds
from harness.timing import perf_counter
from harness.types import Case, Run
from harness.units import counted
from harness.weights import WeightsChanged
from reports.formats import comparison_json


def arguments(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")
    command.add_argument(
        "--strict", action="store_true", help="exit with 11 for inconclusive verdicts and with 12 for new metrics"
    )
    command.add_argument("--allow-new", action="store_true", help="accept rows and metrics that no session has")
    command.add_argument("--exit-zero", action="store_true", help="always exit with 0 (advisory)")
    command.add_argument("--json", action="store_true", help="print the comparison as JSON")
    command.add_argument(
        "--budget", default="2m", metavar="TIME", help="time limit for measuring suspects again (2m; 0 disables it)"
    )
    command.add_argument(
        "--max-age", type=_days, default=180.0, metavar="DAYS", help="leave out sessions that are older (180)"
    )
    ci.arguments(command)
    add_store(command)


def run(options: Namespace) -> int:
    """Compares a run with the stored sessions. Suspects are measured again first, if this machine can do so."""
    if options.json and options.annotations:
        raise UsageError("compare: --json and --annotations both write to stdout; use --json-file FILE for the JSON")
    budget_s = seconds(options.budget, zero=True)
    measured = load_run(options.run)
    comparison = _against_store(measured, store_of(options), options.max_age, allow_new=options.allow_new)
    if wanted := suspects(measured, comparison):
        told = (_measured_again(measured, wanted, budget_s, quiet=options.json),)
        if _added_processes(told[0]):
            measured = storage.load(Path(str(measured.folder)))
        comparison = _against_store(measured, store_of(options), options.max_age, told, allow_new=options.allow_new)
    _keep(measured, comparison, strict=options.strict)
    write_artifacts(options, comparison)
    if options.json:
        say_json(comparison_json.document(comparison, strict=options.strict))
    else:
        print_comparison(comparison)
    code = exit_code(comparison, strict=options.strict)
    return FINE if options.exit_zero else code


def _keep(run: Run, comparison: Comparison, *, strict: bool) -> None:
    """Stores the decision beside the run, for `replay`. A read-only run folder is no error."""
    try:
        storage.write_atomically(
            Path(str(run.folder)) / COMPARISON_FILE, comparison_json.text(comparison, strict=strict)
        )
    except OSError as error:
        streams.complain(f"the comparison cannot be stored: {error}")


def _added_processes(told: Reason) -> bool:
    """Whether the run may have further processes now: also where an error ended the measuring half-way."""
    return (
        told.kind in {ReasonKind.MEASURED_AGAIN, ReasonKind.ROUNDS_MEASURED_AGAIN} or told.data["reason"].kind == STATED
    )


def _measured_again(run: Run, wanted: Mapping[Case, int], budget_s: float, *, quiet: bool) -> Reason:
    """Measures further processes of the suspected rows, or rounds of a run with rounds, into the run's folder. Returns
    the result as a reason."""

    def refused(reason: Reason) -> Reason:
        return because(ReasonKind.NOT_MEASURED_AGAIN, rows=len(wanted), reason=reason, suite=run.suite)

    if budget_s == 0:
        return refused(because(ReasonKind.NO_BUDGET))
    if run.environment.get("host_hash") != host_hash():
        return refused(because(ReasonKind.ANOTHER_HOST))
    kept = run.environment.get("plugins", [])
    plugins = run_start.modules(kept)
    try:
        benches.load_plugins(*kept)
    except UsageError as error:
        return refused(stated(str(error)))
    if run.environment.get("sources") != run_start.sources(plugins):
        return refused(because(ReasonKind.OTHER_CODE))
    began, folder = perf_counter(), Path(str(run.folder))
    planned = sum(wanted.values())
    further = extend_rounds if planning.in_rounds(run) else extend
    try:
        with storage.locked(folder):
            workers = Workers(plugins, folder / "logs", libraries(run.cases))
            here = collect_environment(workers, run.environment["device"], run.environment["threads"])
            if differ := changed(here, run.environment):
                return refused(because(ReasonKind.OTHER_CONDITIONS_NOW, differences=differ[:3]))
            if not quiet:
                rows = counted(len(wanted), "suspected row")
                say(f"measuring {rows} again for at most {budget_s:.0f} s")
            done = further(
                weights.checked(storage.load(folder)), wanted, workers, plugins, budget_s - (perf_counter() - began)
            )
    except (
        EnvironmentFailed,
        NoSuchDevice,
        ThreadsRefused,
        UnknownName,
        WeightsChanged,
        StorageFailed,
        storage.RunBusy,
        OSError,
    ) as error:
        return refused(stated(str(error)))
    if planning.in_rounds(run):
        return because(
            ReasonKind.ROUNDS_MEASURED_AGAIN, rows=len(wanted), rounds=done, planned=planned, suite=run.suite
        )
    return because(ReasonKind.MEASURED_AGAIN, rows=len(wanted), processes=done, planned=planned, suite=run.suite)


def explain(options: Namespace) -> int:
    """Explains how the verdicts on one row were reached."""
    run = load_run(options.run)
    path = Path(str(run.folder)) / COMPARISON_FILE
    comparison = _decided_again(run, comparison_json.read(path) if path.exists() else None, options)
    if comparison.refused:
        id_named(options.row, {case.id: case.label for case in run.cases})
        for line in ("not compared:", *(f"  {reason}" for reason in comparison.refused)):
            say(line)
        return NOT_COMPARABLE
    row = row_named(options.row, comparison.verdicts)
    say(f"{row.label}  ({row.case_id})")
    against = {s.run.id: s for s in baselines.stored.store.find(run, store_of(options))}
    say(f"  against {comparison.baseline} ({comparison.scope}): {counted(comparison.sessions, 'session')}")
    for verdict in (v for v in comparison.verdicts if v.case_id == row.case_id):
        say(f"{verdict.metric}: {verdict.outcome}{'' if verdict.gating else ' (advisory)'}: {verdict.reason}")
        used = [against[i].run for i in comparison.against if i in against]
        for line in sessions_in_words.lines(run, used, verdict):
            say(f"    {line}")
    for note in (*comparison.contended, *comparison.notes):
        say(f"  {note}")
    return FINE


def replay(options: Namespace) -> int:
    """Decides again from the run's raw values and the same stored sessions, and compares the decisions bit for bit."""
    run = load_run(options.run)
    path = Path(str(run.folder)) / COMPARISON_FILE
    if not path.exists():
        raise UsageError(f"{run.folder} holds no stored comparison (imgbench compare writes it)")
    stored = comparison_json.read(path)
    changes = comparison_json.changes(stored, _decided_again(run, stored, options))
    if not changes:
        say(f"{run.folder}: the decision from the raw values is bit for bit the same as the stored one")
        return FINE
    say(f"{run.folder}: the raw values give another decision than the stored one:")
    for line in changes:
        say(f"  {line}")
    return NOT_COMPARABLE


def _decided_again(run: Run, stored: comparison_json.StoredComparison | None, options: Namespace) -> Comparison:
    """The comparison of the run's raw values with the sessions that its stored comparison names."""
    if stored is None:
        return _against_store(run, store_of(options))
    age = baselines.stored.compare.MAX_AGE_DAYS if stored.max_age_days is None else stored.max_age_days
    return _against_store(
        run, store_of(options), age, stored.measured_again, stored.considered, allow_new=stored.allow_new
    )


def compare_with_stored(measured: Run, root: Path) -> tuple[Comparison, ...]:
    """The comparison with the stored baseline or the reference run; empty if neither is stored."""
    comparison = _against_store(measured, root)
    return () if comparison.absent else (comparison,)


def changed(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Reason]:
    """Every condition in which this process differs from the header of a run to continue: machine, host, versions,
    commit."""
    kinds = (fingerprint.differences, fingerprint.soft_differences, fingerprint.software_differences)
    found = [reason for kind in kinds for reason in kind(here, there)]
    return [replace(r, kind=ReasonKind.FIELD_CHANGED) if r.kind == ReasonKind.FIELD_DIFFERS else r for r in found]


def _against_store(
    measured: Run,
    root: Path,
    max_age_days: float = baselines.stored.compare.MAX_AGE_DAYS,
    told: tuple[Reason, ...] = (),
    only: tuple[str, ...] | None = None,
    *,
    allow_new: bool = False,
) -> Comparison:
    planned = {case.id for case in measured.cases} if measured.selection else None
    found = baselines.stored.compare.compare_stored(
        measured, root, planned=planned, max_age_days=max_age_days, only=only, allow_new=allow_new
    )
    return baselines.stored.compare.with_notes(found, told)


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < float("inf"):
        raise ArgumentTypeError(f"{text!r} must be a number of days, 0 or more")
    return days
