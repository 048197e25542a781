"""Everything that CI wants of a comparison, written before the exit code is decided; CI.md says what is what."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from baselines.verdict import MEANINGS, Comparison, exit_code
from harness import storage
from harness.version import VERSION
from reports.ci.annotations import github
from reports.ci.badge import badge
from reports.ci.junit import junit
from reports.formats import markdown
from reports.gate import sentence


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
    """Writes what was asked for; annotations go through `say`, a line each.

    A file that cannot be written keeps none of the others from being written; the first such OSError is raised after.
    """
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (targets.junit, lambda: junit(comparison, strict=strict)),
        (targets.markdown, lambda: markdown.comparison(comparison) + "\n"),
        (targets.comment, lambda: markdown.pull_request_comment(comparison, strict=strict)),
        (targets.badge, lambda: badge(comparison)),
        (targets.json, lambda: as_json(comparison, strict=strict)),
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


def as_json(comparison: Comparison, *, strict: bool = False) -> str:
    """The whole comparison with the exit code that it stands for. A value that is not finite is null."""
    code = exit_code(comparison, strict=strict)
    document = {
        "imgbench": VERSION,
        "exit_code": code,
        "meaning": MEANINGS[code],
        "sentence": sentence(comparison, strict),
        **asdict(comparison),
    }
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _replace(path: Path, text: Callable[[], str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomically(path, _encodable(text()))


def _append_summary(path: Path, comparison: Comparison) -> None:
    """GitHub refuses the whole file above its limit, so what an earlier command of the step wrote counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    room = markdown.SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
    with path.open("a", encoding="utf-8") as file:
        file.write(_encodable(markdown.step_summary(comparison, room)))


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
