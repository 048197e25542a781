"""What was stored by an earlier version is decided as that version decided it, field by field."""

from __future__ import annotations

import json
import lzma
import math
import reprlib
from collections.abc import Iterator
from typing import Any

from recorded_decisions import CORPUS, decisions, unpacked

ABSENT = "absent"
# A replay compared sentences, too, and those of these two name the folder of the comparison. Now it compares values.
OTHERWISE_NOW = {"/runs/machine-copied/replay: 12 stored, 0 now", "/runs/machine-edited/replay: 12 stored, 0 now"}
SHOWN = 40  # differences that a failure lists
RELATIVE = 1e-9  # another machine's linear algebra ends in other last bits


def differences(stored: Any, now: Any, where: str = "") -> Iterator[str]:
    """Every field in which two documents differ, with both values."""
    if isinstance(stored, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*stored, *now]):
            yield from differences(stored.get(key, ABSENT), now.get(key, ABSENT), f"{where}/{key}")
    elif isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        for number, (there, here) in enumerate(zip(stored, now, strict=True)):
            yield from differences(there, here, f"{where}[{number}]")
    elif not _same(stored, now):
        yield f"{where}: {reprlib.repr(stored)} stored, {reprlib.repr(now)} now"


def _same(stored: Any, now: Any) -> bool:
    if {type(stored), type(now)} <= {int, float}:
        return math.isclose(stored, now, rel_tol=RELATIVE, abs_tol=1e-15)
    return type(stored) is type(now) and bool(stored == now)


def test_artefacts_of_schema_1_are_decided_as_before() -> None:
    stored = lzma.decompress((CORPUS / "expected.json.xz").read_bytes())
    expected = json.loads(stored.replace(b"error contaminated", b"error contended"))  # the former JUnit type
    with unpacked() as corpus:
        found = json.loads(json.dumps(decisions(corpus)))
    told = set(differences(expected, found))
    assert told >= OTHERWISE_NOW
    told -= OTHERWISE_NOW
    assert not told, f"{len(told)} fields differ:\n" + "\n".join(sorted(told)[:SHOWN])


def test_a_difference_is_found_and_named() -> None:
    stored = {"a": [{"outcome": "regressed", "low": 1.0}], "gone": 1}
    now = {"a": [{"outcome": "unchanged", "low": 1.0 + 1e-12}], "added": None}
    assert list(differences(stored, now)) == [
        "/a[0]/outcome: 'regressed' stored, 'unchanged' now",
        "/gone: 1 stored, 'absent' now",
        "/added: 'absent' stored, None now",
    ]
