"""A comparison as GitHub workflow commands: red and yellow lines on the pull request. Pure.

GitHub shows at most ten errors and ten warnings per step; the last of each gives the number of further ones. If the
exit code is 0, a notice gives the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from baselines.verdict import FINE, Comparison, Verdict, exit_code
from reports import gate

LIMIT: Final = 10
LONGEST: Final = 4_000  # characters of a text, such as pip's output


def github(comparison: Comparison, *, strict: bool = False) -> str:
    """The lines for stdout, each with a newline."""
    verdicts = [(v, gate.standing(v, comparison, strict)) for v in gate.gravest_first(comparison)]
    errors = [(f"imgbench: {kind}", reason) for kind, reason in gate.whole(comparison, strict)]
    errors += [_told(v) for v, standing in verdicts if standing in {"failure", "error"}]
    warnings = [
        _told(v)
        for v, standing in verdicts
        if (v.gating and standing == "skipped" and not comparison.contended)
        or (not v.gating and v.outcome == "regressed" and standing == "passed")
    ]
    green = exit_code(comparison, strict=strict) == FINE
    notices = [("imgbench", gate.sentence(comparison, strict))] if green else []
    return "".join([*_lines("error", errors), *_lines("warning", warnings), *_lines("notice", notices)])


def _told(verdict: Verdict) -> tuple[str, str]:
    advisory = "" if verdict.gating else " (advisory)"
    title = f"imgbench: {verdict.outcome.replace('_', ' ')}{advisory}: {verdict.metric}"
    return title, f"{verdict.label}: {verdict.reason}"


def _lines(level: str, told: Sequence[tuple[str, str]]) -> list[str]:
    shown = list(told)
    if len(told) > LIMIT:
        left = len(told) - LIMIT + 1
        shown = [*told[: LIMIT - 1], (f"imgbench: {left} more", f"{left} more of this kind are in the step summary")]
    return [f"::{level} title={_property(title)}::{_data(text[:LONGEST])}\n" for title, text in shown]


def _data(text: str) -> str:
    """Escaped for the runner's command parser. Every line separator (also U+2028) is escaped, so that no text can begin
    a line and inject a command."""
    return "%0A".join(text.replace("%", "%25").splitlines())


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
