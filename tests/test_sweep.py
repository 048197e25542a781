"""The order of a sweep, the time left, and the metrics that its models bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from suite_fixture import PLUGINS, QUICK, Silent

from harness import storage
from harness.attempts import contended
from harness.processes.worker import Workers
from harness.reasons import Reason
from harness.sweeping.remaining_time import RemainingTime
from harness.sweeping.sweep import merged, planned_processes, sweep
from harness.types import Case, Measurement, Metric, Run

CASES = [Case(model="m", batch_size=n) for n in range(1, 9)]


def metric(name: str) -> Metric:
    return Metric(name=name, unit="s", label=name, better=None, kind="noisy", description="")


def test_the_first_process_of_every_case_comes_first_and_later_rounds_are_shuffled() -> None:
    planned = planned_processes(CASES, 3)
    assert [b.case for b in planned[:8]] == CASES
    for number, part in ((1, planned[8:16]), (2, planned[16:])):
        assert {b.replicate for b in part} == {number}
        assert sorted(b.case.batch_size for b in part) == list(range(1, 9))
        assert [b.case for b in part] != CASES
    assert planned == planned_processes(CASES, 3)


def test_the_time_left_uses_each_case_s_own_time_and_the_mean_for_new_ones() -> None:
    estimate = RemainingTime([])
    planned = planned_processes(CASES[:3], 1)
    assert estimate.seconds(planned, set()) is None
    estimate.add(Measurement(case=CASES[0], replicate=0, status="ok", duration_s=10.0))
    estimate.add(Measurement(case=CASES[1], replicate=0, status="ok", duration_s=20.0))
    assert estimate.seconds(planned, set()) == 10 + 20 + 15
    assert estimate.seconds(planned, {CASES[1].id}) == 10 + 15
    estimate.add(Measurement(case=CASES[0], replicate=1, status="ok", duration_s=2.0))
    assert estimate.seconds(planned_processes(CASES[:2], 2)[2:], set()) == 2 + 20 * 0.2


def test_stages_of_all_models_stand_in_the_order_in_which_they_run() -> None:
    known = [metric(n) for n in ("latency", "transformer", "vae", "fid")]
    found = [metric(n) for n in ("text", "unet", "vae", "recognised", "fid")]
    assert [m.name for m in merged(known, found)] == [
        "latency", "transformer", "text", "unet", "vae", "recognised", "fid",
    ]  # fmt: skip
    assert [m.name for m in known] == ["latency", "transformer", "vae", "fid"]


def test_a_process_that_met_a_busy_machine_is_measured_again_and_both_attempts_are_kept(
    run_suite: Callable[..., Run], workers: Workers
) -> None:
    retrying = QUICK.replace("contended_retries: 0", "contended_retries: 2")
    run = run_suite(" - {model: planted_ok, batch_size: [1, 2]}\n", retrying)
    assert sorted(c.side for c in run.controls) == ["a", "b", "overhead"]
    assert len(run.measurements) == 2
    assert all(set(m.state["control_workload"]) == {"gemm", "copy"} for m in run.measurements)
    folder = Path(str(run.folder))
    busy = [replace(m, warnings=(Reason("contended_cpu", {"used": 0.6}),)) for m in run.measurements]
    (folder / storage.MEASUREMENTS_FILE).unlink()
    for measurement in busy:
        storage.append(folder, measurement)
    storage.write_header(folder, replace(run, finished=None))
    again = sweep(storage.load(folder), workers, PLUGINS, Silent())
    everything = [*again.measurements, *again.superseded]
    assert all(m in everything for m in busy)
    assert {m.attempt for m in everything} >= {0, 1}
    assert again.finished is not None
    assert len(again.measurements) == 2
    for measurement in again.measurements:
        assert measurement.attempt > 0 or contended(measurement)
