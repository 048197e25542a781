"""The JUnit file: to the letter, by the rules of its schemas, and never greener than the exit code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

import pytest
from comparison_fixture import SAME, SLOWER, UNDECIDED, every_state, paired

from harness import storage
from harness.reasons import stated
from reports.ci.junit import junit

JUNIT = """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="imgbench gate" id="0" package="imgbench" timestamp="2026-01-31T12:00:00" hostname="localhost" \
time="0" failures="1" errors="0" skipped="1" tests="4">
    <properties>
      <property name="run" value="ab-1" />
      <property name="baseline" value="base (ref=main)" />
      <property name="rule" value="paired" />
      <property name="base" value="ref=main" />
      <property name="head" value="ref=HEAD" />
      <property name="note" value="24 pairs, 2 dropped" />
    </properties>
    <testcase classname="imgbench" name="gate" time="0" />
    <testcase classname="vit · batch 1" name="latency_s" time="0">
      <failure type="regressed" message="regressed: confirmed on 16 fresh pairs">confirmed on 16 fresh pairs</failure>
    </testcase>
    <testcase classname="dit · 20 steps" name="latency_s" time="0">
      <skipped message="budget spent" />
    </testcase>
    <testcase classname="vit · batch 32" name="latency_s" time="0" />
    <system-out>Red: 1 row is slower.
exit code 10: regressed
vit · batch 32, latency_s: unchanged: within ±2.5 %</system-out>
    <system-err />
  </testsuite>
</testsuites>
"""
WRITTEN = "2026-01-31T12:00:00+00:00"


def test_junit_to_the_letter() -> None:
    assert junit(paired(SLOWER, UNDECIDED, SAME), written=WRITTEN) == JUNIT


def test_the_time_stamp_is_that_of_writing_and_names_no_zone() -> None:
    before, suite, after = storage.now(), ElementTree.fromstring(junit(paired(SAME)).encode())[0], storage.now()
    assert before[:19] <= str(suite.get("timestamp")) <= after[:19]


def test_junit_counts_and_places_every_outcome() -> None:
    found = paired(
        SLOWER,
        replace(SLOWER, outcome="inconclusive", case_id="b", label="b", reason=stated("so it is")),
        replace(SLOWER, outcome="missing", case_id="c", label="c", reason=stated("so it is")),
        replace(SLOWER, outcome="unchanged", case_id="d", label="d", reason=stated("so it is")),
        replace(SLOWER, outcome="regressed", case_id="e", label="e", reason=stated("so it is"), gating=False),
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
    assert list(told["e/latency_s"]) == []
    assert "e, latency_s: regressed (advisory): so it is" in str(suite.findtext("system-out")).splitlines()


NAME = re.compile(r".+", re.DOTALL)
NUMBER = re.compile(r"[0-9]+")
TIME = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?")  # a decimal of both schemas
STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
ANY = re.compile(r".*", re.DOTALL)
COUNTS = dict.fromkeys(("tests", "failures", "errors"), NUMBER)
COMPLAINT = {"type": ANY}, {"message": ANY}


@dataclass(frozen=True)
class Rules:
    """What one schema allows in an element: attributes that must be there, attributes that may, and its children: by
    name the least and the most of them, in this order where `ordered`. `text` where it may hold words."""

    required: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    optional: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    children: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    ordered: bool = True
    text: bool = False
    alternatives: bool = False  # one child at most


MANY, ONE, MAYBE = (0, math.inf), (1, 1), (0, 1)
OUTPUTS = {"system-out": Rules(text=True), "system-err": Rules(text=True)}
SCHEMAS: dict[str, dict[str, Rules]] = {
    # Ant's JUnit task, by Windy Road: JUnit.xsd
    "ant": {
        "testsuites": Rules(children={"testsuite": MANY}),
        "testsuite": Rules(
            required={"name": NAME, "id": NUMBER, "package": ANY, "timestamp": STAMP, "hostname": NAME, "time": TIME}
            | COUNTS,
            optional={"skipped": NUMBER},
            children={"properties": ONE, "testcase": MANY, "system-out": ONE, "system-err": ONE},
        ),
        "properties": Rules(children={"property": MANY}),
        "property": Rules(required={"name": NAME, "value": ANY}),
        "testcase": Rules(
            required={"name": ANY, "classname": ANY, "time": TIME},
            children={"skipped": MAYBE, "error": MAYBE, "failure": MAYBE},
            alternatives=True,
        ),
        "failure": Rules(*COMPLAINT, text=True),
        "error": Rules(*COMPLAINT, text=True),
        "skipped": Rules(optional={"type": ANY, "message": ANY}, text=True),  # anything at all
        **OUTPUTS,
    },
    # Jenkins' xUnit plugin: junit-10.xsd
    "jenkins": {
        "testsuites": Rules(optional={"name": ANY, "time": TIME, **COUNTS}, children={"testsuite": MANY}),
        "testsuite": Rules(
            required={"name": ANY, **COUNTS},
            optional=dict.fromkeys(("group", "skipped", "timestamp", "hostname", "id", "package", "file", "log"), ANY)
            | {"time": TIME},
            children=dict.fromkeys(("testsuite", "properties", "testcase", "system-out", "system-err"), MANY),
            ordered=False,
        ),
        "properties": Rules(children={"property": MANY}),
        "property": Rules(required={"name": ANY, "value": ANY}),
        "testcase": Rules(
            required={"name": ANY},
            optional={"time": ANY, "classname": ANY, "group": ANY},
            children=dict.fromkeys(("skipped", "error", "failure", "system-out", "system-err"), MANY),
            ordered=False,
        ),
        "failure": Rules(optional={"type": ANY, "message": ANY}, text=True),
        "error": Rules(optional={"type": ANY, "message": ANY}, text=True),
        "skipped": Rules(optional={"type": ANY, "message": ANY}, text=True),
        **OUTPUTS,
    },
}


def violations(element: ElementTree.Element, schema: Mapping[str, Rules]) -> list[str]:
    """What a schema objects to."""
    if element.tag not in schema:
        return [f"no element {element.tag}"]
    rules, have, tags = schema[element.tag], set(element.keys()), [child.tag for child in element]
    allowed = {**rules.required, **rules.optional}
    found = [f"{element.tag} lacks {name}" for name in rules.required.keys() - have]
    found += [f"{element.tag} has {name}" for name in have - allowed.keys()]
    found += [
        f"{element.tag}: {name}" for name in have & allowed.keys() if not allowed[name].fullmatch(element.attrib[name])
    ]
    found += [f"{element.tag} holds {tag}" for tag in set(tags) - rules.children.keys()]
    found += [
        f"{element.tag}: number of {tag}"
        for tag, (least, most) in rules.children.items()
        if not least <= tags.count(tag) <= most
    ]
    if rules.alternatives and len(tags) > 1:
        found.append(f"{element.tag} holds several")
    places = [list(rules.children).index(tag) for tag in tags if tag in rules.children]
    if rules.ordered and places != sorted(places):
        found.append(f"{element.tag}: order of its children")
    if not rules.text and "".join([element.text or "", *(child.tail or "" for child in element)]).strip():
        found.append(f"{element.tag} holds text")
    return found + [line for child in element for line in violations(child, schema)]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_junit_keeps_the_rules_of_the_schemas(schema: str) -> None:
    states = list(every_state())
    assert states
    for found, strict in states:
        document = ElementTree.fromstring(junit(found, strict=strict).encode())
        assert violations(document, SCHEMAS[schema]) == []
        suite = document[0]
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))


@pytest.mark.parametrize(
    ("before", "after", "objection"),
    [
        ('tests="4"', "", "testsuite lacks tests"),
        ('package="imgbench"', "", "testsuite lacks package"),
        ('hostname="localhost"', 'hostname=""', "testsuite: hostname"),
        ('12:00:00"', '12:00:00+00:00"', "testsuite: timestamp"),
        ('time="0">\n      <skipped', 'line="1" time="0">\n      <skipped', "testcase has line"),
        ('value="ref=main"', "", "property lacks value"),
        ("</properties>", "</properties><system-out/>", "testsuite: order of its children"),
        ("<system-err />", "", "testsuite: number of system-err"),
        ("<failure", "<system-out/><failure", "testcase holds system-out"),
        ('<skipped message="budget spent" />', "<skipped/><error type='x'/>", "testcase holds several"),
        ('name="gate" time="0"', 'name="gate" time="1e-3"', "testcase: time"),
        ("<testsuites>", "<testsuites>text", "testsuites holds text"),
        ("system-out", "system-in", "no element system-in"),
    ],
)
def test_the_rules_object_to_what_breaks_them(before: str, after: str, objection: str) -> None:
    assert before in JUNIT
    assert objection in violations(ElementTree.fromstring(JUNIT.replace(before, after).encode()), SCHEMAS["ant"])


def test_the_other_schema_objects_too() -> None:
    for before, after, objection in (
        ('name="gate" time', 'name="gate" line="1" time', "testcase has line"),
        ('errors="0"', "", "testsuite lacks errors"),
        ("<properties>", "<properties><property name='x'/>", "property lacks value"),
        ("<failure", "<reason/><failure", "no element reason"),
    ):
        assert before in JUNIT
        broken = ElementTree.fromstring(JUNIT.replace(before, after).encode())
        assert objection in violations(broken, SCHEMAS["jenkins"])


def test_characters_that_xml_cannot_hold_are_gone() -> None:
    bad = "".join(map(chr, [0, 7, 8, 11, 12, 14, 27, 31, 0xD800, 0xFFFE, 0xFFFF]))
    hostile = replace(SLOWER, label=f'a{bad}"<&>', reason=stated(f"]]> {bad} tab\t"), metric=f"m{bad}")
    xml = junit(paired(hostile, suite=bad, notes=(bad,)))
    case = ElementTree.fromstring(xml.encode())[0].findall("testcase")[1]
    assert case.get("classname") == "a" + "�" * len(bad) + '"<&>'
    assert case.findtext("failure") == "]]> " + "�" * len(bad) + " tab\t"
    assert not set(bad) & set(xml)
