"""Which processes of the model `null` a run lacks, how each is measured, and how long it takes.

One process in fp32 for each backend of a valid row. It has the run's protocol with short times, since the work is short
and only its order of magnitude decides anything.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from harness import attempts, null_model, overhead
from harness.types import Case, Control, Protocol, Run

WARM_UP_S: Final = 0.005
SAMPLES_S: Final = 0.1
TIMEOUT_S: Final = 300.0
PROCESS_S: Final = 0.6  # of a process, beside its build
LONGEST_BUILD_S: Final = 5.0  # of a network of one operation; what it takes in torch.compile


def case_of(backend: str) -> Case:
    """The case of the control in a backend."""
    return Case(model=null_model.NAME, backend=backend)


def protocol_of(protocol: Protocol) -> Protocol:
    """The run's protocol with times that are short, and without a target for the interval."""
    return replace(
        protocol,
        warmup_min_s=min(protocol.warmup_min_s, WARM_UP_S),
        warmup_max_s=min(protocol.warmup_max_s, WARM_UP_S),
        min_sample_time_s=min(protocol.min_sample_time_s, SAMPLES_S),
        max_sample_time_s=min(protocol.max_sample_time_s, SAMPLES_S),
        target_interval=None,
        timeout_s=min(protocol.timeout_s, TIMEOUT_S),
    )


def left(run: Run, *, retry_failed: bool = False) -> list[str]:
    """The backends of valid rows that lack a control, in the order of the suite: never measured, failed because of the
    environment, or with `retry_failed` failed for any reason."""
    bad = {m.case.id for m in run.measurements if m.status != "ok"}
    wanted = dict.fromkeys(c.backend for c in run.cases if c.id in run.by_case and c.id not in bad)
    known = overhead.controls(run)
    return [backend for backend in wanted if backend not in known or _to_retry(known[backend], retry_failed)]


def _to_retry(control: Control, retry_failed: bool) -> bool:
    return attempts.to_retry(control.measurement, retry_failed)


def next_attempt(run: Run, backend: str) -> int:
    """The number of the next attempt in a backend; 0 if it has none yet."""
    told = [c.measurement for c in run.controls if c.side == "overhead" and c.measurement.case.backend == backend]
    return max((m.attempt for m in told), default=-1) + 1


def seconds_left(run: Run) -> float:
    """The expected seconds of the controls that the run will lack once each of its cases is measured."""
    bad = {m.case.id for m in run.measurements if m.status != "ok"}
    known = overhead.controls(run)
    wanted = dict.fromkeys(c.backend for c in run.cases if c.id not in bad)
    return math.fsum(_expected_s(run, backend) for backend in wanted if backend not in known)


def _expected_s(run: Run, backend: str) -> float:
    builds = [
        math.fsum(values)
        for m in run.measurements
        if m.case.backend == backend and (values := m.samples.get("build_s"))
    ]
    return PROCESS_S + min([LONGEST_BUILD_S, *builds])


def spent_s(run: Run) -> float:
    """The seconds that the stored controls took."""
    return math.fsum(c.measurement.duration_s or 0.0 for c in run.controls if c.side == "overhead")
