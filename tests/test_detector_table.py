"""Rules and our own decision on resampled runs, and the table of error rates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import baselines
from baselines.detector import recorded as recordings
from baselines.detector.drawn import LATENCY, TAIL_LATENCY
from baselines.detector.noise import MODELS, NoiseModel, recorded
from baselines.detector.ours import Ours
from baselines.detector.recorded import Recording
from baselines.detector.rules import RULES
from baselines.detector.table import OURS, ROWS_ALARMED, WHOLE_RUNS, by_row, evaluate, markdown, summary
from baselines.paired import decision
from baselines.paired.question import FAMILY_LEVEL
from harness.paired.pairs import RENEWAL, RENEWAL_APART

ROOT = Path(baselines.__file__).parents[1]
SMALL = NoiseModel(description="three rows", rows=3, samples=6)


@pytest.fixture
def recording() -> Recording:
    return recorded(SMALL, np.random.default_rng(9), 20)


def test_our_rule_on_a_quiet_machine() -> None:
    ours = Ours()
    assert set(ours(MODELS["quiet"], {}, np.random.default_rng(0)).values()) == {"unchanged"}
    found = ours(MODELS["quiet"], {"row 02": 0.05, "row 03": -0.05}, np.random.default_rng(0))
    assert (found["row 02"], found["row 03"]) == ("regressed", "improved")


def test_our_rule_stops_at_its_budget_and_says_so() -> None:
    found = Ours(rounds=2)(MODELS["quiet"], {"row 02": 0.5}, np.random.default_rng(0))
    assert set(found.values()) == {"inconclusive"}


def test_pairs_of_a_busy_machine_are_dropped_by_our_rule(recording: Recording) -> None:
    run = recording.draw(np.random.default_rng(0), pairs=40)
    run.shifts[("row 01", LATENCY)][:10] = np.nan
    decision = Ours(rounds=40, longest=40).decided(run)
    assert {q.key.row: q.dropped for q in decision.questions.values()} == {"row 00": 0, "row 01": 10, "row 02": 0}


def test_the_tail_is_judged_where_there_are_enough_samples() -> None:
    assert ("row 00", TAIL_LATENCY) in MODELS["quiet"].draw(np.random.default_rng(0), 4).shifts


def test_the_table_counts_every_decision(recording: Recording) -> None:
    frame = evaluate(recording, RULES, runs=12, ours=Ours(rounds=12))
    lines = frame.set_index(["rule", "row", "shift"])
    assert (frame["decisions"] == frame[["worse", "better", "same", "inconclusive"]].sum(axis=1)).all()
    assert lines.loc[("criterion.rs", "row 00", 0.03), "decisions"] == 12
    assert lines.loc[("criterion.rs", WHOLE_RUNS, 0.0), "decisions"] == 12
    assert lines.loc[(OURS, "row 00", 0.0), "decisions"] == 12
    assert lines.loc[(OURS, "row 00", 0.05), "decisions"] == 4  # one of three rows is slowed in each run
    assert set(by_row(frame)["row"]) == {"row 00", "row 01", "row 02"}
    again = evaluate(recording, RULES, runs=12, ours=Ours(rounds=12))
    assert frame.equals(again)


def test_the_table_in_markdown() -> None:
    def never(_source: object, _slow: object, _generator: object) -> dict[str, str]:
        return {"row 00": "regressed", "row 01": "unchanged", "row 02": "inconclusive"}

    text = markdown(summary(evaluate(SMALL, {}, runs=3, ours=never)))
    assert text.splitlines()[0].startswith(
        "| rule | processes | A/A: rows called changed | A/A: runs with an alarm | +3 % caught | +3 % called the same "
        "| +5 % caught | +5 % called the same |"
    )
    assert text.splitlines()[2] == (
        "| imgbench ab | 8+ pairs | 33.3 % [12.1, 64.6] | 100 % [43.9, 100] | 33.3 % [6.1, 79.2] | 33.3 % [6.1, 79.2] "
        "| 33.3 % [6.1, 79.2] | 33.3 % [6.1, 79.2] |"
    )


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its ruler and without bold."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_the_published_table_has_every_column_and_tool_that_the_command_prints(recording: Recording) -> None:
    page = (ROOT / "docs" / "methodology.md").read_text(encoding="utf-8")
    section = page.split("\n## The error rates of `ab`")[1].split("\n## ")[0]
    published = cells("| rule |" + section.split("| rule |")[1].split("\n\n")[0])
    printed = cells(markdown(summary(evaluate(recording, RULES, runs=1, ours=Ours(rounds=2)))))
    assert published[0] == printed[0]
    assert sorted(line[:2] for line in published) == sorted(line[:2] for line in printed)
    share = re.compile(r"[0-9.]+ %( \[[0-9.]+, [0-9.]+\])?")
    assert all(share.fullmatch(cell) for line in published[1:] for cell in line[2:])


@pytest.mark.parametrize("name", list(MODELS))
def test_our_rule_never_alarms_on_equal_code(name: str) -> None:
    frame = evaluate(MODELS[name], {}, runs=10, shifts=(0.0,), ours=Ours(rounds=24, longest=96))
    whole = frame[frame["row"] == WHOLE_RUNS].iloc[0]
    assert (whole["worse"], whole["better"]) == (0, 0)


def test_pooling_and_single_processes_alarm_on_equal_code() -> None:
    table = summary(evaluate(MODELS["shared"], RULES, runs=40, shifts=(0.0,))).set_index("rule")[ROWS_ALARMED]
    assert all(table[rule][1] > 0.10 for rule in ("pyperf compare_to", "criterion.rs", "google/benchmark U test"))


def test_all_pairs_together_decide_where_the_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `PairedDecision` has its second test for: fresh pairs alone need 16, on top of 8 that raised a suspicion."""
    source = recordings.load(ROOT / "baselines" / "recorded" / "gate-one-server.json.gz")
    caught = []
    for fresh, pooled in ((FAMILY_LEVEL, 0.0), (decision.FRESH_LEVEL, decision.POOLED_LEVEL)):
        monkeypatch.setattr(decision, "FRESH_LEVEL", fresh)
        monkeypatch.setattr(decision, "POOLED_LEVEL", pooled)
        frame = evaluate(source, {}, runs=60, shifts=(0.05,), ours=Ours(rounds=12))
        caught.append(frame[frame["row"] != WHOLE_RUNS]["worse"].sum())
    assert caught[1] >= caught[0] + 15


def test_offsets_of_servers_mislead_unless_servers_are_renewed_often() -> None:
    """What `harness.paired.pairs.RENEWAL_APART` is for: pairs of the same servers share an offset that they cannot
    show."""
    missed = {}
    for lifetime in (RENEWAL, RENEWAL_APART):
        model = replace(MODELS["server"], server=0.008, lifetime=lifetime, rows=4, samples=1, iteration=0.0)
        frame = evaluate(model, {}, runs=100, shifts=(0.0, 0.03), ours=Ours())
        rows = frame[frame["row"] != WHOLE_RUNS]
        missed[lifetime] = rows[rows["shift"] == 0.03]["same"].sum()
        if lifetime == RENEWAL_APART:
            assert rows[rows["shift"] == 0.0][["worse", "better"]].to_numpy().sum() == 0
    assert missed[RENEWAL] >= 5
    assert missed[RENEWAL_APART] <= 1
