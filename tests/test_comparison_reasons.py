"""Comparisons decide by kinds and data: other sentences change no verdict, exit code or state of a file for CI."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from decided_fixture import CASES, PAIRED, STORED, crowd, write_paired
from gibberish_fixture import NONSENSE, gibberish

from baselines.stored.suspects import suspects
from baselines.verdict import Comparison, exit_code
from baselines.wording import SENTENCES, ReasonKind
from benches import selftest
from benches.ab import driver
from benches.cli import main
from harness import reasons
from harness.reasons import Reason
from reports import gate
from reports.ci.annotations import github
from reports.ci.badge import badge
from reports.ci.junit import junit
from reports.formats import comparison_json

ROOT = Path(__file__).parents[1]
# Kinds by which something is decided.
DECIDING = {
    *(ReasonKind.SUSPECT, ReasonKind.CONTENDED_ROW, ReasonKind.ROW_BROKEN, ReasonKind.BROKEN_IN_PAIR),
    *(ReasonKind.BIT_IDENTICAL, ReasonKind.NO_LARGER),
}
CONDITIONS = selftest.Conditions(
    created="", cpu="", cores=1, threads=1, suite="", commit="", budget_s=1.0, elapsed_s=1.0, apart=False
)


def comparisons(folder: Path) -> dict[str, Comparison]:
    """Every comparison of the fixture, decided now."""
    paired = {name: driver.decide(folder / name.replace(" ", "-")).comparison for name in PAIRED}
    return {name: decide() for name, decide in STORED.items()} | paired


def states(found: Comparison) -> dict[str, Any]:
    """All that is decided of a comparison: outcomes, exit codes, and the state of each file for CI."""
    decided = json.loads(comparison_json.text(found))
    cases = ElementTree.fromstring(junit(found).split("\n", 1)[1]).iter("testcase")
    return {
        "exit": [exit_code(found, strict=strict) for strict in (False, True)],
        "verdicts": [
            (v.case_id, v.metric, v.outcome, v.gating, v.ratio, v.reason.kind, gate.standing(v, found), v.pairs)
            for v in found.verdicts
        ],
        "whole": [kind for kind, _ in gate.whole(found)],
        "junit": [[(child.tag, child.get("type")) for child in case] for case in cases],
        "badge": json.loads(badge(found))["color"],
        "annotations": [line.split(" ")[0] for line in github(found).splitlines()],
        "causes": [verdict["cause"] for verdict in decided["verdicts"]] + [decided["causes"]],
        "selftest": [
            (trial.caught, trial.missed, trial.alarms, trial.contended, trial.unchanged)
            for trial in [selftest.trial("tail=0.5", [CASES[0].id], found, CONDITIONS)]
        ],
        "suspects": suspects(crowd(), found) if found.rule == "stored" and len(found.verdicts) > 20 else None,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stored paired runs."""
    root = tmp_path_factory.mktemp("paired")
    for name in PAIRED:
        write_paired(root, name)
    return root


def test_other_sentences_change_nothing_that_is_decided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (states(found), gate.sentence(found)) for name, found in comparisons(folder).items()}
    codes = {code for found, _ in before.values() for code in found["exit"]}
    assert codes >= {0, 10, 12, 13, 14}
    kinds = {verdict[5] for found, _ in before.values() for verdict in found["verdicts"]}
    assert kinds >= DECIDING
    assert before["suspect"][0]["suspects"]
    gibberish(monkeypatch)
    for name, found in comparisons(folder).items():
        assert states(found) == before[name][0], name
        words = gate.sentence(found)
        assert found.refused or words == before[name][1], name


def test_other_sentences_change_no_replay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "slow-head"
    stored = comparison_json.text(driver.decide(path).comparison)
    (path / "comparison.json").write_text(stored)
    gibberish(monkeypatch)
    assert main(["replay", str(path)]) == 0
    assert "bit for bit the same" in capsys.readouterr().out
    document = json.loads(stored)
    document["verdicts"][1]["cause"]["data"]["pairs"] += 1
    (path / "comparison.json").write_text(json.dumps(document))
    assert main(["replay", str(path)]) == 12


def every_reason(value: Any) -> Iterator[Reason]:
    """A reason and all that its data hold."""
    if isinstance(value, Reason):
        yield value
        for inner in value.data.values():
            yield from every_reason(inner)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from every_reason(each)


def test_every_reason_of_a_comparison_survives_json_and_says_something(folder: Path) -> None:
    for name, found in comparisons(folder).items():
        given = [v.reason for v in found.verdicts]
        given += [*found.notes, *found.contended, *found.refused, *found.differences]
        for reason in every_reason(given):
            read = reasons.from_json(json.loads(json.dumps(reason.to_json())))
            assert (read, str(read)) == (reason, str(reason)), name
            assert str(reason).strip(), (name, reason)


def calls(tree: ast.AST) -> Iterator[tuple[str, list[str | None]]]:
    """(kind, names of its data) of each `because(ReasonKind.X, ...)`; None stands for data that are unpacked."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "because" and node.args:
            kind = node.args[0]
            if isinstance(kind, ast.Attribute):
                yield kind.attr, [keyword.arg for keyword in node.keywords]


def test_every_kind_has_a_sentence_of_the_data_that_the_code_gives_and_is_given_by_some_code() -> None:
    assert set(SENTENCES) == set(ReasonKind)
    sources = [p for room in ("baselines", "benches") for p in (ROOT / room).rglob("*.py") if p.name != "wording.py"]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    wording = (ROOT / "baselines" / "wording.py").read_text(encoding="utf-8")
    helpers = wording.partition("def because")[2].partition("def percent")[0]
    given = {name for text in [*texts, helpers] for name in re.findall(r"ReasonKind\.([A-Z_]+)", text)}
    assert {kind.name for kind in ReasonKind} - given == set()
    checked = 0
    for text in [*texts, wording]:
        for name, data in calls(ast.parse(text)):
            signature = inspect.signature(SENTENCES[ReasonKind[name]])
            named = {key: None for key in data if key is not None}
            bind = signature.bind_partial if None in data else signature.bind
            bind(**named)
            checked += 1
    assert checked > 60


def test_the_nonsense_reaches_every_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    gibberish(monkeypatch)
    assert {str(verdict.reason) for verdict in STORED["slower"]().verdicts} == {NONSENSE}
