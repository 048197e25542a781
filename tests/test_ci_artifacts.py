"""What CI reads of a comparison beside JUnit: annotations, badge, comment, summary, JSON, and how they agree."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from comparison_fixture import GONE, SAME, SLOWER, UNDECIDED, every_state, paired

from baselines.verdict import Comparison, exit_code
from harness.reasons import stated
from harness.version import VERSION
from reports import gate
from reports.ci.annotations import github
from reports.ci.artifacts import Targets, write
from reports.ci.badge import badge
from reports.ci.junit import junit
from reports.formats import comparison_json, markdown

COMMENT = """\
<!-- imgbench gate -->

**Red: 1 row is slower.**

### Comparison with base (ref=main)

**The run is contended: 9 of 20 pairs**

Against the baseline **base (ref=main)**: 1 regressed.

- base: ref=main
- head: ref=HEAD
- 24 pairs, 2 dropped

| outcome | row | metric | baseline | this run | ratio \\[95 %\\] | detectable | reason |
| --- | --- | --- | --- | --- | --- | --- | --- |
| regressed | vit · batch 1 | latency\\_s | 10.0 ms | 10.5 ms | 1.05x \\[1.04, 1.06\\] (24 pairs, 2 dropped) | 2.0 % | \
confirmed on 16 fresh pairs |
"""


def test_the_comment_to_the_letter() -> None:
    found = paired(SLOWER, contended=(stated("9 of 20 pairs"),))
    assert markdown.pull_request_comment(found) == COMMENT
    assert markdown.step_summary(found) == COMMENT.split("\n\n", 2)[2]


def test_annotations_to_the_letter() -> None:
    advisory = replace(SLOWER, gating=False, metric="load_s", reason=stated("100 %\r\nslower: a, b"))
    assert github(paired(advisory, GONE, UNDECIDED, SLOWER)) == (
        "::error title=imgbench%3A regressed%3A latency_s::vit · batch 1: confirmed on 16 fresh pairs\n"
        "::error title=imgbench%3A missing%3A row::sd: no such row\n"
        "::warning title=imgbench%3A regressed (advisory)%3A load_s::vit · batch 1: 100 %25%0Aslower: a, b\n"
        "::warning title=imgbench%3A inconclusive%3A latency_s::dit · 20 steps: budget spent\n"
    )
    assert (
        github(paired(SAME))
        == "::notice title=imgbench::Green: not slower (1 row, each within its detectable change).\n"
    )
    assert github(paired(UNDECIDED, contended=(stated("busy"),))) == "::error title=imgbench%3A contended::busy\n"


def test_a_comma_and_a_colon_in_a_title_are_escaped() -> None:
    assert github(paired(replace(SLOWER, metric="a,b:c%"))).startswith(
        "::error title=imgbench%3A regressed%3A a%2Cb%3Ac%25::"
    )


def test_ten_errors_and_ten_warnings_a_step_and_the_last_counts_the_rest() -> None:
    errors = [replace(SLOWER, case_id=str(i)) for i in range(25)]
    warnings = [replace(UNDECIDED, case_id=str(i)) for i in range(10)]
    lines = github(paired(*errors, *warnings)).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error"] * 10 + ["::warning"] * 10
    assert lines[9] == "::error title=imgbench%3A 16 more::16 more of this kind are in the step summary"
    assert "more" not in lines[-1]


@pytest.mark.parametrize(
    ("found", "message", "color"),
    [
        (paired(SAME, replace(SAME, case_id="c5", outcome="improved")), "not slower (2 rows)", "brightgreen"),
        (paired(SLOWER, SAME), "regressed in 1 row", "red"),
        (paired(SLOWER, replace(SLOWER, kind="quality_set", case_id="x")), "quality regressed in 1 row", "red"),
        (paired(SAME, UNDECIDED), "1 of 2 rows not slower", "yellow"),
        (paired(UNDECIDED), "inconclusive", "yellow"),
        (paired(UNDECIDED, contended=(stated("busy"),)), "contended", "yellow"),
        (paired(refused=(stated("none"),), absent=True), "no baseline", "lightgrey"),
        (paired(refused=(stated("other GPU"),)), "not comparable", "lightgrey"),
        (paired(refused=(stated("no pip"),), error=True), "error", "lightgrey"),
        (paired(GONE), "not comparable", "orange"),
        (paired(), "nothing measured", "lightgrey"),
        (paired(replace(SAME, gating=False)), "speed undecided", "lightgrey"),
        (paired(replace(SAME, kind="exact")), "speed undecided", "lightgrey"),
        (paired(replace(SAME, kind="energy", metric="energy_per_image_j")), "speed undecided", "lightgrey"),
    ],
)
def test_the_badge_says_what_was_shown(found: Comparison, message: str, color: str) -> None:
    expected = {"schemaVersion": 1, "label": "imgbench gate", "message": message, "color": color}
    assert json.loads(badge(found)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (paired(SLOWER, replace(SLOWER, case_id="c9")), "Red: 2 rows are slower."),
        (
            paired(
                SLOWER,
                replace(SLOWER, kind="quality_item", metric="top1"),
                replace(SLOWER, kind="health", metric="row", case_id="c9"),
                replace(SLOWER, kind="exact", metric="weights_bytes"),
            ),
            "Red: the outputs of 1 row got worse, 1 row no longer runs, 1 row is slower and 1 row is worse in "
            "weights_bytes.",
        ),
        (paired(SAME, UNDECIDED), "Not red: nothing regressed, but 1 row could not be decided."),
        (paired(SAME), "Green: not slower (1 row, each within its detectable change)."),
        (paired(GONE), "Not passed: 1 row is missing or cannot be compared."),
        (paired(replace(SAME, gating=False)), "Not red: nothing regressed, but nothing is decided about speed yet."),
        (paired(refused=(stated("a"),), absent=True), "No answer: there is no baseline yet."),
        (
            paired(refused=(stated("GPU: A, B"), stated("driver: 1, 2"))),
            "No answer: nothing was compared: GPU: A, B; driver: 1, 2.",
        ),
        (paired(), "No answer: nothing was measured."),
        (paired(refused=(stated("no pip"),), error=True), "No answer: the benchmark failed: no pip."),
        (
            paired(GONE, replace(GONE, outcome="new", case_id="c9")),
            "Not passed: 1 row is missing or cannot be compared and 1 row is not in the baseline (accept with imgbench "
            "baseline save).",
        ),
    ],
)
def test_the_sentence_is_plain(found: Comparison, expected: str) -> None:
    assert gate.sentence(found) == expected
    marker, lead = markdown.pull_request_comment(found).split("\n\n")[:2]
    assert marker == "<!-- imgbench gate -->"
    assert lead == f"**{markdown.escaped(expected)}**"


def test_no_artefact_is_ever_greener_or_redder_than_the_exit_code() -> None:
    seen = set()
    for found, strict in every_state():
        code = exit_code(found, strict=strict)
        seen.add(code)
        suite = ElementTree.fromstring(junit(found, strict=strict).encode())[0]
        assert (suite.get("failures") == suite.get("errors") == "0") is (code == 0)
        assert ("::error" in github(found, strict=strict)) is (code != 0)
        said = gate.sentence(found, strict)
        assert said.startswith("Red") is (code in {10, 15})
        assert not said.startswith(("Green", "Not red")) or code == 0
        if json.loads(badge(found))["color"] == "brightgreen":
            assert exit_code(found) == 0
    assert seen == {0, 10, 11, 12, 13, 14, 15, 20}


def test_a_contended_run_passes_no_timed_verdict() -> None:
    found = paired(
        SAME, replace(SAME, metric="weights_bytes", kind="exact"), contended=(stated("busy"), stated("control moved"))
    )
    told = {case.get("name"): case for case in ElementTree.fromstring(junit(found).encode()).iter("testcase")}
    assert told["latency_s"].find("skipped").get("message") == "contended run: within ±2.5 %"
    assert list(told["weights_bytes"]) == []
    assert "weights_bytes: unchanged: within ±2.5 %" in junit(found)
    error = told["gate"].find("error")
    assert (error.get("type"), error.text) == ("contended", "busy; control moved")


@pytest.mark.parametrize("limited", [markdown.step_summary, markdown.pull_request_comment])
def test_thousands_of_verdicts_are_cut_at_whole_rows_the_gravest_first(limited: Callable[..., str]) -> None:
    many = [
        replace(SAME, case_id=f"s{i}", label=f"größe {i} 数字 🐢" * 4, reason=stated("ü" * 200)) for i in range(6000)
    ]
    grave = [replace(SLOWER, case_id=f"g{i}", label=f"grave {i} 数字") for i in range(20)]
    text = limited(paired(*many, *grave, replace(GONE, case_id="gone")))
    limit = 65_536 if limited is markdown.pull_request_comment else 2**20
    assert limit - 2000 < len(text.encode()) <= limit
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 9 and row.endswith("|") for row in rows)
    assert [row.split(" | ")[0] for row in rows[:22]] == ["| regressed"] * 20 + ["| missing", "| unchanged"]
    left = 6021 - len(rows)
    assert text.endswith(f"\n\n{left} more verdicts left out here: {left} unchanged. The JSON has all of them.\n")


def test_gating_regressions_stand_before_advisory_ones() -> None:
    advisory = [replace(SLOWER, case_id=f"a{i}", gating=False, ratio=9.0) for i in range(500)]
    rows = [line for line in markdown.comparison(paired(*advisory, SLOWER)).splitlines() if line.startswith("| regr")]
    assert rows[0].startswith("| regressed | vit")
    assert rows[1].startswith("| regressed (advisory) | vit")
    assert len(rows) == markdown.MAX_VERDICTS


def test_text_that_never_ends_keeps_the_limits_too() -> None:
    endless = paired(SLOWER, notes=(stated("n" * 10**6),) * 90, contended=(stated("c" * 10**6),) * 90)
    assert len(markdown.pull_request_comment(endless)) <= 65_536
    assert "| regressed | vit · batch 1 |" in markdown.step_summary(endless)
    refused = paired(refused=(stated("x" * 10**7),))
    assert markdown.CUT in markdown.step_summary(refused)
    comment = markdown.pull_request_comment(refused)
    assert comment.startswith("<!-- imgbench gate -->\n\n**No answer: nothing was compared: xxx")
    assert len(comment) <= 65_536


def test_the_marker_of_a_comment_is_one_html_comment() -> None:
    first = markdown.pull_request_comment(paired(SAME, suite="a --> <b>\n--x")).splitlines()[0]
    assert first == "<!-- imgbench a-b-x -->"


def test_the_json_is_the_whole_comparison_and_has_no_nan() -> None:
    strange = replace(SLOWER, ratio=math.nan, high=math.inf, low=-math.inf)
    document = json.loads(comparison_json.text(paired(strange)), parse_constant=lambda name: pytest.fail(name))
    assert (document["imgbench"], document["exit_code"], document["meaning"]) == (VERSION, 10, "regressed")
    assert document["sentence"] == "Red: 1 row is slower."
    assert document["arms"] == ["ref=main", "ref=HEAD"]
    (told,) = document["verdicts"]
    assert (told["ratio"], told["low"], told["high"], told["pairs"]) == (None, None, None, 24)
    assert json.loads(comparison_json.text(paired(UNDECIDED), strict=True))["exit_code"] == 11


def test_the_summary_fits_beside_what_its_file_holds_already(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("x" * (2**20 - 900))
    many = [replace(SLOWER, case_id=str(i)) for i in range(50)]
    write(paired(*many), Targets(step_summary=path), pytest.fail)
    assert path.stat().st_size <= 2**20
    assert "more verdicts left out here" in path.read_text()
    path.write_text("x" * 2**20)
    write(paired(*many), Targets(step_summary=path), pytest.fail)
    assert path.read_text() == "x" * 2**20


def test_a_file_that_cannot_be_written_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    said: list[str] = []
    targets = Targets(junit=tmp_path / "file" / "junit.xml", badge=tmp_path / "new" / "badge.json", annotations=True)
    with pytest.raises(OSError, match="file"):
        write(paired(SLOWER), targets, said.append)
    assert (tmp_path / "new" / "badge.json").read_text() == badge(paired(SLOWER))
    assert said == github(paired(SLOWER)).splitlines()


def test_an_arm_that_could_not_be_had_leaves_every_file_and_no_row(tmp_path: Path) -> None:
    """pip may say anything, at any length: control characters, Markdown, workflow commands."""
    said: list[str] = []
    told = "pip:\x1b[31m |no| **such** <package>\r\n::error::not ours\n" + "x" * 10**6
    broken = paired(refused=(stated(told),), error=True, run_id="", notes=(), baseline="base (ref=main)")
    names = ("junit", "markdown", "comment", "badge", "json", "step_summary")
    write(broken, Targets(**{name: tmp_path / name for name in names}, annotations=True), said.append)
    assert [line.split(" ")[0] for line in said] == ["::error"], "a line of pip's is no command of ours"
    assert "%0A::error::not ours%0A" in said[0]
    assert len(said[0]) < 5_000
    case, *more = ElementTree.fromstring((tmp_path / "junit").read_bytes()).findall("testsuite/testcase")
    assert (more, case.find("error").get("type")) == ([], "benchmark error")
    assert json.loads((tmp_path / "json").read_text())["exit_code"] == 20
    assert len((tmp_path / "comment").read_bytes()) <= 65_536
    assert "No answer: the benchmark failed: pip:" in (tmp_path / "comment").read_text()


def test_half_a_character_is_no_reason_to_write_nothing(tmp_path: Path) -> None:
    names = ("junit", "markdown", "comment", "badge", "json", "step_summary")
    half = paired(replace(SLOWER, label="\ud83d", reason=stated("\udc22")), suite="\ud83d")
    write(half, Targets(**{name: tmp_path / name for name in names}), pytest.fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_a_contended_run_disarms_speed_and_nothing_else() -> None:
    busy = {"contended": (stated("busy"),)}
    assert exit_code(paired(replace(SLOWER, outcome="inconclusive"), **busy)) == 14
    assert exit_code(paired(replace(SLOWER, outcome="missing"), replace(SLOWER, outcome="inconclusive"), **busy)) == 14
    assert exit_code(paired(replace(SLOWER, outcome="regressed", kind="quality_set"), **busy)) == 15
    assert exit_code(paired(replace(SLOWER, outcome="regressed", kind="exact"), **busy)) == 10


def test_every_file_is_written_and_the_summary_is_appended(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "summary.md").write_text("before\n")
    targets = Targets(
        junit=tmp_path / "deep" / "junit.xml",
        markdown=tmp_path / "c.md",
        comment=tmp_path / "comment.md",
        badge=tmp_path / "badge.json",
        json=tmp_path / "c.json",
        step_summary=tmp_path / "summary.md",
        annotations=True,
    )
    write(paired(SLOWER), targets, said.append)
    assert (tmp_path / "deep" / "junit.xml").read_text().startswith("<?xml")
    assert (tmp_path / "summary.md").read_text().startswith("before\n### Comparison with base")
    document = json.loads((tmp_path / "c.json").read_text())
    assert (document["exit_code"], document["meaning"], len(document["verdicts"])) == (10, "regressed", 1)
    assert said == ["::error title=imgbench%3A regressed%3A latency_s::vit · batch 1: " + str(SLOWER.reason)]


def test_no_end_of_a_line_that_anybody_knows_begins_a_command_of_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    label = "a cat\u2028::stop-commands::x\x0b::error::y"
    write(paired(replace(SLOWER, label=label)), Targets(annotations=True), said.append)
    assert said
    assert all(line.startswith("::error title=") and "::stop-commands" not in line.split("%0A")[0] for line in said)
    assert not any(character in "".join(said) for character in "\u2028\x0b")


def test_nobody_is_mentioned_and_nothing_is_a_link_in_a_comment() -> None:
    text = markdown.escaped("@somebody $x$ https://a.b www.c.d")
    assert not re.search(r"@\w|(?<!\\)\$|://|www\.", text)
