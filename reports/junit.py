"""A comparison as JUnit XML, the form that every CI server reads. Pure: a comparison in, text out.

    regressed            failure                    (advisory ones pass, with the text in system-out)
    missing, not comparable   error: a row that is not there is no pass
    inconclusive         skipped, with the reason
    contaminated         one error `gate`, and every timed verdict skipped
    refused              one error `gate`

The elements and attributes are those of the schema that Jenkins' xUnit plugin and Maven's Surefire share.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from baselines.verdict import Comparison, Verdict, exit_code

# What XML 1.0 cannot hold.
_ILLEGAL = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def junit(comparison: Comparison, *, strict: bool = False) -> str:
    """The XML document. One test case a verdict, and one, `gate`, for the whole."""
    suite = ElementTree.Element("testsuite", {"name": _clean(f"imgbench {comparison.suite}"), "time": "0"})
    properties = ElementTree.SubElement(suite, "properties")
    told = {"run": comparison.run_id, "baseline": comparison.baseline, "rule": comparison.rule}
    if comparison.arms:
        told |= {"base": comparison.arms[0], "head": comparison.arms[1]}
    for name, value in told.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value) or "none"})
    _gate(suite, comparison, strict)
    for verdict in comparison.verdicts:
        _case(suite, verdict, strict)
    for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _gate(suite: ElementTree.Element, comparison: Comparison, strict: bool) -> None:
    """The test case that fails where nothing else would: refused, contaminated, nothing measured."""
    case = ElementTree.SubElement(suite, "testcase", {"classname": "imgbench", "name": "gate", "time": "0"})
    for kind, reasons in (("refused", comparison.refused), ("contaminated", comparison.contaminated)):
        if reasons:
            _tell(case, "error", kind, "; ".join(reasons))
            return
    if not comparison.verdicts:
        _tell(case, "error", "nothing measured", "the comparison holds no verdict")
    elif exit_code(comparison, strict=strict) == 0:
        ElementTree.SubElement(case, "system-out").text = _clean("\n".join(comparison.notes))


def _case(suite: ElementTree.Element, verdict: Verdict, strict: bool) -> None:
    attributes = {"classname": _clean(verdict.label), "name": _clean(verdict.metric), "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    failing = {"missing", "not_comparable", "new"} if strict else {"missing", "not_comparable"}
    if verdict.outcome == "inconclusive":
        ElementTree.SubElement(case, "skipped", {"message": _clean(verdict.reason)})
    elif verdict.gating and verdict.outcome == "regressed":
        _tell(case, "failure", "regressed", verdict.reason)
    elif verdict.gating and verdict.outcome in failing:
        _tell(case, "error", verdict.outcome, verdict.reason)
    else:
        advisory = "" if verdict.gating else " (advisory)"
        ElementTree.SubElement(case, "system-out").text = _clean(f"{verdict.outcome}{advisory}: {verdict.reason}")


def _tell(case: ElementTree.Element, tag: str, kind: str, reason: str) -> None:
    ElementTree.SubElement(case, tag, {"type": kind, "message": _clean(f"{kind}: {reason}")}).text = _clean(reason)


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
