"""A block that met a busy machine is measured again: which attempt counts, and that nothing is lost on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import baseline_fixture
import pytest

from harness import attempts, causes, storage
from harness.causes import Cause
from harness.reasons import stated
from harness.types import Case, Control, Measurement, Run

CASE = Case(model="m")
BUSY = ("contended: other processes used 60 % of a core meanwhile",)


def measurement(attempt: int = 0, *, busy: bool = False, replicate: int = 0, seconds: float = 0.1) -> Measurement:
    return Measurement(
        case=CASE,
        replicate=replicate,
        status="ok",
        attempt=attempt,
        samples={"latency_s": [seconds]},
        warnings=BUSY if busy else (),
    )


def broken(attempt: int, cause: Cause | None = None) -> Measurement:
    reason = stated("broke") if cause is None else causes.reason(cause, "broke")
    return Measurement(case=CASE, replicate=0, status="failed", reason=reason, attempt=attempt)


def run(*measurements: Measurement) -> Run:
    counted, superseded = attempts.split(measurements)
    return baseline_fixture.run_of(list(counted), superseded=superseded)


def test_the_first_quiet_attempt_counts_whatever_its_time() -> None:
    slow_but_quiet = measurement(1, seconds=9.0)
    found = run(measurement(0, busy=True), slow_but_quiet, measurement(2, seconds=0.01))
    assert found.measurements == (slow_but_quiet,)
    assert [m.attempt for m in found.superseded] == [0, 2]


def test_where_no_attempt_was_quiet_the_first_one_counts_with_its_warning() -> None:
    found = run(measurement(0, busy=True), measurement(1, busy=True))
    assert [m.attempt for m in found.measurements] == [0]
    assert str(attempts.contended(found.measurements[0])) == BUSY[0]


def test_a_failure_counts_until_it_is_retried_on_purpose() -> None:
    busy, failed = measurement(0, busy=True), broken(1)
    assert run(busy, failed).measurements == (failed,)
    retried = run(busy, failed, measurement(2))
    assert retried.measurements == (measurement(2),)
    assert retried.superseded == (busy, failed)
    again = broken(3)
    assert run(busy, failed, again).measurements == (again,)


def test_what_the_environment_ended_leaves_an_ok_attempt_in_force_and_counts_only_where_there_is_none() -> None:
    busy, killed = measurement(0, busy=True), broken(1, Cause.KILLED)
    assert run(busy, killed).measurements == (busy,)
    assert run(broken(0, Cause.DISK_FULL), killed).measurements == (killed,)
    assert run(broken(0), killed).measurements == (killed,)  # a retry that was killed is open again
    assert run(killed, measurement(2)).measurements == (measurement(2),)


def test_attempts_of_a_busy_process_are_counted_from_its_first_ok_one_and_have_an_end() -> None:
    busy = measurement(1, busy=True)
    found = run(broken(0), busy)
    assert attempts.again(found.measurements, found.superseded, 2) == [(busy, 2)]
    spent = run(busy, broken(2, Cause.KILLED), broken(3, Cause.KILLED))
    assert spent.measurements == (busy,)
    assert attempts.again(spent.measurements, spent.superseded, 2) == []


def test_resume_retries_what_the_environment_failed_and_on_demand_every_failure() -> None:
    for status in ("failed", "timeout", "oom", "invalid"):
        one = Measurement(case=CASE, replicate=0, status=status, reason="r")  # type: ignore[arg-type]
        assert (attempts.to_retry(one), attempts.to_retry(one, retry_failed=True)) == (False, True)
    skipped = Measurement(case=CASE, replicate=0, status="skipped", reason="no GPU")
    assert not attempts.to_retry(skipped, retry_failed=True)
    assert not attempts.to_retry(measurement(), retry_failed=True)
    for cause in Cause:
        assert attempts.to_retry(broken(0, cause)) == (cause is not Cause.KERNEL_OUT_OF_MEMORY)


def test_a_cause_is_the_kind_of_the_reason_and_other_failures_have_none() -> None:
    killed = broken(0, Cause.KILLED)
    document = storage.measurement_to_dict(killed)
    assert document["reason"] == {"kind": "killed", "data": {"detail": "broke"}}
    back = storage.measurement_from_dict(json.loads(json.dumps(document)))
    assert (back, back.cause) == (killed, Cause.KILLED)
    assert broken(0).cause is None


def test_what_is_busy_is_measured_again_up_to_the_limit() -> None:
    found = run(measurement(0, busy=True), measurement(replicate=1), measurement(0, busy=True, replicate=2))
    again = attempts.again(found.measurements, found.superseded, 2)
    assert [(m.replicate, attempt) for m, attempt in again] == [(0, 1), (2, 1)]
    later = run(*found.measurements, measurement(1, busy=True), measurement(1, replicate=2))
    again = attempts.again(later.measurements, later.superseded, 2)
    assert [(m.replicate, attempt) for m, attempt in again] == [(0, 2)]
    spent = run(*later.measurements, *later.superseded, measurement(2, busy=True))
    assert attempts.again(spent.measurements, spent.superseded, 2) == []


def test_every_attempt_and_control_survives_the_folder_and_the_baseline(tmp_path: Path) -> None:
    measured = run(measurement(0, busy=True), measurement(1), measurement(replicate=1))
    control = Control(side="a", measurement=measurement())
    folder = tmp_path / "r"
    storage.create(folder, measured)
    for one in (*measured.superseded, *measured.measurements):
        storage.append(folder, one)
    storage.append_control(folder, control)
    with (folder / storage.CONTROLS_FILE).open("a") as file:
        file.write('{"side": "b", "meas')
    back = storage.load(folder)
    assert (back.measurements, back.superseded, back.controls) == (
        measured.measurements,
        measured.superseded,
        (control,),
    )
    assert back.problems == ("controls.jsonl line 2 was cut off or is unreadable, and is left out",)
    kept = storage.run_from_dict(storage.run_to_dict(replace(back, folder=None)))
    assert kept == replace(back, folder=None, problems=())


def test_a_run_from_before_says_that_its_protocol_asked_for_no_precision() -> None:
    document = storage.run_to_dict(run(measurement()))
    for name in ("target_interval", "contended_retries", "rounds", "ratio_interval"):
        del document["protocol"][name]
    del document["controls"]
    before = storage.run_from_dict(document)
    assert (before.protocol.target_interval, before.protocol.contended_retries, before.controls) == (None, 0, ())
    assert (before.protocol.rounds, before.protocol.ratio_interval) == (False, None)


@pytest.mark.parametrize("side", ["c", ""])
def test_a_control_of_no_side_is_refused(side: str) -> None:
    document = storage.run_to_dict(run(measurement()))
    document["controls"] = [{"side": side, "measurement": document["measurements"][0]}]
    with pytest.raises(storage.UnreadableRun, match="one of a, b, copy, overhead, not"):
        storage.run_from_dict(document)
