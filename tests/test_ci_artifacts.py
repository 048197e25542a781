"""What CI reads of a comparison: JUnit, annotations, summary, comment, badge, JSON, and the exit status itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from baselines.verdict import Comparison, Verdict, exit_code
from reports import annotations, artifacts, badge, junit, markdown

SLOWER = Verdict(
    case_id="vit-1",
    label="vit · batch 1",
    metric="latency_s",
    kind="noisy",
    unit="s",
    outcome="regressed",
    reason="suspected after 8 pairs, confirmed on 16 fresh ones",
    baseline=0.010,
    candidate=0.0105,
    ratio=1.05,
    low=1.04,
    high=1.06,
    minimum_detectable=0.02,
    pairs=24,
    p_value=1e-5,
)


def comparison(*verdicts: Verdict, **changes: Any) -> Comparison:
    given: dict[str, Any] = {
        "run_id": "ab-gate-1",
        "suite": "gate",
        "baseline": "base (ref=main)",
        "scope": "all",
        "rule": "paired",
        "arms": ("ref=main", "ref=HEAD"),
        "verdicts": verdicts,
    }
    return Comparison(**given | changes)


def other(outcome: Any, **changes: Any) -> Verdict:
    return replace(SLOWER, outcome=outcome, case_id=f"row-{outcome}", reason="so it is", **changes)


def cases(xml: str) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(xml.split("\n", 1)[1])
    return {f"{c.get('classname')}/{c.get('name')}": c for c in root.iter("testcase")}


def test_junit_counts_and_places_every_outcome() -> None:
    found = comparison(
        SLOWER,
        other("inconclusive", label="b"),
        other("missing", label="c"),
        other("unchanged", label="d"),
        other("regressed", label="e", gating=False),
    )
    suite = ElementTree.fromstring(junit.junit(found).split("\n", 1)[1])[0]
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    told = cases(junit.junit(found))
    assert told["vit · batch 1/latency_s"].find("failure") is not None
    assert told["b/latency_s"].find("skipped") is not None
    assert told["c/latency_s"].find("error") is not None
    assert told["e/latency_s"].findtext("system-out") == "regressed (advisory): so it is"


@pytest.mark.parametrize(
    ("changes", "kind"), [({"refused": ("other GPU",)}, "refused"), ({"contaminated": ("busy",)}, "contaminated")]
)
def test_junit_fails_where_nothing_was_judged(changes: dict[str, Any], kind: str) -> None:
    error = cases(junit.junit(comparison(other("inconclusive"), **changes)))["imgbench/gate"].find("error")
    assert error is not None
    assert error.get("type") == kind


def test_junit_has_only_characters_that_xml_allows() -> None:
    xml = junit.junit(comparison(replace(SLOWER, reason="bell \x07, <tag> & \ud800")))
    assert "\x07" not in xml
    assert "bell �, &lt;tag&gt; &amp; �" in xml


def test_junit_has_the_elements_of_the_schema() -> None:
    """testsuites > testsuite > properties?, testcase* > (error | failure | skipped | system-out)?, no other."""
    root = ElementTree.fromstring(junit.junit(comparison(SLOWER, other("missing"))).split("\n", 1)[1])
    assert root.tag == "testsuites"
    suite = root[0]
    assert [child.tag for child in suite] == ["properties", "testcase", "testcase", "testcase"]
    assert all({"name", "classname", "time"} == set(case.keys()) for case in suite.iter("testcase"))
    assert all({"type", "message"} == set(e.keys()) for tag in ("error", "failure") for e in suite.iter(tag))


def test_annotations_are_escaped_and_at_most_ten() -> None:
    one = annotations.github(comparison(replace(SLOWER, reason="100%\nworse")))
    assert one == "::error title=imgbench%3A regressed%3A latency_s::vit · batch 1: 100%25%0Aworse\n"
    many = annotations.github(comparison(*(replace(SLOWER, case_id=str(i)) for i in range(25)))).splitlines()
    assert len(many) == 10
    assert "16 more" in many[-1]


def test_the_comment_and_the_summary_keep_their_limits() -> None:
    verdicts = [replace(SLOWER, case_id=str(i), label="ž" * 400, reason="ü" * 1000) for i in range(400)]
    comment = markdown.pull_request_comment(comparison(*verdicts))
    assert len(comment) <= 65_536
    assert comment.startswith("<!-- imgbench gate -->\n")
    assert "Red: 400 rows are slower." in comment
    assert "more verdicts left out here" in comment
    assert len(markdown.step_summary(comparison(*verdicts)).encode()) <= 1024 * 1024


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (comparison(other("unchanged")), "not slower (1 row)"),
        (comparison(SLOWER), "regressed in 1 row"),
        (comparison(other("inconclusive")), "inconclusive"),
        (comparison(other("inconclusive"), contaminated=("busy",)), "contaminated"),
        (comparison(refused=("no baseline",), absent=True), "no baseline"),
        (comparison(other("missing", baseline=0.01)), "not comparable"),
        (comparison(other("unchanged", gating=False)), "speed not judged yet"),
    ],
)
def test_the_badge_never_says_more_than_was_shown(found: Comparison, message: str) -> None:
    assert json.loads(badge.badge(found))["message"] == message


def test_contaminated_disarms_speed_and_nothing_else() -> None:
    busy = {"contaminated": ("busy",)}
    assert exit_code(comparison(other("inconclusive"), **busy)) == 14
    assert exit_code(comparison(other("missing"), other("inconclusive"), **busy)) == 14
    assert exit_code(comparison(other("regressed", kind="quality_set"), **busy)) == 15
    assert exit_code(comparison(other("regressed", kind="exact"), **busy)) == 10


def test_every_file_is_written_and_the_summary_is_appended(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "summary.md").write_text("before\n")
    targets = artifacts.Targets(
        junit=tmp_path / "deep" / "junit.xml",
        markdown=tmp_path / "c.md",
        comment=tmp_path / "comment.md",
        badge=tmp_path / "badge.json",
        json=tmp_path / "c.json",
        step_summary=tmp_path / "summary.md",
        annotations=True,
    )
    artifacts.write(comparison(SLOWER), targets, said.append)
    assert (tmp_path / "deep" / "junit.xml").read_text().startswith("<?xml")
    assert (tmp_path / "summary.md").read_text().startswith("before\n### Comparison with base")
    document = json.loads((tmp_path / "c.json").read_text())
    assert (document["exit_code"], document["meaning"], len(document["verdicts"])) == (10, "regressed", 1)
    assert said == ["::error title=imgbench%3A regressed%3A latency_s::vit · batch 1: " + SLOWER.reason]
