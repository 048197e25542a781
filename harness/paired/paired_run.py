"""The records of a paired run (rows with a case for each arm, processes, the header), and their files.

    runs/<id>/ab.json           schema, arms, what each arm loaded, rows, protocol, budget, seed, environment
    runs/<id>/preflight.jsonl   one full measurement of each row and arm: outputs, memory, counts
    runs/<id>/blocks.jsonl      one process per line, in order of time, with all raw samples

Format history: schema 2 stores reasons as kinds and data (`harness.records`), and schema 1 (0.2.0) as text. Both can be
read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from harness import reasons, schema_1, storage, strict_json
from harness.files import append_line
from harness.measuring.turns import Interleaving
from harness.reasons import Reason
from harness.records import renamed
from harness.storage import UnreadableRun, record
from harness.stored_types import Environment, check
from harness.types import Case, Measurement, Metric, Protocol

SCHEMA: Final = 2
READ: Final = (1, SCHEMA)
HEADER_FILE: Final = "ab.json"
PROCESSES_FILE: Final = "blocks.jsonl"
PREFLIGHT_FILE: Final = "preflight.jsonl"
CONTROL_GROUP: Final = "control"

ArmName = Literal["base", "head", "control"]


@dataclass(frozen=True, kw_only=True)
class PairedRow:
    """The same work in both arms. The rows of a `group` are measured in one process. `interleaving` is None if the row
    is not timed because an arm failed in the preflight."""

    id: str
    label: str
    base: Case
    head: Case
    group: str
    interleaving: Interleaving | None = None

    def case(self, arm: ArmName) -> Case:
        return self.head if arm == "head" else self.base


@dataclass(frozen=True, kw_only=True)
class PairedProcess:
    """One process of a pair. `measurements` are by row id, and `elapsed_s` is the time since the start of the run.

    The two processes of a pair take turns, and the process in `slot` 0 has the first turn. `server` is the number of
    the arm's fork server, which is renewed several times in a run. `control_workload` has the seconds of the control
    workload.
    """

    pair: int
    slot: int
    arm: ArmName
    group: str
    phase: str
    server: int
    started: str
    elapsed_s: float
    measurements: dict[str, Measurement]
    control_workload: dict[str, list[float]] = field(default_factory=dict)
    control_workload_contended: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class PairedRun:
    """The header of a paired run. `arms` and `loaded` are (base, head): what was requested, and what was loaded.
    `rule` is the version of the rule that decided it."""

    id: str
    suite: str
    created: str
    seed: int
    budget_s: float
    device: str
    threads: int
    arms: tuple[dict[str, Any], dict[str, Any]]
    loaded: tuple[dict[str, Any], dict[str, Any]]
    proof: tuple[str, ...]
    environment: Environment
    protocol: Protocol
    metrics: dict[str, Metric]
    rows: tuple[PairedRow, ...]
    control: str | None = None
    control_workloads: tuple[str, ...] = ()
    shared_server: bool = True
    finished: str | None = None
    ended: str | None = None
    notes: tuple[str, ...] = ()
    rule: int = 1


def row_of(base: Case, head: Case) -> PairedRow:
    """The row that compares `base` with `head`; its label names the axes in which they differ."""
    if base == head:
        return PairedRow(id=base.id, label=base.label, base=base, head=head, group=_group(base))
    changed = [str(value) for axis, value in head.axes().items() if value != base.axes()[axis]]
    label = f"{base.label} → {' · '.join(changed)}"
    return PairedRow(id=f"{base.id}-vs-{head.id}", label=label, base=base, head=head, group=_group(base))


def rows_of(cases: Sequence[Case], base: Mapping[str, Any], head: Mapping[str, Any]) -> tuple[PairedRow, ...]:
    """A row for each case, with the axes that each arm replaces. Cases that become equal give one row."""
    rows = (row_of(case.with_(**base), case.with_(**head)) for case in cases)
    return tuple({row.id: row for row in rows}.values())


def _group(case: Case) -> str:
    return case.model if case.model.startswith(f"{case.weights}_") else f"{case.model} ({case.weights})"


def write_header(folder: Path, run: PairedRun) -> None:
    """Replaces ab.json atomically."""
    text = json.dumps({"schema": SCHEMA, **asdict(run)}, indent=1, ensure_ascii=False, allow_nan=False)
    storage.write_atomically(folder / HEADER_FILE, text)


def append_process(folder: Path, process: PairedProcess) -> None:
    measured = {row: storage.measurement_to_dict(m) for row, m in process.measurements.items()}
    contended = process.control_workload_contended and process.control_workload_contended.to_json()
    document = {**_shallow(process), "measurements": measured, "control_workload_contended": contended}
    append_line(folder / PROCESSES_FILE, document)


def append_preflight(folder: Path, row: str, arm: ArmName, measurement: Measurement) -> None:
    append_line(
        folder / PREFLIGHT_FILE,
        {"row": row, "arm": arm, "measurement": storage.measurement_to_dict(measurement)},
    )


def is_paired(folder: Path) -> bool:
    return (folder / HEADER_FILE).exists()


def load(folder: Path) -> PairedRun:
    """The header of a paired run's folder. Raises UnreadableRun."""
    path = folder / HEADER_FILE
    try:
        document = strict_json.read(path)
        check(document, Mapping[str, Any], "header")
        if (schema := document.pop("schema", None)) not in READ:
            raise ValueError(f"it has schema {schema!r}; this version of imgbench reads the schemas 1 and {SCHEMA}")
        document["protocol"] = record(Protocol, document["protocol"])
        document["metrics"] = storage.metrics_from_dict(document["metrics"])
        document["rows"] = tuple(_row(entry, f"rows[{i}]") for i, entry in enumerate(document["rows"]))
        document = renamed(document)
        for name in ("arms", "loaded", "proof", "control_workloads", "notes"):
            document[name] = tuple(document.get(name, ()))
        run = record(PairedRun, document, "paired run")
        check(run.environment, Environment, "environment")
        return run
    except OSError as error:
        raise UnreadableRun(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableRun(f"{path}: {_problem(error)}") from None


def processes(folder: Path) -> Iterator[PairedProcess]:
    """Every stored process in order of time. A last line that was cut off is left out. Raises UnreadableRun if another
    line cannot be read."""
    for where, entry in _lines(folder / PROCESSES_FILE):
        try:
            check(entry, Mapping[str, Any], "process")
            measured = {row: storage.measurement_from_dict(m) for row, m in entry["measurements"].items()}
            stored = renamed(entry)
            contended = stored.get("control_workload_contended")
            if contended is not None:
                contended = reasons.from_json(schema_1.contention(contended))
            document = {**stored, "measurements": measured, "control_workload_contended": contended}
            process = record(PairedProcess, document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableRun(f"{where}: {_problem(error)}; another version may have written it") from None
        yield process


def preflight(folder: Path) -> Iterator[tuple[str, ArmName, Measurement]]:
    """(row id, arm, measurement) of the preflight, in order of time."""
    for where, entry in _lines(folder / PREFLIGHT_FILE):
        try:
            check(entry, Mapping[str, Any], "preflight")
            check(entry["row"], str, "row")
            check(entry["arm"], ArmName, "arm")
            found = entry["row"], entry["arm"], storage.measurement_from_dict(entry["measurement"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableRun(f"{where}: {_problem(error)}") from None
        yield found


def _shallow(process: PairedProcess) -> dict[str, Any]:
    return {name: value for name, value in vars(process).items() if name != "measurements"}


def _row(entry: Mapping[str, Any], where: str) -> PairedRow:
    check(entry, Mapping[str, Any], where)
    interleaving = entry["interleaving"] and record(Interleaving, entry["interleaving"], f"{where}.interleaving")
    cases = {arm: record(Case, entry[arm], f"{where}.{arm}") for arm in ("base", "head")}
    return record(PairedRow, {**entry, **cases, "interleaving": interleaving}, where)


def _problem(error: Exception) -> str:
    return f"the field {error} is missing" if isinstance(error, KeyError) else str(error)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(file name and line number, document) of every line."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_file():
        raise UnreadableRun(f"{path}: is not a file")
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            document = strict_json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise UnreadableRun(f"{path} line {number}: {error}") from None
        yield f"{path} line {number}", document
