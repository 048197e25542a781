"""A comparison as JUnit XML, which CI servers read. Pure.

    regressed                 failure                   (advisory ones pass)
    missing, not comparable   error, as are rows that are not in the baseline
    inconclusive              skipped, with the reason
    contended run             every timed verdict skipped, and the test case `gate` in error
    refused, no baseline      the test case `gate` in error, and no other
    strict, nothing measured  the test case `gate` in error

The file has a failure or an error exactly if the exit code is not 0. It is valid under both common schemas, that of
Jenkins' xUnit plugin (junit-10.xsd) and that of Ant's JUnit task (JUnit.xsd). Together they require a time stamp
without a zone, a host, and `system-out` and `system-err` in the suite, but not in a test case. The reasons of passed
verdicts are therefore in the suite's `system-out`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree

from baselines.verdict import MEANINGS, Comparison, Verdict, exit_code
from harness import storage
from reports import gate

HOST: Final = "localhost"  # the schema requires a host; the real one is not published
# What XML 1.0 cannot hold.
_ILLEGAL: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def junit(comparison: Comparison, *, strict: bool = False, written: str | None = None) -> str:
    """The XML document: a test case `gate`, then one for each verdict (class: the row's label).

    `written` is the time stamp of the document in ISO 8601 (UTC); None is now.
    """
    stamp = (written or storage.now())[: len("2026-01-31T23:59:59")]
    identity = {"id": "0", "package": "imgbench", "timestamp": stamp, "hostname": HOST, "time": "0"}
    suite = ElementTree.Element("testsuite", {"name": _clean(f"imgbench {comparison.suite}"), **identity})
    _properties(suite, comparison)
    _gate(suite, comparison, strict)
    for verdict in () if comparison.refused else comparison.verdicts:
        _case(suite, verdict, comparison, strict)
    for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(_told(comparison, strict)))
    ElementTree.SubElement(suite, "system-err")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ElementTree.Element, comparison: Comparison) -> None:
    """The run, its baseline, the arms, and every note."""
    told = [("run", comparison.run_id), ("baseline", comparison.baseline), ("rule", comparison.rule)]
    if comparison.arms:
        told += [("base", comparison.arms[0]), ("head", comparison.arms[1])]
    told += [("difference", str(reason)) for reason in comparison.differences]
    told += [("note", str(reason)) for reason in comparison.notes]
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in told:
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value) or "none"})


def _gate(suite: ElementTree.Element, comparison: Comparison, strict: bool) -> None:
    """The test case `gate`. It has an error only for reasons that no other test case has."""
    case = ElementTree.SubElement(suite, "testcase", {"classname": "imgbench", "name": "gate", "time": "0"})
    if reasons := gate.whole(comparison, strict):
        _tell(case, "error", reasons[0][0], "; ".join(reason for _, reason in reasons))


def _told(comparison: Comparison, strict: bool) -> Iterator[str]:
    """The sentence of the gate, and a line for every passed verdict, whose test case has no text."""
    code = exit_code(comparison, strict=strict)
    yield gate.sentence(comparison, strict)
    yield f"exit code {code}: {MEANINGS[code]}"
    for verdict in () if comparison.refused else comparison.verdicts:
        if gate.standing(verdict, comparison, strict) == "passed":
            advisory = "" if verdict.gating else " (advisory)"
            yield f"{verdict.label}, {verdict.metric}: {verdict.outcome}{advisory}: {verdict.reason}"


def _case(suite: ElementTree.Element, verdict: Verdict, comparison: Comparison, strict: bool) -> None:
    attributes = {"classname": _clean(verdict.label), "name": _clean(verdict.metric), "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    standing = gate.standing(verdict, comparison, strict)
    if standing == "skipped":
        message = str(verdict.reason) if verdict.outcome == "inconclusive" else f"contended run: {verdict.reason}"
        ElementTree.SubElement(case, "skipped", {"message": _clean(message)})
    elif standing != "passed":
        _tell(case, standing, verdict.outcome, str(verdict.reason))


def _tell(case: ElementTree.Element, tag: str, kind: str, reason: str) -> None:
    ElementTree.SubElement(case, tag, {"type": kind, "message": _clean(f"{kind}: {reason}")}).text = _clean(reason)


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
