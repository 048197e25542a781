"""The commands of the paired rule: ab, explain, replay. Options in, exit code out."""

from __future__ import annotations

import json
import os
import re
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict

import benches
import reports.formats.terminal
from baselines.paired.decider import replayed
from baselines.paired.decision import RULE
from baselines.paired.verdicts import AS_THINGS_ARE
from baselines.verdict import BENCHMARK_ERROR, FINE, MEANINGS, NOT_COMPARABLE, USAGE, Comparison, Verdict, exit_code
from benches import failures, suites
from benches.ab import arms
from benches.ab import driver as ab_room
from benches.cli.run_folders import new_folder, paired_folder
from benches.failures import NotComparable, UsageError
from harness import storage, streams, strict_json
from harness import suite as suite_room
from harness.paired import paired_run
from harness.processes import progress, threads
from harness.stored_types import check
from harness.types import Suite
from reports.ci import artifacts
from reports.page import page, paired_page

COMPARISON_FILE = "comparison.json"
REPORT_FILE = "report.html"
UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


class StoredVerdict(TypedDict):
    """The keys of a stored verdict that are read."""

    case_id: str
    metric: str
    outcome: str


class StoredComparison(TypedDict, total=False):
    """The keys of a stored comparison that are read."""

    considered: list[str]
    notes: list[str]
    max_age_days: float | None
    allow_new: bool
    verdicts: list[StoredVerdict]


def ab(options: Namespace) -> int:
    """Measures base against head; the last line of stdout is the run folder. Whatever error ends the measuring, but for
    a wrong command line, the artefacts say so too. Raises UsageError, NoSuchDevice, ArmFailed and NotComparable."""
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
    """Writes the artefacts of a run that gave no answer. What keeps them from being written is not what ended it."""
    try:
        write_artifacts(options, comparison)
    except OSError as error:
        streams.complain(f"imgbench: {failures.text(error)}")


def unanswered(suite: Suite, texts: tuple[str, str], error: Exception) -> Comparison:
    """The comparison of a run that gave none, with the reason."""
    arms_in_words = (texts[0] or AS_THINGS_ARE, texts[1] or AS_THINGS_ARE)
    return Comparison(
        run_id="",
        suite=suite.name,
        baseline=f"base ({arms_in_words[0]})",
        scope="all",
        rule="paired",
        arms=arms_in_words,
        refused=(failures.text(error),),
        error=failures.exit_code(error) == BENCHMARK_ERROR,
    )


def asked_of(
    options: Namespace, suite: Suite, texts: tuple[str, str], seed: int | None, project: Path
) -> ab_room.Asked:
    """What is to be measured, with both arms ready to be started. Raises UsageError, ArmFailed where one cannot be
    installed, and NotComparable where both are the same code."""
    budget = seconds(options.budget)
    requests = arms.parse("base", texts[0]), arms.parse("head", texts[1])
    for request in requests:
        arms.checked(request, suite.cases)
    wanted = arms.all_in_full(requests, suite.cases)
    base, head = (arms.prepare(request, project, cache_root(), say) for request in wanted)
    if (same := arms.same_code(requests, base, head)) is not None:
        raise NotComparable(same)
    return ab_room.Asked(
        suite=suite,
        base=base,
        head=head,
        budget_s=budget,
        device=options.device,
        threads=threads.chosen(options.threads, spare=1),
        seed=ab_room.seed_of(seed),
        plugins=benches.modules(options.plugin or ()),
        paths=(str(Path.cwd()), *benches.folders(options.plugin or ())),
        project=project,
    )


def measured(asked: ab_room.Asked, folder: Path) -> Comparison:
    """One paired run into `folder`; an interrupted one keeps its blocks."""
    try:
        with storage.locked(folder), progress.status(progress.console()) as tell:
            return ab_room.run(asked, folder, tell)
    except KeyboardInterrupt:
        if paired_run.is_paired(folder):
            say(f"interrupted; what was measured is kept: imgbench replay {folder}")
        raise


def finish(options: Namespace, comparison: Comparison, folder: Path) -> int:
    """Writes every artefact, prints the verdicts, and only then decides the exit code."""
    print_comparison(comparison)
    write_artifacts(options, comparison)
    storage.write_atomically(folder / COMPARISON_FILE, as_json(comparison))
    report = write_page(folder, folder / REPORT_FILE, strict=options.strict)
    code = exit_code(comparison, strict=options.strict)
    say(f"exit code {code}: {MEANINGS[code]}")
    say(f"report {report}")
    say(str(folder))
    return FINE if options.exit_zero else code


def write_page(folder: Path, path: Path, *, strict: bool = False) -> Path:
    """The HTML page of a stored paired run."""
    header = paired_run.load(folder)
    judge = replayed(header, paired_run.processes(folder))
    page.write(path, paired_page.build(judge, ab_room.decide(folder), strict=strict))
    return path


def write_artifacts(options: Namespace, comparison: Comparison) -> None:
    """What the options for CI ask for."""
    targets = artifacts.Targets(
        junit=options.junit,
        markdown=options.markdown,
        comment=options.comment,
        badge=options.badge,
        json=options.json_file,
        step_summary=options.step_summary,
        annotations=options.annotations,
    )
    artifacts.write(comparison, targets, say, strict=options.strict)


def explain(options: Namespace) -> int:
    """Says in words how the verdicts of one row came about."""
    folder = paired_folder(options.run)
    header = paired_run.load(folder)
    judge = replayed(header, paired_run.processes(folder))
    comparison = ab_room.decide(folder)
    row = row_named(options.row, comparison.verdicts)
    say(f"{row.label}  ({row.case_id})")
    for line in header.proof:
        say(f"  {line}")
    for verdict in (v for v in comparison.verdicts if v.case_id == row.case_id):
        say(f"{verdict.metric}: {verdict.outcome}{'' if verdict.gating else ' (advisory)'}: {verdict.reason}")
        for question in judge.decision.questions.values():
            if (question.key.row, question.key.metric) == (verdict.case_id, verdict.metric):
                for look in question.looks:
                    say(f"    {look}")
    for reason in dict.fromkeys(judge.drops.get(row.case_id, [])):
        say(f"  pairs dropped: {judge.drops[row.case_id].count(reason)} x {reason}")
    for line in (*comparison.contaminated, *comparison.notes[len(header.proof) :]):
        say(f"  {line}")
    return FINE


def replay(options: Namespace) -> int:
    """Decides again from the raw blocks, and compares with what was decided then, bit for bit."""
    folder = paired_folder(options.run)
    again = as_json(ab_room.decide(folder))
    stored = folder / COMPARISON_FILE
    if not stored.exists():
        say(again)
        say(f"{folder} holds no stored decision: this is the one that its blocks give")
        return FINE
    if stored_text(stored) == again:
        say(f"{folder}: decided again from the raw values: bit for bit the same")
        return FINE
    say(f"{folder}: the raw values give another decision than the stored one")
    if (rule := paired_run.load(folder).rule) != RULE:
        say(f"  it was decided by version {rule} of the rule, and this is version {RULE}")
    for line in changes(stored_json(stored), json.loads(again)):
        say(f"  {line}")
    return NOT_COMPARABLE


def stored_json(path: Path) -> dict[str, Any]:
    """A stored comparison. Raises UnreadableRun."""
    try:
        found = strict_json.read(path)
    except OSError as error:
        raise storage.UnreadableRun(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise storage.UnreadableRun(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise storage.UnreadableRun(f"{path}: not a comparison")
    try:
        check(found, StoredComparison, "comparison")
    except ValueError as error:
        raise storage.UnreadableRun(f"{path}: {error}") from None
    return found


def stored_text(path: Path) -> str:
    """The text of a stored comparison. Raises UnreadableRun if the file does not hold one."""
    stored_json(path)
    return path.read_text(encoding="utf-8")


def as_json(comparison: Comparison) -> str:
    return json.dumps(asdict(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def seconds(text: str, *, zero: bool = False) -> float:
    """Seconds of a duration such as "90", "90s", "10m", "1h" or "1h30m"; 0 only where `zero` allows it."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text or not all(u for _, u in parts[:-1]):
        raise UsageError(f"--budget: {text!r} must be a duration such as 90s, 10m or 1h30m")
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if total <= 0 and not zero:
        raise UsageError("--budget: must be more than 0")
    return total


def cache_root() -> Path:
    """Where environments of git refs are kept."""
    given = os.environ.get("IMGBENCH_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgbench"
    except RuntimeError:  # a user without a home, as in a container
        return Path(tempfile.gettempdir()) / f"imgbench-{os.getuid()}"


def print_comparison(comparison: Comparison) -> None:
    progress.console().print(reports.formats.terminal.verdicts(comparison))
    for line in comparison.notes:
        say(line)
    for line in comparison.contaminated:
        say(f"contaminated: {line}")
    say(reports.formats.terminal.headline(comparison))


def say(text: str) -> None:
    progress.console().out(text, highlight=False)


def suite_of(options: Namespace) -> Suite:
    """The suite that is asked for, folders of weights by their absolute paths, which are part of a row's id."""
    chosen = suites.find(options.suite)
    cases = suite_room.only(chosen.cases, options.only) if options.only else chosen.cases
    return replace(chosen, cases=tuple(c.with_(weights=arms.in_full(c.weights, [c])) for c in cases))


def row_named(asked: str, verdicts: Sequence[Verdict]) -> Verdict:
    """The row that `asked` names: its id, or a part of its id or label that only one row has."""
    rows = list({v.case_id: v for v in verdicts}.values())
    exact = [v for v in rows if asked in {v.case_id, v.label}]
    found = exact or [v for v in rows if asked in v.case_id or asked in v.label]
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(f"{v.case_id}  {v.label}" for v in found or rows)
    raise UsageError(f"explain: {asked!r} names {len(found)} rows; give one of\n  {listed}")


def changes(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The fields in which two stored comparisons differ, in words."""
    found = [
        f"{k}: {there.get(k)!r} stored, {here.get(k)!r} now"
        for k in here
        if k != "verdicts" and there.get(k) != here[k]
    ]
    stored = {(v["case_id"], v["metric"]): v for v in there.get("verdicts", [])}
    for verdict in here["verdicts"]:
        before = stored.get((verdict["case_id"], verdict["metric"]))
        if before != verdict:
            outcome = before["outcome"] if before else "absent"
            found.append(f"{verdict['label']} {verdict['metric']}: {outcome} stored, {verdict['outcome']} now")
    return found
