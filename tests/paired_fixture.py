"""A header of a paired run, for the tests that need one."""

from __future__ import annotations

from typing import Any

from harness.paired.paired_run import PairedRun
from harness.types import Protocol


def paired_run(**changes: Any) -> PairedRun:
    """A run of no rows whose arms are nothing, and what is given instead."""
    given: dict[str, Any] = {
        "id": "ab-1",
        "suite": "gate",
        "created": "2026-01-02T03:04:05+00:00",
        "seed": 0,
        "budget_s": 600.0,
        "device": "cpu",
        "threads": 1,
        "arms": ({"text": ""}, {"text": ""}),
        "loaded": ({}, {}),
        "proof": (),
        "environment": {},
        "protocol": Protocol(),
        "metrics": {},
        "rows": (),
    }
    return PairedRun(**given | changes)
