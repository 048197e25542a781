"""A comparison as JSON, the format of `comparison.json`, `--json` and `--json-file`.

    comparison_json.text(comparison)           # of a Comparison
    stored = comparison_json.read(path)        # the parts of a stored one that a replay needs
    comparison_json.changes(stored, again)     # [] if the decision is the same

`reason`, `notes`, `contended`, `refused` and `differences` have sentences; `cause` and `causes` have their kinds and
data, by which a replay compares. A number that is not finite is null.

Format history: 1 has sentences only, and no key `schema`. 2 adds kinds and data. Versions before 0.1.0 wrote the key
`contaminated` in place of `contended`, which is read in both schemas.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypedDict

from baselines.verdict import MEANINGS, Comparison, Verdict, exit_code
from baselines.wording import ReasonKind
from harness import reasons, strict_json
from harness.reasons import Reason
from harness.storage import UnreadableRun
from harness.stored_types import check
from harness.version import VERSION
from reports.gate import sentence

SCHEMA: Final = 2
RELATIVE: Final = 1e-9  # the linear algebra of another machine ends in other last digits
READ: Final = (1, 2)
# The keys that hold several reasons, and their fields.
REASONED: Final = {"differences": "differences", "refused": "refused", "notes": "notes", "contended": "contended"}
# What an earlier version wrote: key -> key, kind -> kind, and how it named the row of a control workload.
FORMER_KEYS: Final = {"contaminated": "contended"}
FORMER_KINDS: Final = {"sentinel_moved": ReasonKind.CONTROL_WORKLOAD_MOVED}
FORMER_ROW: Final = "sentinel "
ROW: Final = "control workload "
# The keys that a replay does not compare: those that the command or the version adds, and sentences.
NOT_DECIDED: Final = frozenset({"schema", "imgbench", "exit_code", "meaning", "sentence", "verdicts", *REASONED})
MEASURED_AGAIN: Final = frozenset(
    {ReasonKind.MEASURED_AGAIN, ReasonKind.ROUNDS_MEASURED_AGAIN, ReasonKind.NOT_MEASURED_AGAIN}
)


class StoredVerdict(TypedDict):
    """The required keys of a stored verdict."""

    case_id: str
    metric: str
    outcome: str


class Document(TypedDict, total=False):
    """The keys of a stored comparison that are read."""

    schema: int
    considered: list[str]
    notes: list[str]
    causes: dict[str, list[dict[str, Any]]]
    max_age_days: float | None
    allow_new: bool
    verdicts: list[StoredVerdict]


@dataclass(frozen=True, kw_only=True)
class StoredComparison:
    """A stored comparison: the document, and the data for a replay. `considered` is None if it names no sessions;
    `measured_again` are its notes on suspects, which the run does not store."""

    document: Mapping[str, Any]
    schema: int
    considered: tuple[str, ...] | None
    measured_again: tuple[Reason, ...]
    max_age_days: float | None
    allow_new: bool


def text(comparison: Comparison, *, strict: bool = False) -> str:
    """The JSON text, with a newline at the end."""
    return json.dumps(document(comparison, strict=strict), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(comparison: Comparison, *, strict: bool = False) -> dict[str, Any]:
    """The comparison as JSON values, with its exit code."""
    code = exit_code(comparison, strict=strict)
    values = {field.name: getattr(comparison, field.name) for field in fields(comparison)}
    several = {key: values.pop(name) for key, name in REASONED.items()}
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "imgbench": VERSION,
        "exit_code": code,
        "meaning": MEANINGS[code],
        "sentence": sentence(comparison, strict),
        **values,
        **{key: [str(reason) for reason in given] for key, given in several.items()},
        "causes": {key: [reason.to_json() for reason in given] for key, given in several.items()},
        "verdicts": [_verdict(verdict) for verdict in comparison.verdicts],
    }
    finite: dict[str, Any] = _finite(found)
    return finite


def _verdict(verdict: Verdict) -> dict[str, Any]:
    values = {field.name: getattr(verdict, field.name) for field in fields(verdict)}
    return {**values, "reason": str(verdict.reason), "cause": verdict.reason.to_json()}


def read(path: Path) -> StoredComparison:
    """A stored comparison of this version or an earlier one. Raises UnreadableRun."""
    try:
        found = strict_json.read(path)
        check(found, Document, "comparison")
        found = _renamed(found)
        schema = found.get("schema", 1)
        if schema not in READ:
            raise ValueError(f"schema {schema!r}; this version reads {' and '.join(map(str, READ))}")
        return StoredComparison(
            document=found,
            schema=schema,
            considered=tuple(found["considered"]) if "considered" in found else None,
            measured_again=tuple(note for note in _notes(found, schema) if note.kind in MEASURED_AGAIN),
            max_age_days=found.get("max_age_days"),
            allow_new=bool(found.get("allow_new", False)),
        )
    except OSError as error:
        raise UnreadableRun(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UnreadableRun(f"{path}: {error}") from None


def _renamed(found: Any) -> Any:
    """A stored document in the names of this version."""
    if isinstance(found, list):
        return [_renamed(each) for each in found]
    if not isinstance(found, Mapping):
        return found
    given = {FORMER_KEYS.get(name, name): _renamed(value) for name, value in found.items()}
    if given.get("kind") in FORMER_KINDS:
        given["kind"] = str(FORMER_KINDS[given["kind"]])
    if isinstance(row := given.get("row"), str) and row.startswith(FORMER_ROW):
        given["row"] = ROW + row.removeprefix(FORMER_ROW)
    return given


def _notes(found: Mapping[str, Any], schema: int) -> Iterator[Reason]:
    """The notes of a stored comparison. Schema 1 has their text only, in which one of them is recognised."""
    if schema == 1:
        yield from (
            reasons.stated(note, ReasonKind.MEASURED_AGAIN if "measured again" in note else reasons.STATED)
            for note in found.get("notes", ())
        )
    else:
        yield from map(reasons.from_json, found.get("causes", {}).get("notes", ()))


def changes(stored: StoredComparison, again: Comparison) -> list[str]:
    """Every field whose decision differs now, as text; empty if there is none. Sentences do not count, and neither do
    the last digits of a number (RELATIVE)."""
    now = json.loads(text(again))
    there, here = (_decided(found, stored.schema) for found in (stored.document, now))
    told = [
        f"{name}: {there.get(name)!r} stored, {here[name]!r} now"
        for name in here
        if not _same(there.get(name), here[name])
    ]
    before, after = (_by_metric(found, stored.schema) for found in (stored.document, now))
    labels = {(v["case_id"], v["metric"]): v["label"] for v in now["verdicts"]}
    for key, verdict in after.items():
        if key not in before:
            told.append(f"{labels[key]} {key[1]}: absent stored, {verdict['outcome']} now")
        told += [
            f"{labels[key]} {key[1]}: {name} {before[key].get(name)!r} stored, {value!r} now"
            for name, value in verdict.items()
            if key in before and not _same(before[key].get(name), value)
        ]
    return told + [
        f"{case_id} {metric}: {before[case_id, metric]['outcome']} stored, absent now"
        for case_id, metric in before.keys() - after.keys()
    ]


def _same(stored: Any, now: Any) -> bool:
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        return stored.keys() == now.keys() and all(_same(stored[name], now[name]) for name in stored)
    if isinstance(stored, list) and isinstance(now, list):
        return len(stored) == len(now) and all(map(_same, stored, now))
    if {type(stored), type(now)} == {float} or {type(stored), type(now)} == {int, float}:
        return math.isclose(stored, now, rel_tol=RELATIVE)
    return bool(stored == now)


def _decided(found: Mapping[str, Any], schema: int) -> dict[str, Any]:
    """The decided fields of a document. For reasons without a kind it has their number."""
    values = {name: value for name, value in found.items() if name not in NOT_DECIDED and name != "causes"}
    if schema == 1:
        return values | {name: len(found.get(name, ())) for name in REASONED if name != "notes"}
    return values | found["causes"]


def _by_metric(found: Mapping[str, Any], schema: int) -> dict[tuple[str, str], dict[str, Any]]:
    left_out = {"reason", "cause"} if schema == 1 else {"reason"}
    return {
        (verdict["case_id"], verdict["metric"]): {k: v for k, v in verdict.items() if k not in left_out}
        for verdict in found.get("verdicts", ())
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
