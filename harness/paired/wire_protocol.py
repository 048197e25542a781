"""Protocol 2 of `imgbench ab`: the messages between the driver and the host of an arm, as JSON of builtin types.

    driver to host   {"number": 7, "command": "measure", "argument": {"jobs": [...], ...}}
    host to driver   {"protocol": 2, "number": 7, "status": "ok", "measured": {"measurements": [...], ...}}

The two may be different versions of imgbench: `--base ref=COMMIT` measures a commit of imgbench by its own code. Every
version reads the first request, a pickled tuple of builtin types (number, "start", (plugins, logs, preload, paths,
last_paths)). The form of the reply says which protocol the host speaks (`harness.paired.hosts`). A measurement is sent
as its stored record.

A change of the fields of a record needs a new protocol number. So does a change of the messages of the turns
(`harness.measuring.turns`), or of the key of the shared references (`harness.measuring.reference`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from harness import reasons, storage
from harness.measuring.turns import Interleaving
from harness.paired.paired_process import ProcessJob, ProcessResult
from harness.processes.endings import Reply
from harness.processes.measure import Job
from harness.records import metrics_from_dict, record
from harness.types import Case, Protocol

NUMBER: Final = 2
MEASURE: Final = "measure"  # the command whose argument is a ProcessJob and whose reply holds a ProcessResult
CONTROL_WORKLOAD: Final = "sentinel"  # the key of this protocol
PATHS: Final = ("folder", "cache")
TUPLES: Final = ("plugins", "only", "injections")
OF_A_RUN: Final = ("rounds", "ratio_interval", "budget_s", "fresh_builds")  # not sent: a process does not need them


class OtherProtocol(ValueError):
    """A message that is not of this protocol; `str()` is one line."""


def request(number: int, command: str, argument: Any) -> bytes:
    """A request to the host. `argument` is a ProcessJob, or a value of JSON types."""
    given = _job_to_json(argument) if isinstance(argument, ProcessJob) else argument
    return _bytes({"number": number, "command": command, "argument": given})


def read_request(message: bytes) -> tuple[int, str, Any]:
    """(number, command, argument). Raises ValueError, KeyError or TypeError on anything else."""
    document = json.loads(message)
    command, argument = document["command"], document["argument"]
    return document["number"], command, _job_from_json(argument) if command == MEASURE else argument


def reply(number: int, given: Reply) -> bytes:
    """The host's reply to request `number`. Raises ValueError, KeyError or TypeError on a value that JSON cannot hold
    and on a measurement that cannot be read from it, such as one with facts of other types."""
    document = {
        "protocol": NUMBER,
        "number": number,
        "status": given.status,
        "reason": given.reason and given.reason.to_json(),
        "phase": given.phase,
        "row": given.row,
    }
    if isinstance(given.value, ProcessResult):
        measured = _result_to_json(given.value)
        _result_from_json(measured)
        return _bytes({**document, "measured": measured})
    return _bytes({**document, "value": given.value})


def read_reply(message: bytes) -> tuple[int, Reply]:
    """(number, reply). Raises OtherProtocol."""
    try:
        document = json.loads(message)
        if document["protocol"] != NUMBER:
            raise OtherProtocol(f"protocol {document['protocol']}")
        return document["number"], reply_from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OtherProtocol):
            raise
        raise OtherProtocol(f"a message that is not of protocol {NUMBER} ({type(error).__name__}: {error})") from None


def reply_from_json(document: Mapping[str, Any]) -> Reply:
    """The reply of a document with the fields of `reply`. Raises ValueError, KeyError or TypeError on anything else."""
    measured = document.get("measured")
    return Reply(
        value=document.get("value") if measured is None else _result_from_json(measured),
        status=document["status"],
        reason=None if document["reason"] is None else reasons.from_json(document["reason"]),
        phase=document["phase"],
        row=document["row"],
    )


def _job_to_json(job: ProcessJob) -> dict[str, Any]:
    document = asdict(job)
    document[CONTROL_WORKLOAD] = document.pop("control_workload")
    for each in document["jobs"]:
        each.update({name: str(each[name]) for name in PATHS})
        each["protocol"] = {name: value for name, value in each["protocol"].items() if name not in OF_A_RUN}
    return document


def _job_from_json(document: Mapping[str, Any]) -> ProcessJob:
    jobs = tuple(_row_from_json(entry) for entry in document["jobs"])
    given = {name: value for name, value in document.items() if name != CONTROL_WORKLOAD}
    found = record(ProcessJob, {**given, "control_workload": document[CONTROL_WORKLOAD], "jobs": jobs})
    return replace(found, cpus=tuple(found.cpus), packages=tuple(found.packages))


def _row_from_json(entry: Mapping[str, Any]) -> Job:
    counts = entry["interleaving"]
    given = {
        **entry,
        **{name: Path(entry[name]) for name in PATHS},
        **{name: None if entry[name] is None else tuple(entry[name]) for name in TUPLES},
        "case": record(Case, entry["case"]),
        "protocol": record(Protocol, entry["protocol"]),
        "interleaving": None if counts is None else record(Interleaving, counts),
    }
    return record(Job, given)


def _result_to_json(result: ProcessResult) -> dict[str, Any]:
    return {
        "measurements": [storage.measurement_to_dict(m) for m in result.measurements],
        "metrics": {metric.name: asdict(metric) for metric in result.metrics},
        CONTROL_WORKLOAD: result.control_workload,
    }


def _result_from_json(document: Mapping[str, Any]) -> ProcessResult:
    return ProcessResult(
        measurements=tuple(storage.measurement_from_dict(entry) for entry in document["measurements"]),
        metrics=tuple(metrics_from_dict(document["metrics"]).values()),
        control_workload=document[CONTROL_WORKLOAD],
    )


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()
