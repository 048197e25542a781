"""Reasons decide by their kinds: whatever the sentences say, the same attempts count and the same rows are retried."""

from __future__ import annotations

import ast
import errno
import inspect
import json
import math
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import baselines
import harness
from baselines.stored import store
from benches.gpu_check import exports
from benches.models.folders import FolderError
from harness import attempts, causes, frames, reasons, storage
from harness.causes import Cause
from harness.devices import NoSuchDevice, SensorLost
from harness.measuring import contention, process_agreement
from harness.measuring.out_of_memory import is_out_of_memory
from harness.paired import pairs
from harness.processes import worker
from harness.reasons import Reason, stated
from harness.sweeping.sweep import remaining
from harness.types import Case, Measurement, RequestError, Run, Unavailable

ROOT = Path(harness.__file__).parents[1]
REFERENCE = Path(baselines.__file__).parent / "reference" / "digits.json"
OF_HARNESS = sorted(k for k, sentence in reasons.SENTENCES.items() if sentence.__module__ == "harness.wording")
# Functions of the code that make a reason of a kind and keywords, each with the key that it adds.
MAKERS = {"_error": "at", "_refusal": "unmeasured"}
BUSY = {"elapsed_s": 1.0, "own_cpu_s": 1.0, "other_cpu_s": 0.6}
STATES: tuple[dict[str, Any], ...] = (
    BUSY,
    {"elapsed_s": 1.0, "steal_s": 0.3},
    {"elapsed_s": 1.0, "throttled_periods": 2},
    {"elapsed_s": 1.0, "gpu": {"foreign_processes": 1}},
    {"elapsed_s": 1.0, "gpu": {"thermal_throttled_s": 0.5}},
    {"elapsed_s": 1.0, "gpu": {"throttle_reasons": 0x40}},
    {"latency_pass": {}, "energy_pass": BUSY},
)


def busy_run() -> Run:
    """The shipped run, of which some processes met a busy machine, some were measured again, and some failed."""
    run = store.load(REFERENCE).run
    found: list[Measurement] = []
    for number, m in enumerate(run.measurements):
        told = contention.contended(STATES[number % len(STATES)])
        assert told is not None
        if number % 3 == 0:
            found.append(replace(m, warnings=(*m.warnings, told)))
            found += [replace(m, attempt=1)] if number % 2 else []
        elif number % 3 == 1:
            full = (
                causes.reason(Cause.DISK_FULL, "here") if number % 2 else Reason("error", {"error": "ValueError: no"})
            )
            found.append(replace(m, status="failed", reason=full))
        else:
            found.append(replace(m, warnings=(Reason("unsteady", {"limit_s": 2.0, "drift": None}),)))
    counted, superseded = attempts.split(found)
    return replace(run, measurements=counted, superseded=superseded)


def decided(run: Run) -> dict[str, Any]:
    """All that the measuring side decides by reasons."""
    counted, superseded = attempts.split((*run.measurements, *run.superseded))
    frame = frames.cases_frame(run)
    return {
        "attempts": [(m.case.id, m.replicate, m.attempt) for m in counted],
        "again": [(m.case.id, m.replicate, number) for m, number in attempts.again(counted, superseded, 3)],
        "contended": [attempts.contended(m) is not None for m in counted],
        "retried": [(attempts.to_retry(m), attempts.to_retry(m, retry_failed=True)) for m in counted],
        "remaining": [(b.case.id, b.replicate) for b in remaining(run)],
        "status": list(frame["status"]),
        "warnings": [set(names) for names in frame["warnings"]],
        "missing": list(frame["missing_kinds"]),
    }


def gibberish(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in reasons.SENTENCES:
        monkeypatch.setitem(reasons.SENTENCES, kind, lambda **_data: "xyzzy: contended; oom: UnknownName: captured")


def test_other_sentences_decide_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    run = busy_run()
    before = decided(run)
    assert {True, False} == set(before["contended"])
    assert before["again"]
    assert before["remaining"]
    assert {"failed", "ok"} <= set(before["status"])
    gibberish(monkeypatch)
    assert str(Reason("contended_cpu", {"used": 1.0})).startswith("xyzzy")
    assert decided(run) == before
    assert decided(storage.run_from_dict(json.loads(json.dumps(storage.run_to_dict(run))))) == before


def test_a_pair_drops_what_its_process_took_for_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The referee counts for both arms of a pair, so that a process's own warning goes."""
    told = contention.contended(BUSY)
    assert told is not None
    own = Measurement(
        case=Case(model="m"),
        replicate=0,
        status="ok",
        warnings=(told, Reason("unsteady", {"limit_s": 1.0, "drift": None})),
    )
    for _ in range(2):
        assert [w.kind for w in pairs._of_pair(own, {"elapsed_s": 1.0}).warnings] == ["unsteady"]
        assert [w.kind for w in pairs._of_pair(own, BUSY).warnings] == ["unsteady", "contended_cpu"]
        gibberish(monkeypatch)


def test_every_source_of_contention_is_contention() -> None:
    kinds = [found.kind for state in STATES if (found := contention.contended(state))]
    assert kinds == [
        "contended_cpu", "contended_steal", "contended_quota", "contended_gpu_processes", "contended_gpu_heat",
        "contended_gpu_throttled", "contended_cpu",
    ]  # fmt: skip
    assert all(Reason(kind).name == "contended" and contention.is_contention(Reason(kind)) for kind in kinds)
    assert not contention.is_contention(stated("contended: says a reason that is no warning"))
    assert not contention.is_contention(reasons.of("contended: my queue was long"))


def test_a_measurement_reads_back_equal_with_all_its_reasons() -> None:
    nested = Reason("beside_the_other_arm", {"reason": causes.reason(Cause.KERNEL_OUT_OF_MEMORY)})
    given = Measurement(
        case=Case(model="m"),
        replicate=0,
        status="oom",
        reason=nested,
        missing={"energy_per_image_j": Reason("energy_counter_still", {"source": "NVML", "seconds": 10.0})},
        warnings=(
            reasons.of("a plugin: with; any text"),
            Reason("same_output", {"values": ["a", "b"], "axes": ["seed"], "more": 0}),
            Reason("not_repeatable", {"error": math.inf}),
        ),
        state={"control_workload_contended": contention.contended(BUSY)},
    )
    text = json.dumps(storage.measurement_to_dict(given), allow_nan=False)
    back = storage.measurement_from_dict(json.loads(text))
    assert back == given
    assert [str(w) for w in back.warnings] == [str(w) for w in given.warnings]
    assert (back.warnings[0].name, back.warnings[0].detail) == ("a plugin", "with; any text")


@pytest.mark.parametrize("reason", ["text", {"kind": "k"}, {"kind": 1, "data": {}}, {"kind": "k", "data": []}])
def test_what_is_no_reason_is_refused_by_its_place(reason: Any) -> None:
    failed = storage.measurement_to_dict(
        Measurement(case=Case(model="m"), replicate=0, status="failed", reason=stated("x"))
    )
    with pytest.raises(ValueError, match=r"measurement\.reason: .* must be a reason: a mapping of kind and data"):
        storage.measurement_from_dict({**failed, "reason": reason})


def test_data_of_another_version_has_a_sentence_too() -> None:
    assert str(Reason("contended_steal", {"percent": 3})) == "contended steal (percent 3)"
    assert str(Reason("not_yet_invented", {"count": 3})) == "not yet invented (count 3)"
    assert str(Reason("imprecise", {"interval": "wide", "target": 0.1})) == "imprecise (interval wide, target 0.1)"


@pytest.mark.parametrize("error", [Unavailable, RequestError, FolderError, SensorLost, NoSuchDevice])
def test_an_error_keeps_its_reason_in_another_process(error: type[reasons.ReasonedError]) -> None:
    reason = Reason("file_missing", {"at": "weights/config.json"})
    back = pickle.loads(pickle.dumps(error(reason)))
    assert (type(back), back.reason, str(back)) == (error, reason, str(reason))
    assert error("a plugin's text").reason == stated("a plugin's text")


def test_a_row_whose_weights_cannot_do_it_has_the_kind_of_the_error() -> None:
    job: Any = SimpleNamespace(case=Case(model="m"), folder=ROOT, cache=ROOT)
    errors = (FolderError(Reason("file_empty", {"at": "a"})), RequestError(Reason("not_published", {"pipeline": "P"})))
    for error in errors:
        assert worker._failure(error, job) == error.reason


def test_the_text_of_an_error_with_a_reason_decides_nothing() -> None:
    """A path or a plugin's text may hold the words by which other libraries name a cause."""
    text = f"out of memory: {os.strerror(errno.ENOSPC)}"
    assert is_out_of_memory(RuntimeError(text))
    assert causes.of_error(RuntimeError(text)) is Cause.DISK_FULL
    assert not is_out_of_memory(Unavailable(text))
    assert causes.of_error(Unavailable(text)) is None
    wrapped = Unavailable(text)
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert causes.of_error(wrapped) is Cause.DISK_FULL, "the error that led to it still counts"


def test_a_kind_has_one_sentence() -> None:
    with pytest.raises(ValueError, match="the reason 'unsteady' is declared twice"):
        reasons.sentences({"unsteady": lambda: "again"})


def test_text_is_a_reason_where_a_plugin_gives_it() -> None:
    given: Any = {"reason": "it broke", "warnings": ("mine: words",), "missing": {"x": "no counter"}}
    found = Measurement(case=Case(model="m"), replicate=0, status="failed", **given)
    assert (found.reason, found.cause) == (stated("it broke"), None)
    assert found.warnings == (stated("mine: words"),)
    assert found.missing == {"x": stated("no counter")}


def test_rows_that_differ_say_so_by_kind() -> None:
    first = Measurement(case=Case(model="m"), replicate=0, status="ok", facts={"weights_hash": "a" * 64})
    found = process_agreement.checked(first, replace(first, replicate=1, facts={"weights_hash": "b" * 64}), "cpu")
    assert found.reason is not None
    assert (found.status, found.reason.kind, found.reason.data["fact"]) == (
        "invalid",
        "processes_differ",
        "weights_hash",
    )


def _sources() -> Iterator[ast.Module]:
    for room in ("harness", "benches"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name != "wording.py":
                yield ast.parse(path.read_text(encoding="utf-8"))


def _given() -> Iterator[tuple[str, ast.expr | None, ast.AST]]:
    """(kind, data, the function around it) of every `Reason("kind", data)` in the code, and of every call of a function
    that makes a reason of its arguments (MAKERS)."""
    for module in _sources():
        for function in ast.walk(module):
            if not isinstance(function, ast.FunctionDef | ast.Module):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                    kind = node.args[0]
                    if isinstance(kind, ast.Constant):
                        yield kind.value, node.args[1] if len(node.args) > 1 else None, function
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
                    given = [MAKERS[node.func.id], *(keyword.arg for keyword in node.keywords)]
                    kind = node.args[0]
                    assert isinstance(kind, ast.Constant)
                    data = {ast.Constant(key): ast.Constant(None) for key in given}
                    yield kind.value, ast.Dict(keys=list(data), values=list(data.values())), function


def _keys(data: ast.expr | None, function: ast.AST) -> tuple[set[str], bool]:
    """The keys of a reason's data as far as the code states them, and whether those are all."""
    if data is None:
        return set(), True
    if isinstance(data, ast.Name):
        values = [
            n.value
            for n in ast.walk(function)
            if isinstance(n, ast.Assign) and ast.dump(n.targets[0]).startswith(f"Name(id='{data.id}'")
        ]
        return _keys(values[0], function) if len(values) == 1 else (set(), False)
    if not isinstance(data, ast.Dict):
        return set(), False
    found, whole = {k.value for k in data.keys if isinstance(k, ast.Constant)}, True
    for key, value in zip(data.keys, data.values, strict=True):
        if key is None:
            more, all_of_it = _keys(value, function)
            found, whole = found | more, whole and all_of_it
    return found, whole


def test_every_reason_in_the_code_has_a_sentence_that_takes_its_data() -> None:
    checked = 0
    assert str(exports.EXPORTED) == "the files are exported; this backend runs nothing"
    for kind, data, function in _given():
        assert kind in reasons.SENTENCES, f"{kind} has no sentence"
        signature = inspect.signature(reasons.SENTENCES[kind])
        keys, whole = _keys(data, function)
        try:
            (signature.bind if whole else signature.bind_partial)(**dict.fromkeys(keys))
        except TypeError as error:
            raise AssertionError(f"{kind} with {sorted(keys)}: {error}") from None
        checked += whole
    assert checked > 100


def test_every_sentence_is_given_by_some_code() -> None:
    texts = {n.value for module in _sources() for n in ast.walk(module) if isinstance(n, ast.Constant)}
    assert [kind for kind in OF_HARNESS if kind not in texts | set(Cause)] == []
    assert len(OF_HARNESS) > 100


def test_a_plugins_text_is_no_kind_that_code_decides_by() -> None:
    """Its words may be those of imgbench's own warnings."""
    texts = ("contended: my queue was long", "partly quantised: 3 of 4", "my queue: long", "no short name")
    found = Measurement(case=Case(model="m"), replicate=0, status="ok", warnings=texts)  # type: ignore[arg-type]
    assert {w.kind for w in found.warnings} == {reasons.STATED}
    assert attempts.contended(found) is None
    assert [w.name for w in found.warnings] == [texts[0], texts[1], "my queue", texts[3]]
    assert [str(w) for w in found.warnings] == [*texts]
