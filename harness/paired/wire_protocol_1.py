"""Protocol 1 of `imgbench ab`, for an arm whose imgbench is older than protocol 2. Its messages are pickled classes.

Requests are written with the module names and fields of those versions. Replies are read into plain data, which
`harness.paired.wire_protocol` turns into this version's records. No module of those versions is imported.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import Any, Final

from harness import schema_1
from harness.measuring.turns import Interleaving
from harness.paired.paired_process import ProcessJob
from harness.paired.wire_protocol import MEASURE, OF_A_RUN, OtherProtocol, reply_from_json
from harness.processes.endings import Reply
from harness.processes.measure import Job
from harness.types import Case, Protocol

NUMBER: Final = 1
COMMANDS: Final = {MEASURE: "block"}
FIELDS: Final = {"arm": "side", "control_workload": "sentinel"}


class _Record:
    """Represents a record of the arm's version. `names` are the fields that are written."""

    names: tuple[str, ...] = ()


def _class(module: str, name: str, names: str = "") -> type[_Record]:
    return type(name, (_Record,), {"__module__": module, "names": tuple(names.split())})


# This version's class -> its class in protocol 1.
WRITTEN: Final[Mapping[type, type[_Record]]] = {
    ProcessJob: _class("harness.blocks", "BlockJob", "jobs sentinel referee side cpus packages"),
    Job: _class(
        "harness.measure",
        "Job",
        "case replicate protocol device folder cache threads plugins only injections interleaving reference_until_s",
    ),
    Interleaving: _class("harness.turns", "Interleaving", "warmups turns samples discarded"),
    Case: _class(
        "harness.types",
        "Case",
        "model weights backend precision batch_size image_size scheduler num_steps guidance_scale prompt optimizations "
        "seed",
    ),
    Protocol: _class(
        "harness.types",
        "Protocol",
        "replicates warmup_min_iterations warmup_min_s warmup_max_s steady_tolerance min_samples min_sample_time_s "
        "max_sample_time_s target_interval contended_retries energy_window_s timeout_s quality stages cold_cache",
    ),
}
# A class in protocol 1 -> the class that represents it here.
READ: Final[Mapping[tuple[str, str], type]] = {
    **{(module, "Reply"): _class(module, "Reply") for module in ("harness.worker", "harness.endings")},
    ("harness.blocks", "BlockResult"): _class("harness.blocks", "BlockResult"),
    **{("harness.types", name): _class("harness.types", name) for name in ("Case", "Measurement", "Metric")},
    ("harness.causes", "Cause"): str,
}


class Adapter:
    """Protocol 1 with one host. It remembers the cases of each request, because a reply names the row that failed by
    its case."""

    def __init__(self) -> None:
        self._cases: dict[int, list[str]] = {}

    def request(self, number: int, command: str, argument: Any) -> bytes:
        """A request to the host. Raises OtherProtocol for an argument that protocol 1 cannot express."""
        if isinstance(argument, ProcessJob):
            self._cases[number] = [job.case.id for job in argument.jobs]
        stream = io.BytesIO()
        _Pickler(stream, protocol=4).dump((number, COMMANDS.get(command, command), _written(argument)))
        return stream.getvalue()

    def read_reply(self, message: bytes) -> tuple[int, Reply]:
        """(number, reply). Raises OtherProtocol."""
        try:
            number, found = _Unpickler(io.BytesIO(message)).load()
            return number, reply_from_json(_reply(found, self._cases.pop(number, [])))
        except Exception as error:  # a pickle of another version may raise anything
            text = f"a message that is not of protocol {NUMBER} ({type(error).__name__}: {error})"
            raise OtherProtocol(text) from None


class _Path:
    """A path as Python 3.11 pickles it; newer versions of Python name another module."""

    def __init__(self, path: Path) -> None:
        self.text = str(path)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return _class("pathlib", "PosixPath"), (self.text,)


class _Pickler(pickle._Pickler):
    """Writes a class by its module and name. Pickle itself would look them up, and this version lacks those modules."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        written = f"{obj.__module__}\n{name or obj.__qualname__}\n".encode()
        self.write(pickle.GLOBAL + written)  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (found := READ.get((module, name))) is not None:
            return found
        if module.partition(".")[0] == "harness":
            raise pickle.UnpicklingError(f"it has no {module}.{name}")
        return super().find_class(module, name)  # a value of a library, such as a NumPy number


def _written(value: Any) -> Any:
    """`value` with the classes of protocol 1. A field that these classes lack must have its default, unless a process
    does not need it (OF_A_RUN). Raises OtherProtocol."""
    if isinstance(value, Path):
        return _Path(value)
    if isinstance(value, tuple):
        return tuple(map(_written, value))
    if (cls := WRITTEN.get(type(value))) is None:
        return value
    found = cls()
    for field in fields(value):
        given, name = getattr(value, field.name), FIELDS.get(field.name, field.name)
        if name in cls.names:
            vars(found)[name] = _written(given)
        elif given != field.default and not (isinstance(value, Protocol) and name in OF_A_RUN):
            raise OtherProtocol(f"protocol {NUMBER}, which has no {cls.__name__}.{name}")
    return found


def _reply(found: Any, cases: Sequence[str]) -> dict[str, Any]:
    """The reply as a document of `wire_protocol.reply`. The oldest versions have no causes and no phases."""
    given = {"cause": None, "phase": None, **vars(found)}
    document = {
        "value": found.value,
        "status": found.status,
        "reason": schema_1.measurement({"reason": found.reason, "cause": given["cause"]})["reason"],
        "phase": given["phase"],
        "row": cases.index(given["phase"]) if given["phase"] in cases else None,
    }
    if isinstance(found.value, READ["harness.blocks", "BlockResult"]):
        document["measured"] = _result(found.value)
    return document


def _result(found: Any) -> dict[str, Any]:
    return {
        "measurements": [_measurement(each) for each in found.measurements],
        "metrics": {metric.name: vars(metric) for metric in found.metrics},
        "sentinel": found.sentinel,
    }


def _measurement(found: Any) -> Any:
    """The stored record of schema 1. A pickled case also holds what it has computed of itself, such as its id."""
    case = {axis: value for axis, value in vars(found.case).items() if axis in WRITTEN[Case].names}
    return json.loads(json.dumps({**vars(found), "case": case}, default=_json))


def _json(value: Any) -> float | str:
    return float(value) if isinstance(value, Real) else str(value)
