"""A comparison as GitHub workflow commands: red and yellow lines on the pull request. Pure.

GitHub shows at most ten errors and ten warnings a step; the last of each says how many more there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from baselines.verdict import Comparison, Verdict
from reports.sections.comparison import ranked

LIMIT: Final = 10
ERRORS: Final = frozenset({"regressed", "missing", "not_comparable"})


def github(comparison: Comparison) -> str:
    """The lines for stdout, each ended; empty where there is nothing to tell."""
    errors = [("imgbench: not compared", reason) for reason in comparison.refused]
    errors += [("imgbench: contaminated", reason) for reason in comparison.contaminated]
    verdicts = ranked(comparison.verdicts)
    errors += [_told(v) for v in verdicts if v.gating and v.outcome in ERRORS]
    warnings = [_told(v) for v in verdicts if v.outcome == "inconclusive" and v.gating and not comparison.contaminated]
    warnings += [_told(v) for v in verdicts if not v.gating and v.outcome == "regressed"]
    return "".join([*_lines("error", errors), *_lines("warning", warnings)])


def _told(verdict: Verdict) -> tuple[str, str]:
    advisory = "" if verdict.gating else " (advisory)"
    title = f"imgbench: {verdict.outcome.replace('_', ' ')}{advisory}: {verdict.metric}"
    return title, f"{verdict.label}: {verdict.reason}"


def _lines(level: str, told: Sequence[tuple[str, str]]) -> list[str]:
    shown = list(told)
    if len(told) > LIMIT:
        left = len(told) - LIMIT + 1
        shown = [*told[: LIMIT - 1], (f"imgbench: {left} more", f"{left} more of this kind are in the step summary")]
    return [f"::{level} title={_property(title)}::{_data(text)}\n" for title, text in shown]


def _data(text: str) -> str:
    """Escaped as the runner's command parser undoes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
