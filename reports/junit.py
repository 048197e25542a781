"""A comparison as JUnit XML, the form that every CI server reads. Pure: a comparison in, text out.

    regressed                 failure                   (advisory ones pass, with the text in system-out)
    missing, not comparable   error: a row that is not there is no pass
    inconclusive              skipped, with the reason
    contaminated              every timed verdict skipped, and the test case `gate` in error
    refused, no baseline      the test case `gate` in error, and no other
    strict, nothing measured  the test case `gate` in error

So the file has a failure or an error exactly where the exit code is not 0. Elements and attributes are those that the
schema of Jenkins' xUnit plugin (junit-10.xsd) and that of Maven's Surefire share, in the order of the latter.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from baselines.verdict import MEANINGS, Comparison, Verdict, exit_code
from reports import gate

# What XML 1.0 cannot hold.
_ILLEGAL: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def junit(comparison: Comparison, *, strict: bool = False) -> str:
    """The XML document: a test case `gate` for the whole, then one a verdict (class: the row's label)."""
    suite = ElementTree.Element("testsuite", {"name": _clean(f"imgbench {comparison.suite}"), "time": "0"})
    _properties(suite, comparison)
    _gate(suite, comparison, strict)
    for verdict in () if comparison.refused else comparison.verdicts:
        _case(suite, verdict, comparison, strict)
    for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ElementTree.Element, comparison: Comparison) -> None:
    """The run, what it was compared with, the arms, and every note."""
    told = [("run", comparison.run_id), ("baseline", comparison.baseline), ("rule", comparison.rule)]
    if comparison.arms:
        told += [("base", comparison.arms[0]), ("head", comparison.arms[1])]
    told += [("difference", line) for line in comparison.differences]
    told += [("note", line) for line in comparison.notes]
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in told:
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value) or "none"})


def _gate(suite: ElementTree.Element, comparison: Comparison, strict: bool) -> None:
    """The test case of the whole. It is in error only for what no other test case tells."""
    case = ElementTree.SubElement(suite, "testcase", {"classname": "imgbench", "name": "gate", "time": "0"})
    if reasons := gate.whole(comparison, strict):
        _tell(case, "error", reasons[0][0], "; ".join(reason for _, reason in reasons))
    else:
        code = exit_code(comparison, strict=strict)
        told = f"{gate.sentence(comparison, strict)}\nexit code {code}: {MEANINGS[code]}"
        ElementTree.SubElement(case, "system-out").text = _clean(told)


def _case(suite: ElementTree.Element, verdict: Verdict, comparison: Comparison, strict: bool) -> None:
    attributes = {"classname": _clean(verdict.label), "name": _clean(verdict.metric), "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    standing = gate.standing(verdict, comparison, strict)
    if standing == "skipped":
        message = verdict.reason if verdict.outcome == "inconclusive" else f"contaminated run: {verdict.reason}"
        ElementTree.SubElement(case, "skipped", {"message": _clean(message)})
    elif standing == "passed":
        advisory = "" if verdict.gating else " (advisory)"
        ElementTree.SubElement(case, "system-out").text = _clean(f"{verdict.outcome}{advisory}: {verdict.reason}")
    else:
        _tell(case, standing, verdict.outcome, verdict.reason)


def _tell(case: ElementTree.Element, tag: str, kind: str, reason: str) -> None:
    ElementTree.SubElement(case, tag, {"type": kind, "message": _clean(f"{kind}: {reason}")}).text = _clean(reason)


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
