"""The JUnit file: to the letter, by the rules of its schemas, and never greener than the exit code."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from comparison_fixture import SLOWER, UNDECIDED, every_state, paired

from reports.junit import junit

JUNIT = """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="imgbench gate" time="0" failures="1" errors="0" skipped="1" tests="3">
    <properties>
      <property name="run" value="ab-1" />
      <property name="baseline" value="base (ref=main)" />
      <property name="rule" value="paired" />
      <property name="base" value="ref=main" />
      <property name="head" value="ref=HEAD" />
      <property name="note" value="24 pairs, 2 dropped" />
    </properties>
    <testcase classname="imgbench" name="gate" time="0">
      <system-out>Red: 1 row is slower.
exit code 10: regressed</system-out>
    </testcase>
    <testcase classname="vit · batch 1" name="latency_s" time="0">
      <failure type="regressed" message="regressed: confirmed on 16 fresh pairs">confirmed on 16 fresh pairs</failure>
    </testcase>
    <testcase classname="dit · 20 steps" name="latency_s" time="0">
      <skipped message="budget spent" />
    </testcase>
  </testsuite>
</testsuites>
"""


def test_junit_to_the_letter() -> None:
    assert junit(paired(SLOWER, UNDECIDED)) == JUNIT


def test_junit_counts_and_places_every_outcome() -> None:
    found = paired(
        SLOWER,
        replace(SLOWER, outcome="inconclusive", case_id="b", label="b", reason="so it is"),
        replace(SLOWER, outcome="missing", case_id="c", label="c", reason="so it is"),
        replace(SLOWER, outcome="unchanged", case_id="d", label="d", reason="so it is"),
        replace(SLOWER, outcome="regressed", case_id="e", label="e", reason="so it is", gating=False),
    )
    suite = ElementTree.fromstring(junit(found).split("\n", 1)[1])[0]
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    told = {f"{case.get('classname')}/{case.get('name')}": case for case in suite.iter("testcase")}
    assert told["vit · batch 1/latency_s"].find("failure") is not None
    assert told["b/latency_s"].find("skipped") is not None
    assert told["c/latency_s"].find("error") is not None
    assert told["e/latency_s"].findtext("system-out") == "regressed (advisory): so it is"


TIME = re.compile(r"[0-9]{0,3}(\.[0-9]{0,3})?")
MESSAGE = {"type", "message"}
# What both schemas allow: element -> attributes that must be there, attributes that may, children in their order.
SCHEMA: dict[str, tuple[set[str], set[str], list[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, ["testsuite"]),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped"}, {"time", "group"}, ["properties", "testcase"]),
    "properties": (set(), set(), ["property"]),
    "property": ({"name", "value"}, set(), []),
    "testcase": ({"name", "time"}, {"classname", "group"}, ["failure", "skipped", "error", "system-out", "system-err"]),
    "failure": ({"type"}, {"message"}, []),
    "error": ({"type"}, {"message"}, []),
    "skipped": (set(), {"message"}, []),
    "system-out": (set(), set(), []),
}
MANY = {"testsuite", "testcase", "property"}


def violations(element: ElementTree.Element) -> list[str]:
    """What the schemas of Jenkins (junit-10.xsd) and Surefire, read together, object to."""
    if element.tag not in SCHEMA:
        return [f"no element {element.tag}"]
    required, optional, children = SCHEMA[element.tag]
    have, tags = set(element.keys()), [child.tag for child in element]
    found = [f"{element.tag} lacks {name}" for name in sorted(required - have)]
    found += [f"{element.tag} has {name}" for name in sorted(have - required - optional)]
    found += [f"{element.tag} holds {tag}" for tag in sorted(set(tags) - set(children))]
    places = [children.index(tag) for tag in tags if tag in children]
    found += [f"{element.tag}: order of its children"] if places != sorted(places) else []
    found += [f"{element.tag} holds {tag} twice" for tag in sorted(set(tags) - MANY) if tags.count(tag) > 1]
    if children and (element.text or "").strip():
        found.append(f"{element.tag} holds text")
    if not TIME.fullmatch(element.get("time", "0")):
        found.append(f"{element.tag}: time")
    return found + [line for child in element for line in violations(child)]


def test_junit_keeps_the_rules_of_the_schemas() -> None:
    for found, strict in every_state():
        assert violations(ElementTree.fromstring(junit(found, strict=strict).encode())) == []


@pytest.mark.parametrize(
    ("before", "after", "objection"),
    [
        ('tests="3"', "", "testsuite lacks tests"),
        ('time="0">\n      <skipped', 'line="1" time="0">\n      <skipped', "testcase has line"),
        ("<skipped ", '<skipped type="x" ', "skipped has type"),
        ('value="ref=main"', "", "property lacks value"),
        ("</properties>", "</properties><system-out/>", "testsuite holds system-out"),
        ("<failure", "<system-out/><failure", "testcase: order of its children"),
        ('<skipped message="budget spent" />', "<skipped/><skipped/>", "testcase holds skipped twice"),
        ('name="gate" time="0"', 'name="gate" time="1e-3"', "testcase: time"),
        ("<testsuites>", "<testsuites>text", "testsuites holds text"),
        ("system-out", "system-in", "no element system-in"),
    ],
)
def test_the_rules_object_to_what_breaks_them(before: str, after: str, objection: str) -> None:
    assert before in JUNIT
    assert objection in violations(ElementTree.fromstring(JUNIT.replace(before, after).encode()))


def test_characters_that_xml_cannot_hold_are_gone() -> None:
    bad = "".join(map(chr, [0, 7, 8, 11, 12, 14, 27, 31, 0xD800, 0xFFFE, 0xFFFF]))
    hostile = replace(SLOWER, label=f'a{bad}"<&>', reason=f"]]> {bad} tab\t", metric=f"m{bad}")
    xml = junit(paired(hostile, suite=bad, notes=(bad,)))
    case = ElementTree.fromstring(xml.encode())[0].findall("testcase")[1]
    assert case.get("classname") == "a" + "�" * len(bad) + '"<&>'
    assert case.findtext("failure") == "]]> " + "�" * len(bad) + " tab\t"
    assert not set(bad) & set(xml)
