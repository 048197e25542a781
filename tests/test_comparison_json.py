"""The one JSON form of a comparison: what it holds, what an earlier version stored, and how often `ab` decides."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from comparison_fixture import SLOWER, UNDECIDED, paired
from decided_fixture import STORED, measured_live, write_paired

from baselines.paired import verdicts
from baselines.paired.decider import PairedDecider
from baselines.wording import ReasonKind, because
from benches.ab import driver
from benches.cli import ab as commands
from benches.cli import main
from harness.reasons import stated
from harness.storage import UnreadableRun
from reports.formats import comparison_json

OPTIONS = Namespace(
    junit=None,
    markdown=None,
    comment=None,
    badge=None,
    json_file=None,
    step_summary=None,
    annotations=False,
    strict=False,
    exit_zero=False,
)


def test_sentences_keep_their_keys_and_kinds_stand_beside_them() -> None:
    reason = because(ReasonKind.NO_PAIR, ended=because(ReasonKind.ENDED_BUDGET))
    found = paired(replace(SLOWER, reason=reason), contended=(because(ReasonKind.ENDED_GAVE_UP),))
    document = json.loads(comparison_json.text(found))
    verdict = document["verdicts"][0]
    assert (document["schema"], document["exit_code"]) == (2, 10)
    assert verdict["reason"] == "the budget is spent: no pair was measured"
    assert verdict["cause"] == {"kind": "no_pair", "data": {"ended": {"kind": "ended_budget", "data": {}}}}
    assert document["notes"] == ["24 pairs, 2 dropped"]
    assert document["causes"]["notes"] == [{"kind": "stated", "data": {"stated": "24 pairs, 2 dropped"}}]
    assert document["contended"] == [str(found.contended[0])]
    assert document["causes"]["contended"] == [{"kind": "ended_gave_up", "data": {}}]
    kept = {"run_id", "suite", "baseline", "scope", "sessions", "absent", "rule", "arms", "against", "max_age_days"}
    kept |= {"considered", "allow_new", "error", "differences", "refused"}
    assert kept <= document.keys()


@pytest.mark.parametrize("name", ["slower", "suspect", "run contended", "other torch", "new"])
def test_what_is_stored_is_decided_again_as_it_was(name: str, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(comparison_json.text(STORED[name](), strict=True))
    assert comparison_json.changes(comparison_json.read(path), STORED[name]()) == []


def test_the_former_names_of_a_stored_comparison_are_read(tmp_path: Path) -> None:
    moved = because(ReasonKind.CONTROL_WORKLOAD_MOVED, name="gemm", shift=0.02, sessions=4)
    row = {"row": "control workload gemm", "metric": "gemm", "shift": 0.05, "low": 0.04, "high": 0.06}
    found = paired(SLOWER, contended=(moved, because(ReasonKind.PAIRED_CONTROL_MOVED, **row, same_code=False)))
    assert "control workload gemm (gemm) moved" in str(found.contended[1])
    text = comparison_json.text(found)
    former = (
        text.replace('"contended":', '"contaminated":')
        .replace("control_workload_moved", "sentinel_moved")
        .replace('"row": "control workload gemm"', '"row": "sentinel gemm"')
    )
    assert all(word in former for word in ('"contaminated"', "sentinel_moved", "sentinel gemm"))
    path = tmp_path / "comparison.json"
    path.write_text(former)
    assert comparison_json.changes(comparison_json.read(path), found) == []


def test_only_the_last_digits_of_a_number_may_differ(tmp_path: Path) -> None:
    path, found = tmp_path / "comparison.json", paired(SLOWER)
    path.write_text(comparison_json.text(found))
    stored = comparison_json.read(path)
    ratio = float(SLOWER.ratio or 1.0)
    for factor, differences in ((1 + 1e-13, 0), (1 + 1e-6, 1)):
        now = paired(replace(SLOWER, ratio=ratio * factor))
        assert len(comparison_json.changes(stored, now)) == differences


def first_version(found: Any) -> dict[str, Any]:
    """The document that version 1 wrote: sentences alone."""
    document = {key: value for key, value in asdict(found).items() if key != "contended"}
    texts = {"contaminated": found.contended, "notes": found.notes}
    texts |= {"refused": found.refused, "differences": found.differences}
    document |= {key: [f"old words: {reason}" for reason in given] for key, given in texts.items()}
    document["verdicts"] = [{**asdict(v), "reason": f"old words: {v.reason}"} for v in found.verdicts]
    return json.loads(json.dumps(document))


@pytest.mark.parametrize("name", ["slower", "suspect", "run contended", "other torch"])
def test_a_comparison_of_the_first_version_is_decided_again_whatever_its_words(name: str, tmp_path: Path) -> None:
    path, found = tmp_path / "comparison.json", STORED[name]()
    old = first_version(found)
    path.write_text(json.dumps(old))
    assert comparison_json.changes(comparison_json.read(path), found) == []
    changed = {"sessions": 99} if found.refused else {"contaminated": [*old["contaminated"], "one more"]}
    path.write_text(json.dumps(old | changed))
    assert len(comparison_json.changes(comparison_json.read(path), found)) == 1


def test_what_was_measured_again_is_known_in_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    told = because(ReasonKind.MEASURED_AGAIN, rows=1, processes=8, planned=8, suite="s")
    found = replace(STORED["slower"](), notes=(stated("a note"), told))
    path.write_text(comparison_json.text(found))
    assert comparison_json.read(path).measured_again == (told,)
    old = first_version(found) | {"notes": ["a note", "1 suspected row measured again: 8 further processes"]}
    path.write_text(json.dumps(old))
    assert [str(note) for note in comparison_json.read(path).measured_again] == [old["notes"][1]]


def test_each_changed_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    document = json.loads(comparison_json.text(paired(SLOWER, UNDECIDED)))
    document["verdicts"][0] |= {"outcome": "unchanged", "low": 1.0}
    del document["verdicts"][1]
    path.write_text(json.dumps(document))
    assert comparison_json.changes(comparison_json.read(path), paired(SLOWER, UNDECIDED)) == [
        "vit · batch 1 latency_s: outcome 'unchanged' stored, 'regressed' now",
        "vit · batch 1 latency_s: low 1.0 stored, 1.04 now",
        "dit · 20 steps latency_s: absent stored, inconclusive now",
    ]


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 3}', '{"verdicts": [{"case_id": "a"}]}'])
def test_what_is_no_comparison_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(content)
    with pytest.raises(UnreadableRun, match=str(path)):
        comparison_json.read(path)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """(comparisons that were decided, deciders that were made) since the last call."""
    calls = {"comparison": 0, "decider": 0}
    comparison, init = verdicts.comparison, PairedDecider.__init__

    def counting(*arguments: Any) -> Any:
        calls["comparison"] += 1
        return comparison(*arguments)

    def making(self: PairedDecider, *arguments: Any) -> None:
        calls["decider"] += 1
        init(self, *arguments)

    monkeypatch.setattr(verdicts, "comparison", counting)
    monkeypatch.setattr(PairedDecider, "__init__", making)

    def since() -> tuple[int, int]:
        found = calls["comparison"], calls["decider"]
        calls.update(comparison=0, decider=0)
        return found

    return since


def test_ab_decides_once_and_each_command_on_a_stored_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "measure", lambda _asked, folder, _say, _deciding: measured_live(folder, "slow head"))
    since = counted(monkeypatch)
    asked: Any = None
    decided = driver.run(asked, tmp_path, print)
    assert commands.finish(OPTIONS, decided, tmp_path) == 10
    assert since() == (1, 1)
    assert (tmp_path / "report.html").exists()
    assert main(["replay", str(tmp_path)]) == 0
    assert since() == (1, 1)
    assert main(["explain", str(tmp_path), "slow"]) == 0
    assert since() == (1, 1)
    assert main(["report", str(tmp_path)]) == 0
    assert since() == (1, 1)
    assert "bit for bit the same" in capsys.readouterr().out


def test_a_run_that_is_decided_live_is_decided_from_its_blocks_alike(tmp_path: Path) -> None:
    for name in ("equal arms", "contended pairs", "head fails"):
        folder = tmp_path / "live" / name
        folder.mkdir(parents=True)
        live = driver.decided(measured_live(folder, name), folder).comparison
        again = driver.decide(write_paired(tmp_path, name)).comparison
        assert comparison_json.document(live) == comparison_json.document(again)
