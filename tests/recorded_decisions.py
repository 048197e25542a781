"""What imgbench decides of stored artefacts, field by field, without its sentences.

    decisions(corpus)          # {"runs": {...}, "compared": {...}, "paired": {...}, "stores": {...}, ...}

`python tests/recorded_decisions.py` writes it beside the corpus. Run under the version that wrote the artefacts, it
gives the expected values of `test_recorded_verdicts.py`. The commands give what they can, the functions below "By
function" the rest. The imports of this file are the only ones that the test needs.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import lzma
import math
import re
import tarfile
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from baselines.detector.recorded import load as load_recording
from baselines.stored import store
from baselines.stored.admission import objections
from baselines.stored.compare import compare_stored
from baselines.stored.store import BaselineRefused
from baselines.stored.suspects import suspects
from baselines.verdict import exit_code
from benches import cli, selftest
from benches.ab.driver import decide
from harness import storage
from harness.processes.sweep import remaining
from harness.storage import UnreadableRun
from harness.types import Measurement
from reports.ci.artifacts import Targets
from reports.ci.artifacts import write as write_artifacts
from reports.formats import comparison_json

HERE = Path(__file__).parent
CORPUS = HERE / "recorded" / "schema_1"
ROOT = HERE.parent
RECORDED = ROOT / "baselines" / "recorded"
VERDICT = (
    *("case_id", "metric", "outcome", "gating", "ratio", "low", "high", "minimum_detectable", "pairs", "dropped"),
    *("p_value", "kind", "unit", "baseline", "candidate"),
)
COMPARISON = (
    *("run_id", "suite", "scope", "sessions", "absent", "rule", "arms", "against", "max_age_days", "considered"),
    *("allow_new", "error"),
)
# The warnings whose sentence begins with its kind; `different outputs` is the one whose sentence does not.
KINDS = (
    *("clocks", "contended", "energy", "imprecise", "no templates", "not repeatable", "oversubscribed"),
    *("partly quantised", "reference of the quality set", "reference of the timed batch", "same output", "schedule"),
    *("stages", "throttled", "told", "truncated", "unchecked", "unsteady", "upcast"),
)
WITH_PAGE = ("warned", "health-all", "ab-states", "ab-contaminated")
# Runs of one row each, of which the larger run of their group shows the table.
WITHOUT_TABLE = ("health-", "machine-", "quality-", "values-", "work-", "reference-", "speed-")
WITH_TABLE = ("health-all", "quality-all", "quality-identical-pictures", "values-all", "speed-mixed", "machine-gpu")
DIFFERENT_OUTPUTS = "the processes of this row gave different outputs"


def kinds(text: str) -> list[str]:
    """The kinds of warnings that stand in a text of sentences with semicolons between them."""
    found = [kind for kind in KINDS if re.search(rf"(^|; ){kind}: ", text)]
    return found + (["different outputs"] if DIFFERENT_OUTPUTS in text else [])


def decisions(corpus: Path) -> dict[str, Any]:
    """Every decision about the artefacts of a corpus; its run folders get the files that the commands write."""
    names = sorted(path.name for path in (corpus / "runs").iterdir())
    asked = json.loads((corpus / "compared.json").read_text())
    replayed = {name: _replayed(corpus, name, asked) for name in names}  # before `compare` stores a decision of its own
    return {
        "runs": {name: _run(corpus / "runs" / name) | replayed[name] for name in names},
        "compared": {name: _compared(corpus, **entry) for name, entry in asked.items()},
        "paired": {path.name: _paired(path) for path in sorted((corpus / "paired").iterdir())},
        "stores": {path.name: _store(path) for path in sorted((corpus / "stores").iterdir())},
        "reference": _store(ROOT / "baselines", "reference"),
        "recordings": {path.name: _recording(path) for path in sorted(RECORDED.glob("*.json.gz"))},
        "trials": _numbers(_command("selftest", "--trials", "0", "--history", RECORDED / "trials.jsonl")[1]),
    }


def _command(*arguments: object) -> tuple[int, str]:
    """The exit code of a command, and what it printed. A warning of numpy's is no error, as on a command line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, said.getvalue()


def _run(folder: Path) -> dict[str, Any]:
    """What a run folder holds: the table, and the attempts that count."""
    found: dict[str, Any] = _attempts(folder)
    if folder.name.startswith(WITHOUT_TABLE) and folder.name not in WITH_TABLE:
        return found
    table = folder / "table.json"
    found |= {"export": _command("export", folder, "--format", "json", "--out", table)[0]}
    found |= {"show": _command("show", folder)[0]}
    if table.exists():
        found["table"] = [_table_row(row) for row in json.loads(table.read_text())]
    return found | _page(folder)


def _page(folder: Path) -> dict[str, int]:
    """The exit code of writing the page of a run, for a few of them."""
    if folder.name not in WITH_PAGE:
        return {}
    return {"report": _command("report", folder, "--out", folder / "page.html", "--store", folder / "none")[0]}


def _table_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table without its sentences: of what is missing the names, of the warnings the kinds."""
    left_out = {"reason", "label", "machine_state", "protocol", "threads", "images", "warnings", "missing"}
    left_out |= {"warning_texts", "missing_kinds"}  # columns that the old version has not
    texts = "; ".join(row["warning_texts"]) if "warning_texts" in row else row["warnings"]
    values = {key: value for key, value in row.items() if key not in left_out and value is not None}
    return values | {"missing": sorted(row["missing"]), "warnings": kinds(texts)}


def _replayed(corpus: Path, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The exit code of replaying the decision that the old version stored."""
    entry = next((e for e in asked.values() if e["run"] == name), None)
    if entry is None or not (corpus / "runs" / name / "comparison.json").exists():
        return {}
    return {"replay": _command("replay", corpus / "runs" / name, "--store", corpus / "stores" / entry["store"])[0]}


def _compared(corpus: Path, run: str, store: str, options: list[str]) -> dict[str, Any]:
    """One run against one store."""
    folder, root = corpus / "runs" / run, corpus / "stores" / store
    with tempfile.TemporaryDirectory() as kept:
        out = Path(kept)
        files = ("--json-file", out / "json", "--junit", out / "junit", "--badge", out / "badge", "--annotations")
        code, said = _command("compare", folder, "--store", root, "--budget", "0", *files, *options)
        found: dict[str, Any] = {"exit": code}
        if (out / "json").exists():
            found |= _comparison(json.loads((out / "json").read_text())) | _artefacts(out, said)
    return found | _by_function(folder, root, options)


def _comparison(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a comparison; of its reasons only how many there are."""
    counted = {f"{name} reasons": len(document[name]) for name in ("refused", "contaminated", "differences")}
    verdicts = [{name: verdict[name] for name in VERDICT} for verdict in document["verdicts"]]
    return {name: document[name] for name in COMPARISON} | counted | {"verdicts": verdicts}


def _artefacts(folder: Path, said: str) -> dict[str, Any]:
    """The states in the files for CI: a test case a verdict in their order, annotations by level, the badge's colour;
    and the numbers of rows in the gate's sentence."""
    cases = ElementTree.parse(folder / "junit").iter("testcase")
    badge, whole = (json.loads((folder / name).read_text()) for name in ("badge", "json"))
    levels = [line[2:].partition(" ")[0] for line in said.splitlines() if line.startswith("::")]
    return {
        "junit": [f"{case.get('name')}: {_state(case)}" for case in cases],
        "annotations": {level: levels.count(level) for level in ("error", "warning", "notice")},
        "badge": [badge["color"], *_numbers(badge["message"])],
        "sentence": [] if whole["refused"] else _numbers(whole["sentence"]),
    }


def _state(case: ElementTree.Element) -> str:
    told = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
    return "passed" if told is None else " ".join(filter(None, (told.tag, told.get("type"))))


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def _store(root: Path, machine: str = "") -> list[dict[str, Any]]:
    """The sessions of a store: which there are, and which of them are refused."""
    code, said = _command("baseline", "list", "--json", "--store", root)
    assert code == 0
    listed = [entry for entry in json.loads(said) if machine in entry["machine"]]
    kept = ("machine", "suite", "run_id", "saved", "fingerprint", "rows")
    return [{name: entry[name] for name in kept} | {"refused": entry["problem"] is not None} for entry in listed]


def _recording(path: Path) -> dict[str, Any]:
    """A recording's pairs, those on a busy machine, and the error rates of the rules on a few resampled runs."""
    whole = load_recording(path)
    shifts = {row.id: [float(v) for v in whole.log_ratios(row.id)] for row in whole.rows}
    code, said = _command("selftest", "--recorded", path, "--trials", "1", "--rounds", "12")
    assert code == 0
    return {
        "pairs": {row: len(values) for row, values in shifts.items()},
        "busy": {row: sum(map(math.isnan, values)) for row, values in shifts.items()},
        "shift": {row: math.fsum(v for v in values if not math.isnan(v)) for row, values in shifts.items()},
        "rates": [_numbers(line) for line in said.splitlines() if line.startswith("| ")],
    }


# By function.


def _attempts(folder: Path) -> dict[str, Any]:
    """Which attempts count and which are superseded, what a resumed run measures, and what could not be read."""
    try:
        run = storage.load(folder)
    except UnreadableRun:
        return {"unreadable": True}
    return {
        "counted": [_attempt(m) for m in run.measurements],
        "superseded": [_attempt(m) for m in run.superseded],
        "controls": [[c.side, *_attempt(c.measurement)] for c in run.controls],
        "problems": len(run.problems),
        "resumed": [[b.case.id, b.replicate] for b in remaining(run)],
        "resumed with the failed": [[b.case.id, b.replicate] for b in remaining(run, retry_failed=True)],
    }


def _attempt(measurement: Measurement) -> list[Any]:
    found = kinds("; ".join(map(str, measurement.warnings)))
    cause = measurement.cause.value if measurement.cause else None
    return [measurement.case.id, measurement.replicate, measurement.attempt, measurement.status, cause, found]


def _by_function(folder: Path, root: Path, options: list[str]) -> dict[str, Any]:
    """The strict exit code, how many further processes the comparison asks for by case, and how many objections there
    are to storing the run, without and with force."""
    try:
        run = storage.load(folder)
        stored = store.find(run, root)
        planned = {case.id for case in run.cases} if run.selection else None
        asked = dict(itertools.pairwise(options)) if "--max-age" in options else {}
        comparison = compare_stored(
            run,
            root,
            planned=planned,
            max_age_days=float(asked.get("--max-age", 180.0)),
            allow_new="--allow-new" in options,
        )
    except (UnreadableRun, BaselineRefused):
        return {}
    newest = stored[-1].run if stored else None
    return {
        "strict exit": exit_code(comparison, strict=True),
        "suspects": {case.id: count for case, count in suspects(run, comparison).items()},
        "objections": [len(objections(run, newest, force=force)) for force in (False, True)],
    }


def _paired(folder: Path) -> dict[str, Any]:
    """A paired run: replayed against the stored decision, decided again, and as CI gets it."""
    code, said = _command("replay", folder)
    stored = (folder / "comparison.json").exists()
    found: dict[str, Any] = {"stored": stored, "replay": code}
    try:
        comparison = decide(folder).comparison
    except UnreadableRun:
        return found | {"unreadable": True}
    document = json.loads(json.dumps(comparison_json.document(comparison)))
    if not stored:  # then `replay` prints the decision
        assert _comparison(json.JSONDecoder().raw_decode(said[said.index("{") :])[0]) == _comparison(document)
    found |= _comparison(document)
    for strict in (False, True):
        with tempfile.TemporaryDirectory() as kept:
            out: Path = Path(kept)
            lines: list[str] = []
            targets = Targets(junit=out / "junit", badge=out / "badge", json=out / "json", annotations=True)
            write_artifacts(comparison, targets, lines.append, strict=strict)
            suffix = " strict" if strict else ""
            found[f"exit{suffix}"] = exit_code(comparison, strict=strict)
            found |= {f"{key}{suffix}": value for key, value in _artefacts(out, "\n".join(lines)).items()}
    rows = list(dict.fromkeys(verdict.case_id for verdict in comparison.verdicts))
    for plan in ("busy=0.05", "tail=0.5", "startup=0.3"):
        trial = selftest.trial(plan, rows, comparison, CONDITIONS)
        found[f"trial {plan}"] = [list(trial.alarms), list(trial.caught), list(trial.missed), trial.unchanged]
    return found | _page(folder)


CONDITIONS = selftest.Conditions(
    created="", cpu="", cores=1, threads=1, suite="", commit="", budget_s=1.0, elapsed_s=1.0, apart=False
)


@contextlib.contextmanager
def unpacked(corpus: Path = CORPUS) -> Iterator[Path]:
    """The corpus in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        for archive in sorted(corpus.glob("*.tar.xz")):
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
        yield Path(folder)


if __name__ == "__main__":
    with unpacked() as found, lzma.open(CORPUS / "expected.json.xz", "wt", encoding="utf-8") as file:
        json.dump(decisions(found), file, indent=1, ensure_ascii=False, sort_keys=True)
