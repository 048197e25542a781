"""Weight folders: one normalised spelling in a suite, one path and one content hash in a run.

A suite keeps a relative path relative, so that the ids of its cases are the same in every checkout. A run resolves each
folder once, when it begins, and stores the path and a hash of the files that loaders read in its header. It can be
resumed from any working directory, but only with the same weights.

    weights: {"sd": {"path": "/data/models/sd", "content": "6f0c..."}}      # in run.json
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.registry import MODELS
from harness.types import Case, Model, Run

READ_SUFFIXES: Final = frozenset(
    {".safetensors", ".bin", ".json", ".txt", ".model", ".pt", ".pth", ".ckpt", ".msgpack", ".spm"}
)
NOT_READ: Final = ("readme", "license", "licence", "notice", "copying", "requirements", "changelog")


class WeightsChanged(ValueError):
    """A weight folder is missing, or its content has changed since its run began; `str()` is one line for the user."""


def keywords(model: Model) -> list[str]:
    """The values other than a folder that `weights` may have for the model."""
    return [word for word in model.weights if word != "folder"]


def is_folder(case: Case) -> bool:
    """Whether the case names a folder and not one of its model's keywords."""
    return case.weights not in keywords(MODELS[case.model])


def normalised(spelling: str, words: Iterable[str] = ()) -> str:
    """The normalised spelling of a folder: `~` expanded, no `.`, no double or trailing slash; a relative one stays
    relative. `..` stays after a link, where dropping it would change the folder, and `./` before what would read as
    one of the keywords `words`. A keyword, and text that cannot be a path, is returned unchanged."""
    if spelling in set(words):
        return spelling
    try:
        expanded = Path(spelling).expanduser()
        plain = Path(os.path.normpath(expanded))
        plain = plain if plain.resolve() == expanded.resolve() else expanded
    except (OSError, RuntimeError, ValueError):  # no such user, or a NUL byte: the suite's checks refuse it
        return spelling
    return f"./{plain}" if str(plain) in set(words) else str(plain)


def one_spelling(case: Case, spellings: dict[Path, str]) -> Case:
    """The case with the first spelling of its folder, which `spellings` collects: two paths to one folder, also through
    links, are one case. A spelling that is a keyword of the case's model is never used."""
    if not is_folder(case):
        return case
    first = spellings.setdefault(resolved(case.weights), case.weights)
    return case if first in keywords(MODELS[case.model]) else case.with_(weights=first)


def resolved(spelling: str) -> Path:
    """The folder's absolute path, with links followed, relative to the working directory."""
    return Path(spelling).expanduser().resolve()


def recorded(cases: Iterable[Case]) -> dict[str, dict[str, str]]:
    """Spelling -> path and content of every folder that the cases name, as a run's header keeps it. Raises
    WeightsChanged if one has vanished since the suite was read, and OSError if one cannot be read."""
    found: dict[str, dict[str, str]] = {}
    for spelling in dict.fromkeys(case.weights for case in cases if is_folder(case)):
        path = resolved(spelling)
        if not path.is_dir():
            raise WeightsChanged(f"weights: {spelling!r}: the folder {path} does not exist")
        found[spelling] = {"path": str(path), "content": content(path)}
    return found


def content(folder: Path) -> str:
    """sha256 (hex) over the names and bytes of the files that loaders read, in order. Files that no loader
    reads (README, .git, .DS_Store, locks) do not count."""
    digest = hashlib.sha256()
    for file in sorted(_read_files(folder)):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _read_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The files that loaders read, also through links to folders, except a link to one of its own parent folders."""
    within = (*above, folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.resolve() not in within:
                yield from _read_files(path, within)
        elif path.suffix in READ_SUFFIXES and not path.name.lower().startswith(NOT_READ) and path.is_file():
            yield path


def checked(run: Run) -> Run:
    """The run, after checking that its weight folders exist and are unchanged since it began. An older run that did not
    record its folders gets them resolved now. Raises WeightsChanged."""
    known = dict(run.weights)
    for spelling in dict.fromkeys(case.weights for case in run.cases if is_folder(case)):
        stored = known.get(spelling)
        path = Path(stored["path"]) if stored else resolved(spelling)
        if not path.is_dir():
            raise WeightsChanged(
                f"weights: {spelling!r}: the folder {path} does not exist any more; {_mend(bool(stored))}"
            )
        found = content(path)
        if stored and found != stored["content"]:
            raise WeightsChanged(
                f"weights: {spelling!r}: the folder {path} has changed since the run began "
                f"(its content is {found[:12]} here and {stored['content'][:12]} in the run); {_mend(True)}"
            )
        known.setdefault(spelling, {"path": str(path), "content": found})
    return replace(run, weights=known)


def _mend(stored: bool) -> str:
    if stored:
        return "restore the weights of the run, or start a new run"
    return "resume from the working directory in which the run was started, or start a new run"


def built_case(case: Case, run: Run) -> Case:
    """The case as a worker builds it, with the resolved path of its weight folder. The row keeps the case as
    the suite has it."""
    stored = run.weights.get(case.weights) if is_folder(case) else None
    return case.with_(weights=stored["path"]) if stored else case
