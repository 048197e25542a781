"""The run folder: written while the run goes on, and readable after a kill at any moment.

    runs/<id>/run.json             schema, suite, protocol, environment, metrics, planned cases (written first)
    runs/<id>/measurements.jsonl   one Measurement per line, each flushed and synced
    runs/<id>/controls.jsonl       one process per line that measures no row (`harness.types.Control`)
    runs/<id>/images/<case>.png    generated images of a case in one strip

Format history: 2 has reasons as kinds and data; 1 (0.1.0) first. A run of schema 1 is read, and becomes one of schema 2
when it is resumed: each measurement names its own schema (`harness.records`).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import strict_json
from harness.attempts import split
from harness.files import append_line
from harness.files import write_atomically as write_atomically
from harness.records import (
    SCHEMA,
    check_header,
    control_from_dict,
    control_to_dict,
    protocol_from_dict,
    weights_from_dict,
)
from harness.records import measurement_from_dict as measurement_from_dict
from harness.records import measurement_to_dict as measurement_to_dict
from harness.records import metrics_from_dict as metrics_from_dict
from harness.records import record as record
from harness.types import Case, Control, Measurement, Run

READ = (1, SCHEMA)
RUN_FILE = "run.json"
MEASUREMENTS_FILE = "measurements.jsonl"
CONTROLS_FILE = "controls.jsonl"


class UnreadableRun(ValueError):
    """A folder that is not a run, or a run of another schema; `str()` is one line for the user."""


class RunBusy(RuntimeError):
    """Another process is writing to this run folder; `str()` is one line for the user."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run folder for one writer. Raises RunBusy; the lock ends with the process, however it ends."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunBusy(f"{folder}: another process is writing to this run") from None
        yield


def now() -> str:
    """UTC now, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_to_dict(run: Run) -> dict[str, Any]:
    """The whole run as JSON types, raw values included; `run_from_dict` reads it back equal."""
    measured = [measurement_to_dict(m) for m in (*run.measurements, *run.superseded)]
    return {**_header(run), "measurements": measured, "controls": [control_to_dict(c) for c in run.controls]}


def run_from_dict(document: Mapping[str, Any], folder: str | None = None, problems: tuple[str, ...] = ()) -> Run:
    """Inverse of `run_to_dict`. Raises UnreadableRun on another schema or a missing field."""
    if document.get("schema") not in READ:
        raise UnreadableRun(
            f"it has schema {document.get('schema')!r}; this version of imgbench reads the schemas 1 and {SCHEMA}"
        )
    try:
        check_header(document)
        measurements, superseded = split(measurement_from_dict(entry) for entry in document.get("measurements", ()))
        return Run(
            id=document["id"],
            suite=document["suite"],
            description=document.get("description", ""),
            protocol=protocol_from_dict(document["protocol"]),
            environment=document["environment"],
            metrics=metrics_from_dict(document["metrics"]),
            models=dict(document.get("models", {})),
            weights=weights_from_dict(document.get("weights", {})),
            cases=tuple(record(Case, entry, f"cases[{i}]") for i, entry in enumerate(document["cases"])),
            measurements=measurements,
            superseded=superseded,
            controls=tuple(control_from_dict(entry) for entry in document.get("controls", ())),
            created=document.get("created", ""),
            finished=document.get("finished"),
            selection=document.get("selection"),
            folder=folder,
            problems=problems,
        )
    except KeyError as error:
        raise UnreadableRun(f"the field {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadableRun(str(error)) from error


def create(folder: Path, run: Run) -> None:
    """Writes the header of a new run. Raises FileExistsError where the folder already holds one."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RUN_FILE).exists():
        raise FileExistsError(f"{folder} already holds a run")
    write_header(folder, run)
    (folder / MEASUREMENTS_FILE).touch()


def write_header(folder: Path, run: Run) -> None:
    """Replaces run.json atomically."""
    write_atomically(folder / RUN_FILE, json.dumps(_header(run), indent=1, ensure_ascii=False, allow_nan=False))


def append(folder: Path, measurement: Measurement) -> None:
    """Adds one line and waits until the disk has it."""
    append_line(folder / MEASUREMENTS_FILE, measurement_to_dict(measurement))


def append_control(folder: Path, control: Control) -> None:
    """Adds one process of the A/A control."""
    append_line(folder / CONTROLS_FILE, control_to_dict(control))


def load(folder: Path) -> Run:
    """Reads a run folder, also one whose writer was killed; unreadable lines are named in `Run.problems`.

    Raises UnreadableRun where there is no readable run.json.
    """
    folder = Path(folder)
    try:
        header = strict_json.read(folder / RUN_FILE)
    except FileNotFoundError:
        what = f"is not a run folder: it has no {RUN_FILE}" if folder.exists() else "does not exist"
        raise UnreadableRun(f"{folder} {what}") from None
    except ValueError as error:
        raise UnreadableRun(f"{folder / RUN_FILE}: {error}") from error
    if not isinstance(header, dict):
        raise UnreadableRun(f"{folder / RUN_FILE}: it is not a run header")
    try:
        whole = run_from_dict({**header, "measurements": (), "controls": ()})
        planned = {case.id for case in whole.cases}
        measurements, problems = _read_lines(folder / MEASUREMENTS_FILE, planned)
        controls, unread = _read_controls(folder / CONTROLS_FILE)
        document = {**header, "measurements": measurements, "controls": controls}
        return run_from_dict(document, folder=str(folder), problems=(*problems, *unread))
    except UnreadableRun as error:
        raise UnreadableRun(f"{folder / RUN_FILE}: {error}") from error


def measured(run: Run) -> set[tuple[str, int]]:
    """(case id, replicate) of every measurement that is stored."""
    return {(m.case.id, m.replicate) for m in run.measurements}


def _read_lines(path: Path, planned: Set[str]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The entries of every whole line about a case of the run, and what is wrong with the others."""
    if not path.is_file():
        return [], (f"{path.name} is {'not a file' if path.exists() or path.is_symlink() else 'missing'}",)
    entries, problems, seen = [], [], set()
    for number, line in _lines(path):
        try:
            entry = strict_json.loads(line)
            measurement = measurement_from_dict(entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(_left_out(path, number, error))
            continue
        key = (measurement.case.id, measurement.replicate, measurement.attempt)
        if key in seen:
            repeated = f"{key[0]} replicate {key[1]}{f' attempt {key[2]}' if key[2] else ''}"
            problems.append(f"{path.name} line {number} repeats {repeated}, and is left out")
            continue
        if key[0] not in planned:
            problems.append(
                f"{path.name} line {number} is about {key[0]}, which is not a case of the run, and is left out"
            )
            continue
        seen.add(key)
        entries.append(entry)
    return entries, tuple(problems)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of every line that is not blank."""
    numbered = enumerate(path.read_bytes().split(b"\n"), start=1)
    return ((number, line) for number, line in numbered if line.strip())


def _left_out(path: Path, number: int, error: Exception) -> str:
    if isinstance(error, strict_json.NotJson):
        return f"{path.name} line {number} was cut off or is unreadable, and is left out"
    why = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
    return f"{path.name} line {number} is left out: {why}"


def _read_controls(path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The control's processes, and what could not be read of them."""
    if not path.is_file():
        return [], (f"{path.name} is not a file",) if path.exists() or path.is_symlink() else ()
    entries, problems, seen = [], [], set()
    for number, line in _lines(path):
        try:
            entry = strict_json.loads(line)
            control = control_from_dict(entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(_left_out(path, number, error))
            continue
        key = (control.side, control.measurement.case.id, control.measurement.replicate, control.measurement.attempt)
        if key in seen:
            problems.append(
                f"{path.name} line {number} repeats process {key[2]} of control {key[0]!r}, and is left out"
            )
            continue
        seen.add(key)
        entries.append(entry)
    return entries, tuple(problems)


def _header(run: Run) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "id": run.id,
        "suite": run.suite,
        "description": run.description,
        "created": run.created,
        "finished": run.finished,
        "selection": run.selection,
        "protocol": asdict(run.protocol),
        "environment": run.environment,
        "metrics": {name: asdict(metric) for name, metric in run.metrics.items()},
        "models": run.models,
        **({"weights": run.weights} if run.weights else {}),
        "cases": [asdict(case) for case in run.cases],
    }
