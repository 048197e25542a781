"""The record of a GPU check: what was measured, and no verdict. `benches.gpu_check.verdict` decides from it alone.

While the check runs, its lines are appended to a JSONL file one by one, each synced to disk, the environment first. A
check that is killed therefore keeps its measurements. At the end the same lines become one compressed document,
{"schema", "lines"}. `read` takes both forms. Kinds of lines:

    header       schema, created, budget_s, environment (commit, versions, flags, device), commit_by_caller,
                 capability, l2_bytes, multiprocessors, nvidia_smi
    check        one check of the device, as `Check`
    row          name, measurement, flops, allowed_s, seconds, log (the end of a failed worker's log), phase (the last
                 that its worker began)
    block        the measurements of one process that compiles in several modes
    comparison   the verdict of `ab` on each of its rows
    end          elapsed_s, and why the check ended early (None: it did not)
"""

from __future__ import annotations

import gzip
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from benches.gpu_check import ROW_TIMEOUT_S, Check
from harness import storage, strict_json
from harness.files import append_line, write_atomically
from harness.records import record as typed
from harness.types import Measurement

SCHEMA: Final = 1
LOG_CHARACTERS: Final = 4000  # kept of a failed worker's log
SLOW_PHASES: Final = (None, "load", "build", "reference")  # in which a worker may only be slow


class Unreadable(ValueError):
    """The file is not the record of a GPU check; `str()` is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured row. `flops` are those of one iteration, None if unknown; `allowed_s` is its time limit, and
    `phase` the last phase that its worker began (None: none)."""

    name: str
    measurement: Measurement
    flops: float | None
    allowed_s: float
    seconds: float
    log: str | None = None
    phase: str | None = None

    @property
    def out_of_time(self) -> bool:
        """Whether the row was stopped without a fault of its own: before ROW_TIMEOUT_S, or while the network was loaded
        or built or its reference computed. A row that does not end after its first call hangs."""
        early = self.allowed_s < ROW_TIMEOUT_S or self.phase in SLOW_PHASES
        return self.measurement.status == "timeout" and early


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One row of the paired run. `planted` says whether its head was slowed down; `outcome` is the verdict's."""

    label: str
    planted: bool
    outcome: str
    ratio: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A whole record. What the check did not reach is empty. A record without an `end` belongs to a check that was
    killed."""

    header: Mapping[str, Any]
    checks: Mapping[str, Check] = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)
    block: tuple[Measurement, ...] = ()
    block_missing: str | None = None
    compared: tuple[Compared, ...] = ()
    compared_missing: str | None = None
    end: Mapping[str, Any] | None = None

    @property
    def capability(self) -> tuple[int, int]:
        """The GPU's compute capability."""
        major, minor = self.header["capability"]
        return int(major), int(minor)


class Writer:
    """Appends lines to a new file, from any thread. After `close` nothing more is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._closed = False

    def header(self, header: Mapping[str, Any]) -> None:
        self._write({"kind": "header", "schema": SCHEMA, **header})

    def check(self, check: Check) -> None:
        self._write({"kind": "check", **{f.name: getattr(check, f.name) for f in fields(check)}})

    def row(self, row: Row) -> None:
        shallow = {f.name: getattr(row, f.name) for f in fields(row)}
        self._write({"kind": "row", **shallow, "measurement": storage.measurement_to_dict(row.measurement)})

    def block(self, measured: Sequence[Measurement], missing: str | None = None) -> None:
        found = [storage.measurement_to_dict(m) for m in measured]
        self._write({"kind": "block", "measurements": found, "missing": missing})

    def comparison(self, compared: Sequence[Compared], missing: str | None = None) -> None:
        self._write({"kind": "comparison", "rows": [vars(one) for one in compared], "missing": missing})

    def close(self, elapsed_s: float, reason: str | None = None) -> bool:
        """Writes the last line. Returns False if it was already written."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            self._append({"kind": "end", "elapsed_s": elapsed_s, "reason": reason})
            return True

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            if not self._closed:
                self._append(line)

    def _append(self, line: Mapping[str, Any]) -> None:
        plain = _plain(line)
        append_line(self.path, plain)
        self.lines.append(plain)

    def pack(self, path: Path) -> None:
        """Writes all lines as one compressed document. Equal lines give equal bytes."""
        text = json.dumps({"schema": SCHEMA, "lines": self.lines}, ensure_ascii=False, allow_nan=False)
        write_atomically(path, gzip.compress(text.encode(), mtime=0))


def read(path: Path) -> Record:
    """Reads a record from a JSONL file, whose incomplete last line is ignored, or from a document, compressed or not.
    Raises Unreadable."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        return of_lines(_lines(raw))
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        told = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise Unreadable(f"{path}: {told}") from None


def of_lines(lines: Sequence[Mapping[str, Any]]) -> Record:
    """The record that these lines make. Raises ValueError, KeyError or TypeError for other lines."""
    if not lines or lines[0].get("kind") != "header":
        raise ValueError("not the record of a GPU check: it does not begin with a header")
    if lines[0].get("schema") != SCHEMA:
        raise ValueError(f"schema {lines[0].get('schema')!r}; this version reads {SCHEMA}")
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(str(line["kind"]), []).append({k: v for k, v in line.items() if k != "kind"})
    checks = [typed(Check, line, "check") for line in by_kind.get("check", ())]
    rows = [_row(line) for line in by_kind.get("row", ())]
    block = by_kind.get("block", [{}])[-1]
    comparison = by_kind.get("comparison", [{}])[-1]
    return Record(
        header=by_kind["header"][0],
        checks={check.what: check for check in checks},
        rows={row.name: row for row in rows},
        block=tuple(storage.measurement_from_dict(m) for m in block.get("measurements", ())),
        block_missing=block.get("missing"),
        compared=tuple(typed(Compared, one, "compared") for one in comparison.get("rows", ())),
        compared_missing=comparison.get("missing"),
        end=by_kind.get("end", [None])[-1],
    )


def log_end(path: Path) -> str | None:
    """The last characters of a worker's log; None where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return text[-LOG_CHARACTERS:] or None


def _row(line: Mapping[str, Any]) -> Row:
    return typed(Row, {**line, "measurement": storage.measurement_from_dict(line["measurement"])}, "row")


def _lines(raw: bytes) -> list[Mapping[str, Any]]:
    parts = [part for part in raw.split(b"\n") if part.strip()]
    try:
        documents = [strict_json.loads(part) for part in parts[:1]]
        if documents and isinstance(documents[0], dict) and "lines" in documents[0]:
            return list(documents[0]["lines"])
        documents += [strict_json.loads(part) for part in parts[1:-1]]
    except strict_json.NotJson as error:
        raise ValueError(f"not the record of a GPU check: {error}") from None
    for last in parts[1:][-1:]:
        try:
            documents.append(strict_json.loads(last))
        except strict_json.NotJson:  # the check was killed while it was written
            break
    return documents


def _plain(value: Any) -> Any:
    """`value` in JSON types that `read` takes. A number that it would refuse, and any other type, becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > strict_json.LARGEST:
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate, from a path or an error
