"""Everything that CI wants of a comparison, written before the exit code is decided."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from baselines.verdict import MEANINGS, Comparison, exit_code
from harness import storage
from harness.environment import VERSION
from reports import markdown
from reports.annotations import github
from reports.badge import badge
from reports.junit import junit


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Where each artefact goes; None where it was not asked for. The step summary is appended to its file."""

    junit: Path | None = None
    markdown: Path | None = None
    comment: Path | None = None
    badge: Path | None = None
    json: Path | None = None
    step_summary: Path | None = None
    annotations: bool = False


def write(comparison: Comparison, targets: Targets, say: Callable[[str], None], *, strict: bool = False) -> None:
    """Writes what was asked for; annotations go through `say`, a line each. Raises OSError."""
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (targets.junit, lambda: junit(comparison, strict=strict)),
        (targets.markdown, lambda: markdown.comparison(comparison) + "\n"),
        (targets.comment, lambda: markdown.pull_request_comment(comparison)),
        (targets.badge, lambda: badge(comparison)),
        (targets.json, lambda: as_json(comparison, strict=strict)),
    ]
    for path, text in texts:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_atomically(path, text())
    if targets.step_summary is not None:
        with targets.step_summary.open("a", encoding="utf-8") as file:
            file.write(markdown.step_summary(comparison))
    if targets.annotations:
        for line in github(comparison).splitlines():
            say(line)


def as_json(comparison: Comparison, *, strict: bool = False) -> str:
    """The whole comparison with the exit code that it stands for."""
    code = exit_code(comparison, strict=strict)
    document = {"imgbench": VERSION, "exit_code": code, "meaning": MEANINGS[code], **asdict(comparison)}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
