"""Stored sessions. A file has a complete run with its raw values, and a hash of its content.

    <root>/<machine>/<suite>/<run id>.json     accepted on that machine
    <root>/reference/<suite>.json              accepted for every machine

`baselines.stored.location` defines <root> and the shipped references.

    session = save(run, "first baseline of the new runner", root)
    find(run, root)                            # the sessions of this machine and suite, oldest first

Format history: 1 (0.1.0) first.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baselines.stored.admission import objections
from baselines.stored.fingerprint import fingerprint, machine_key
from baselines.stored.location import REFERENCE, reference_folders
from harness import strict_json
from harness.storage import UnreadableRun, now, run_from_dict, run_to_dict, write_atomically
from harness.types import Run

SCHEMA = 1
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,150}")


class BaselineRefused(ValueError):
    """A session cannot be stored or used; `reasons` has all objections, one line each."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, kw_only=True)
class Session:
    """One accepted run: why it was accepted, when (UTC), and the run with its raw values."""

    run: Run
    reason: str
    saved: str
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One line of the listing. `problem` is why the file is refused, so that other fields may be empty, or None."""

    path: Path
    machine: str
    suite: str
    run_id: str
    saved: str = ""
    reason: str = ""
    fingerprint: str = ""
    rows: int | None = None
    problem: str | None = None


def save(run: Run, reason: str, root: Path, *, force: bool = False) -> Session:
    """Accepts a run as a baseline of its machine. Raises BaselineRefused with every objection.

    `force` accepts rows that are not ok, unchecked outputs, contention, and rows that only the newest session has. An
    incomplete run, a zero, and a value that is not finite are always refused.
    """
    path = session_path(run, root)
    stored = find(run, root)
    return _adopt(run, reason, path, objections(run, stored[-1].run if stored else None, force=force))


def save_reference(run: Run, reason: str, root: Path, *, force: bool = False) -> Session:
    """Makes `run` the store's reference of its suite, and replaces the previous one. Raises BaselineRefused."""
    before = reference(root, run.suite)
    path = root / REFERENCE / f"{_safe(run.suite, 'suite')}.json"
    return _adopt(run, reason, path, objections(run, before.run if before else None, force=force), replace=True)


def load(path: Path) -> Session:
    """Reads one session file. Raises BaselineRefused, with the path, if it is edited or unreadable."""
    document = _read(path)
    if document.get("schema") != SCHEMA:
        raise BaselineRefused(f"{path}: schema {document.get('schema')!r}; this version reads {SCHEMA}")
    if document.get("hash") != seal(document):
        raise BaselineRefused(f"{path}: edited after it was saved (its hash does not match)")
    try:
        run = run_from_dict(document["run"])
        session = Session(run=run, reason=str(document["reason"]), saved=str(document["saved"]), path=path)
    except KeyError as error:
        raise BaselineRefused(f"{path}: the field {error} is missing") from error
    except (UnreadableRun, TypeError, AttributeError) as error:
        raise BaselineRefused(f"{path}: {error}") from error
    if path.parent.name != REFERENCE and path.stem != run.id:
        raise BaselineRefused(f"{path}: holds the run {run.id}; a copy under another name is no further session")
    return session


def find(run: Run, root: Path) -> list[Session]:
    """The stored sessions of this machine's hardware and this suite, oldest first; versions may differ.

    Raises BaselineRefused if one of the files is refused, so that an edited store decides nothing.
    """
    folder = session_path(run, root).parent
    return _by_age([load(path) for path in sorted(folder.glob("*.json"))])


def elsewhere(run: Run, root: Path) -> list[Session]:
    """The stored sessions of this suite from other machines, oldest first; files that are refused are left out."""
    own, found = session_path(run, root).parent, []
    for path in sorted(root.glob(f"*/{_safe(run.suite, 'suite')}/*.json")):
        if path.parent != own:
            try:
                found.append(load(path))
            except BaselineRefused:
                continue  # `listing` names a damaged file of another machine, which is not used here
    return _by_age(found)


def reference(root: Path, suite: str) -> Session | None:
    """The reference run of a suite, or None. Raises BaselineRefused if it was edited."""
    paths = [folder / f"{_safe(suite, 'suite')}.json" for folder in reference_folders(root)]
    return next((load(path) for path in paths if path.exists()), None)


def listing(root: Path) -> list[Listed]:
    """All stored files, the reference runs first; refused files have the reason."""
    references = [path for folder in reference_folders(root) for path in sorted(folder.glob("*.json"))]
    sessions = sorted(p for p in root.glob("*/*/*.json") if p.parent.parent.name != REFERENCE)
    return [_listed(path) for path in [*references, *sessions]]


def session_path(run: Run, root: Path) -> Path:
    """The path of a run in the store."""
    return root / machine_key(run.environment) / _safe(run.suite, "suite") / f"{_safe(run.id, 'run id')}.json"


def seal(document: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of the document without its hash."""
    body = {key: value for key, value in document.items() if key != "hash"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _adopt(run: Run, reason: str, path: Path, wrong: list[str], *, replace: bool = False) -> Session:
    if not reason.strip():
        wrong = ["a baseline needs a reason, and none was given", *wrong]
    if path.exists() and not replace:
        wrong = [f"already stored: {path}", *wrong]
    if wrong:
        raise BaselineRefused(*wrong)
    document = _document(run, reason.strip())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    return load(path)


def _document(run: Run, reason: str) -> dict[str, Any]:
    document = {
        "schema": SCHEMA,
        "reason": reason,
        "saved": now(),
        "machine": machine_key(run.environment),
        "fingerprint": fingerprint(run.environment),
        "run": run_to_dict(run),
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(document, ensure_ascii=False, allow_nan=False))
    except ValueError as error:
        raise BaselineRefused(f"the run holds a value that JSON cannot: {error}") from error
    return {**plain, "hash": seal(plain)}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = strict_json.read(path)
    except OSError as error:
        raise BaselineRefused(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BaselineRefused(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise BaselineRefused(f"{path}: not a stored session")
    return document


def _listed(path: Path) -> Listed:
    shipped = path.parent.name == REFERENCE
    known = {
        "path": path,
        "machine": REFERENCE if shipped else path.parent.parent.name,
        "suite": path.stem if shipped else path.parent.name,
    }
    try:
        session = load(path)
    except BaselineRefused as refused:
        return Listed(**known, run_id=path.stem, problem=str(refused))  # type: ignore[arg-type]
    return Listed(
        **known,  # type: ignore[arg-type]
        run_id=session.run.id,
        saved=session.saved,
        reason=session.reason,
        fingerprint=fingerprint(session.run.environment),
        rows=len(session.run.cases),
    )


def listing_rows(root: Path) -> list[dict[str, Any]]:
    """`listing` in JSON types, for `--json`."""
    return [{**asdict(entry), "path": str(entry.path)} for entry in listing(root)]


def _by_age(sessions: list[Session]) -> list[Session]:
    return sorted(sessions, key=lambda s: (s.saved, s.run.created, s.run.id))


def _safe(name: str, what: str) -> str:
    """`name` if it is a safe file name; otherwise BaselineRefused. The name of a suite is untrusted input."""
    if not SAFE_NAME.fullmatch(name) or ".." in name:
        raise BaselineRefused(f"{what} {name!r} cannot name a file: use letters, digits, '_', '-', '.' and '+'")
    return name
