"""The commands of the paired rule: ab, explain, replay. Options in, exit code out."""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

import benches
from baselines.paired.decision import RULE
from baselines.paired.verdicts import AS_THINGS_ARE
from baselines.verdict import BENCHMARK_ERROR, FINE, MEANINGS, NOT_COMPARABLE, USAGE, Comparison, exit_code
from benches import failures, suites
from benches.ab import arms, driver
from benches.cli import ci
from benches.cli.arguments import add_measuring, seconds
from benches.cli.ci import write_artifacts
from benches.cli.decisions import COMPARISON_FILE, row_named
from benches.cli.printing import print_comparison, say
from benches.cli.run_folders import REPORT_FILE, new_folder, paired_folder
from benches.failures import NotComparable
from harness import storage, streams
from harness import suite as suite_module
from harness.paired import paired_run
from harness.processes import threads
from harness.reasons import stated
from harness.sweeping import progress
from harness.types import Suite
from reports.formats import comparison_json
from reports.page import page, paired_page


def arguments(command: ArgumentParser) -> None:
    command.add_argument(
        "suite", metavar="SUITE", help="a built-in suite's name (gate is made for this), or a YAML file"
    )
    for name in ("base", "head"):
        command.add_argument(
            f"--{name}",
            action="append",
            metavar="ARM",
            help="comma-separated: ref=GITREF, python=PATH, env:NAME=VALUE, AXIS=VALUE, inject:KIND=SIZE "
            "(default: nothing is changed)",
        )
    command.add_argument(
        "--budget", default="10m", metavar="TIME", help="time limit of the measurement, such as 90s, 10m or 1h (10m)"
    )
    command.add_argument(
        "--project", type=Path, metavar="FOLDER", help="git repository of ref= (default: that of the current folder)"
    )
    add_measuring(command, threads="one fewer than")
    command.add_argument(
        "--seed", type=int, metavar="N", help="seed of the random order (default: a new one, which is stored)"
    )
    command.add_argument("--strict", action="store_true", help="exit with 11 for inconclusive verdicts")
    command.add_argument("--exit-zero", action="store_true", help="always exit with 0 (advisory)")
    ci.arguments(command)


def run(options: Namespace) -> int:
    """Compares base with head; the last line of stdout is the run folder. If an error other than a wrong command line
    ends the run, the artefacts contain it, too. Raises UsageError, NoSuchDevice, ArmFailed and NotComparable."""
    benches.load_plugins()
    suite = suite_of(options)
    base, head = (",".join(getattr(options, name) or []) for name in ("base", "head"))
    project = options.project.resolve() if options.project else arms.project_here()
    try:
        asked = asked_of(options, suite, (base, head), options.seed, project)
        folder = new_folder(options.out, f"ab-{suite.name}")
        found = measured(asked, folder)
    except Exception as error:
        if failures.exit_code(error) != USAGE:
            _tell(options, unanswered(suite, (base, head), error))
        if isinstance(error, NotComparable) and options.exit_zero:
            streams.complain(f"imgbench: {error}")
            return FINE
        raise
    return finish(options, found, folder)


def _tell(options: Namespace, comparison: Comparison) -> None:
    """Writes the artefacts of a run without a result. An error of writing is printed and does not replace the first
    error."""
    try:
        write_artifacts(options, comparison)
    except OSError as error:
        streams.complain(f"imgbench: {failures.text(error)}")


def unanswered(suite: Suite, texts: tuple[str, str], error: Exception) -> Comparison:
    """The comparison of a run without a result, with the reason."""
    arms_in_words = (texts[0] or AS_THINGS_ARE, texts[1] or AS_THINGS_ARE)
    return Comparison(
        run_id="",
        suite=suite.name,
        baseline=f"base ({arms_in_words[0]})",
        scope="all",
        rule="paired",
        arms=arms_in_words,
        refused=(stated(failures.text(error)),),
        error=failures.exit_code(error) == BENCHMARK_ERROR,
    )


def asked_of(options: Namespace, suite: Suite, texts: tuple[str, str], seed: int | None, project: Path) -> driver.Asked:
    """What is to be measured, with both arms ready to be started. Raises UsageError, ArmFailed if an arm cannot be
    installed, and NotComparable if both are the same code."""
    budget = seconds(options.budget)
    requests = arms.parse("base", texts[0]), arms.parse("head", texts[1])
    for request in requests:
        arms.checked(request, suite.cases)
    wanted = arms.all_in_full(requests, suite.cases)
    base, head = (arms.prepare(request, project, cache_root(), say) for request in wanted)
    if (same := arms.same_code(requests, base, head)) is not None:
        raise NotComparable(same)
    return driver.Asked(
        suite=suite,
        base=base,
        head=head,
        budget_s=budget,
        device=options.device,
        threads=threads.chosen(options.threads, spare=1),
        seed=driver.seed_of(seed),
        plugins=benches.modules(options.plugin or ()),
        paths=(str(Path.cwd()), *benches.folders(options.plugin or ())),
        project=project,
    )


def measured(asked: driver.Asked, folder: Path) -> driver.Decided:
    """Measures one paired run into `folder`. An interrupted run keeps its measurements."""
    try:
        with storage.locked(folder), progress.status(progress.console()) as tell:
            return driver.run(asked, folder, tell)
    except KeyboardInterrupt:
        if paired_run.is_paired(folder):
            say(f"interrupted; the measurements are kept. Decide on them with: imgbench replay {folder}")
        raise


def finish(options: Namespace, decided: driver.Decided, folder: Path) -> int:
    """Writes every artefact and prints the verdicts before it decides the exit code."""
    comparison = decided.comparison
    print_comparison(comparison)
    write_artifacts(options, comparison)
    storage.write_atomically(folder / COMPARISON_FILE, comparison_json.text(comparison, strict=options.strict))
    report = write_page(decided, folder / REPORT_FILE, strict=options.strict)
    code = exit_code(comparison, strict=options.strict)
    say(f"exit code {code}: {MEANINGS[code]}")
    say(f"report {report}")
    say(str(folder))
    return FINE if options.exit_zero else code


def write_page(decided: driver.Decided, path: Path, *, strict: bool = False) -> Path:
    """The HTML page of a paired run."""
    page.write(path, paired_page.build(decided.decider, decided.comparison, strict=strict))
    return path


def explain(options: Namespace) -> int:
    """Explains how the verdicts on one row were reached."""
    decided = driver.decide(paired_folder(options.run))
    decider, comparison = decided.decider, decided.comparison
    proof = decider.run.proof
    row = row_named(options.row, comparison.verdicts)
    say(f"{row.label}  ({row.case_id})")
    for line in proof:
        say(f"  {line}")
    for verdict in (v for v in comparison.verdicts if v.case_id == row.case_id):
        say(f"{verdict.metric}: {verdict.outcome}{'' if verdict.gating else ' (advisory)'}: {verdict.reason}")
        for question in decider.decision.questions.values():
            if (question.key.row, question.key.metric) == (verdict.case_id, verdict.metric):
                for look in question.looks:
                    say(f"    {look}")
    for contention, number in decider.left_out(row.case_id).items():
        say(f"  pairs left out: {number} x {contention}")
    for reason in (*comparison.contended, *comparison.notes[len(proof) :]):
        say(f"  {reason}")
    return FINE


def replay(options: Namespace) -> int:
    """Decides again from the raw values, and compares the result with the stored decision, bit for bit."""
    folder = paired_folder(options.run)
    decided = driver.decide(folder)
    path = folder / COMPARISON_FILE
    if not path.exists():
        say(comparison_json.text(decided.comparison))
        say(f"{folder} has no stored decision; this is the decision from its raw values")
        return FINE
    changes = comparison_json.changes(comparison_json.read(path), decided.comparison)
    if not changes:
        say(f"{folder}: the decision from the raw values is bit for bit the same as the stored one")
        return FINE
    say(f"{folder}: the raw values give another decision than the stored one:")
    if (rule := decided.decider.run.rule) != RULE:
        say(f"  the stored decision is by version {rule} of the rule, and this imgbench has version {RULE}")
    for line in changes:
        say(f"  {line}")
    return NOT_COMPARABLE


def cache_root() -> Path:
    """The folder of the environments of git refs."""
    given = os.environ.get("IMGBENCH_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgbench"
    except RuntimeError:  # a user without a home, as in a container
        return Path(tempfile.gettempdir()) / f"imgbench-{os.getuid()}"


def suite_of(options: Namespace) -> Suite:
    """The requested suite. Folders of weights have absolute paths, because they are part of a row's id."""
    chosen = suites.find(options.suite)
    cases = suite_module.only(chosen.cases, options.only) if options.only else chosen.cases
    return replace(chosen, cases=tuple(c.with_(weights=arms.in_full(c.weights, [c])) for c in cases))
