"""A file of a newer schema is refused with both numbers wherever it is read, and the documentation has the schemas."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import baselines
from baselines.detector import recorded
from baselines.stored import store
from benches.gpu_check import record
from harness import records, storage
from harness.paired import paired_run
from reports.formats import comparison_json

REFERENCE = Path(baselines.__file__).parent / "reference" / "digits.json"
PAGE = Path(baselines.__file__).parents[1] / "docs" / "comparing.md"
NEWER = 99


def of_newer_schema(path: Path, **more: Any) -> Path:
    path.write_text(json.dumps({"schema": NEWER, **more}) + "\n")
    return path


def a_run(folder: Path) -> Any:
    of_newer_schema(folder / storage.RUN_FILE)
    return storage.load(folder)


def a_measurement(folder: Path) -> Any:
    entry = records.measurement_to_dict(store.load(REFERENCE).run.measurements[0])
    return records.measurement_from_dict({**entry, "schema": NEWER})


def a_session(folder: Path) -> Any:
    return store.load(of_newer_schema(folder / "session.json"))


def a_run_in_a_session(folder: Path) -> Any:
    document = json.loads(REFERENCE.read_text())
    document["run"]["schema"] = NEWER
    path = folder / "session.json"
    path.write_text(json.dumps({**document, "hash": store.seal(document)}))
    return store.load(path)


def a_paired_run(folder: Path) -> Any:
    of_newer_schema(folder / paired_run.HEADER_FILE)
    return paired_run.load(folder)


def a_comparison(folder: Path) -> Any:
    return comparison_json.read(of_newer_schema(folder / "comparison.json"))


def a_recording(folder: Path) -> Any:
    path = folder / "pairs.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"schema": NEWER}).encode()))
    return recorded.load(path)


def a_gpu_check(folder: Path) -> Any:
    return record.read(of_newer_schema(folder / "check.jsonl", kind="header"))


FILES: dict[Callable[[Path], Any], int] = {
    a_run: storage.SCHEMA,
    a_measurement: records.SCHEMA,
    a_session: store.SCHEMA,
    a_run_in_a_session: storage.SCHEMA,
    a_paired_run: paired_run.SCHEMA,
    a_comparison: comparison_json.SCHEMA,
    a_recording: recorded.SCHEMA,
    a_gpu_check: record.SCHEMA,
}


@pytest.mark.parametrize("read", FILES, ids=lambda read: str(read.__name__))
def test_a_newer_schema_is_refused_with_both_numbers(read: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises((ValueError, RuntimeError)) as refused:
        read(tmp_path)
    assert re.search(rf"schema {NEWER}; this version (of imgbench )?reads .*\b{FILES[read]}$", str(refused.value))


def test_the_documentation_has_the_schema_of_each_file() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("### Schemas of stored files")[2].partition("###")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    told = {what.partition(",")[0].partition(":")[0]: (int(schema), reads) for _, what, schema, reads in rows[1:]}
    assert told == {
        "a run": (storage.SCHEMA, ", ".join(map(str, storage.READ))),
        "a paired run of `ab`": (paired_run.SCHEMA, ", ".join(map(str, paired_run.READ))),
        "a comparison": (comparison_json.SCHEMA, ", ".join(map(str, comparison_json.READ))),
        "a session": (store.SCHEMA, str(store.SCHEMA)),
        "a recording of pairs": (recorded.SCHEMA, str(recorded.SCHEMA)),
        "what the check measured": (record.SCHEMA, str(record.SCHEMA)),
    }
