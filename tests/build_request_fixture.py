"""What a backend is asked with in tests that build without a suite: a CPU, fp32, and nothing to calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.backends import BuildRequest
from harness.timing import Timer


def build_request(folder: Path, **changes: Any) -> BuildRequest:
    """A request with every cache in `folder`, changed by `changes`."""
    given: dict[str, Any] = {
        "precision": "fp32",
        "device": "cpu",
        "cache": folder,
        "exports": folder,
        "work": lambda: "w",
        "calls": "c",
        "timer": Timer(lambda: None),
        "optimizations": (),
        "calibration": lambda: pytest.fail("nothing is calibrated here"),
    }
    return BuildRequest(**given | changes)
