"""The files of a comparison for CI. They are written before the command exits; docs/ci.md describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from baselines.verdict import Comparison
from harness import storage
from reports.ci.annotations import github
from reports.ci.badge import badge
from reports.ci.junit import junit
from reports.formats import comparison_json, markdown


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The path of each artefact; None if it is not requested. The step summary is appended to its file."""

    junit: Path | None = None
    markdown: Path | None = None
    comment: Path | None = None
    badge: Path | None = None
    json: Path | None = None
    step_summary: Path | None = None
    annotations: bool = False


def write(comparison: Comparison, targets: Targets, say: Callable[[str], None], *, strict: bool = False) -> None:
    """Writes the requested artefacts; `say` gets the annotations, line by line.

    All files are tried. If some cannot be written, the first OSError is raised at the end.
    """
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (targets.junit, lambda: junit(comparison, strict=strict)),
        (targets.markdown, lambda: markdown.comparison(comparison) + "\n"),
        (targets.comment, lambda: markdown.pull_request_comment(comparison, strict=strict)),
        (targets.badge, lambda: badge(comparison)),
        (targets.json, lambda: comparison_json.text(comparison, strict=strict)),
    ]
    tasks: list[Callable[[], None]] = [partial(_replace, path, text) for path, text in texts if path is not None]
    if targets.step_summary is not None:
        tasks.append(partial(_append_summary, targets.step_summary, comparison))
    problems = []
    for task in tasks:
        try:
            task()
        except OSError as problem:
            problems.append(problem)
    for line in github(comparison, strict=strict).splitlines() if targets.annotations else ():
        say(line)
    if problems:
        raise problems[0]


def _replace(path: Path, text: Callable[[], str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomically(path, _encodable(text()))


def _append_summary(path: Path, comparison: Comparison) -> None:
    """GitHub rejects a file above its limit, so the size of the existing content counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    room = markdown.SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
    with path.open("a", encoding="utf-8") as file:
        file.write(_encodable(markdown.step_summary(comparison, room)))


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()
