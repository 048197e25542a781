"""Runs, paired runs and baselines that an older version stored with sentences are read as what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import baselines
from baselines.stored import store
from harness import attempts, records, storage
from harness.causes import Cause
from harness.paired import paired_run
from harness.reasons import Reason
from harness.types import IDENTICAL, Measurement

REFERENCE = Path(baselines.__file__).parent / "reference" / "digits.json"
ENTRY: dict[str, Any] = {
    "case": {"model": "m"},
    "replicate": 0,
    "status": "ok",
    "reason": None,
    "samples": {"latency_s": [0.1]},
    "warmup": {},
    "missing": {},
    "facts": {},
    "state": {},
    "warnings": [],
    "images": [],
    "started": "",
    "duration_s": None,
}


def read(**changed: Any) -> Measurement:
    return records.measurement_from_dict({**ENTRY, **changed})


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("contended: the hypervisor took 12% of a core meanwhile", "contended", "contended"),
        ("unchecked: the output was not compared with fp32 eager: slow", "unchecked", "unchecked"),
        ("partly quantised: 43 % of the elements", "partly_quantised", "partly quantised"),
        (
            "the processes of this row gave different outputs",
            "stated",
            "the processes of this row gave different outputs",
        ),
    ],
)
def test_a_warning_has_the_kind_that_stands_before_its_colon(text: str, kind: str, name: str) -> None:
    (found,) = read(warnings=[text]).warnings
    assert (found.kind, found.name, str(found)) == (kind, name, text)


def test_what_a_sentence_decided_is_decided_by_its_kind() -> None:
    busy = read(warnings=["contended: other processes used 60% of a core meanwhile"])
    assert attempts.contended(busy) == busy.warnings[0]
    assert attempts.contended(read(warnings=["unsteady: warm-up capped"])) is None
    unknown = read(status="failed", reason="UnknownName: unknown model 'm'")
    assert (unknown.reason and unknown.reason.kind, str(unknown.reason)) == (
        "unknown_name",
        "UnknownName: unknown model 'm'",
    )
    assert read(missing={"psnr_db": str(IDENTICAL), "x": "no counter"}).missing["psnr_db"] == IDENTICAL


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("TensorRT cannot be imported: ImportError: libnvinfer.so.11", "package_broken"),
        ("the files are exported; this backend runs nothing", "files_exported"),
        ("RuntimeError: operation not permitted when stream is capturing", "capture_failed"),
        ("mode reduce-overhead: inductor recorded 0 of 1 graph(s) as CUDA graphs", "capture_failed"),
        ("openvino is not installed", "stated"),
    ],
)
def test_the_reasons_by_which_the_gpu_check_decides_have_their_kinds(text: str, kind: str) -> None:
    found = read(status="failed", reason=text).reason
    assert found == Reason(kind, {"stated": text})


def test_a_cause_is_the_kind_of_the_reason() -> None:
    full = read(status="failed", reason="the disk is full: here", cause="disk_full")
    assert (full.cause, str(full.reason)) == (Cause.DISK_FULL, "the disk is full: here")
    assert attempts.to_retry(full)
    own = read(status="failed", reason="ValueError: no")
    assert (own.cause, attempts.to_retry(own)) == (None, False)
    with pytest.raises(ValueError, match="'gremlins' is not a valid Cause"):
        read(status="failed", reason="r", cause="gremlins")


def test_why_a_sentinel_met_a_busy_machine_becomes_a_reason() -> None:
    found = read(state={"sentinel_contended": "the hypervisor took 12% of a core meanwhile"})
    assert found.state["control_workload_contended"].kind == "contended"
    assert records.measurement_from_dict(records.measurement_to_dict(found)) == found


def test_a_schema_of_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match="the measurement has schema 3; this version reads the schemas 1 and 2"):
        read(schema=3)


def test_a_stored_baseline_says_what_it_said() -> None:
    document = json.loads(REFERENCE.read_text(encoding="utf-8"))
    told = document["run"]["measurements"]
    assert any(entry["warnings"] for entry in told)
    for entry in told:
        found = records.measurement_from_dict(entry)
        assert [str(w) for w in found.warnings] == entry["warnings"]
        assert {name: str(why) for name, why in found.missing.items()} == entry["missing"]
        assert (attempts.contended(found) is not None) == any(w.startswith("contended") for w in entry["warnings"])
    assert len(store.load(REFERENCE).run.measurements) == len(told)


def test_a_run_of_schema_1_is_one_of_schema_2_once_it_is_written_to(tmp_path: Path) -> None:
    """Its older lines stay as they are: every measurement names its own schema."""
    run = store.load(REFERENCE).run
    first = run.measurements[0]
    header = {**storage.run_to_dict(run), "schema": 1}
    (tmp_path / storage.RUN_FILE).write_text(json.dumps({k: v for k, v in header.items() if k != "measurements"}))
    line = {**ENTRY, "case": first.case.axes(), "warnings": ["contended: steal"]}
    (tmp_path / storage.MEASUREMENTS_FILE).write_text(json.dumps(line) + "\n")
    old = storage.load(tmp_path)
    assert [w.kind for w in old.measurements[0].warnings] == ["contended"]
    storage.write_header(tmp_path, old)  # what resuming does first
    again = Measurement(case=first.case, replicate=0, attempt=1, status="ok", warnings=(Reason("unsteady"),))
    storage.append(tmp_path, again)
    both = storage.load(tmp_path)
    assert json.loads((tmp_path / storage.RUN_FILE).read_text())["schema"] == 2
    assert (both.problems, both.measurements, both.superseded) == ((), (again,), old.measurements)


@pytest.mark.parametrize("key", ["sentinel", "control_workload"])
def test_the_former_names_of_the_control_workload_are_read(key: str, tmp_path: Path) -> None:
    busy = Reason("contended_cpu", {"used": 0.5})
    now = records.measurement_to_dict(read(state={}))
    state = {key: {"gemm": [0.1]}, f"{key}_contended": busy.to_json(), f"{key}_missing": "no memory"}
    found = records.measurement_from_dict({**now, "state": state})
    wanted = {"control_workload": {"gemm": [0.1]}, "control_workload_contended": busy}
    assert found.state == wanted | {"control_workload_missing": "no memory"}
    written = records.measurement_to_dict(found)
    assert set(written["state"]) == set(found.state), "only the present names are written"
    block = {
        "pair": 0, "slot": 0, "arm": "base", "group": "g", "phase": "screen", "server": 0, "started": "",
        "elapsed_s": 1.0, "measurements": {"row": now}, key: {"gemm": [0.1]}, f"{key}_contended": busy.to_json(),
    }  # fmt: skip
    (tmp_path / paired_run.PROCESSES_FILE).write_text(json.dumps(block) + "\n")
    (process,) = paired_run.processes(tmp_path)
    assert (process.control_workload, process.control_workload_contended) == ({"gemm": [0.1]}, busy)
    paired_run.append_process(tmp_path, process)
    assert "sentinel" not in (tmp_path / paired_run.PROCESSES_FILE).read_text().splitlines()[1]


def test_a_block_of_schema_1_has_the_reason_of_its_sentinel(tmp_path: Path) -> None:
    block = {
        "pair": 0, "slot": 0, "arm": "base", "group": "g", "phase": "screen", "server": 0, "started": "",
        "elapsed_s": 1.0, "measurements": {"row": ENTRY}, "sentinel": {"gemm": [0.1]},
        "sentinel_contended": "the cgroup's CPU quota throttled it in 3 periods",
    }  # fmt: skip
    (tmp_path / paired_run.PROCESSES_FILE).write_text(json.dumps(block) + "\n")
    (found,) = paired_run.processes(tmp_path)
    assert found.control_workload_contended is not None
    assert found.control_workload_contended.kind == "contended"
    paired_run.append_process(tmp_path, found)
    assert list(paired_run.processes(tmp_path)) == [found, found]
