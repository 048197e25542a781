"""What disarms the gate on a run: a busy machine, an A/A control that moved, a machine of another speed than before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from baseline_fixture import A, changed, latency, measured, run_of
from relative_fixture import session as session_of
from rounds_fixture import group_cases

from baselines.stored import store
from baselines.stored.compare import compare_stored
from baselines.stored.controls import control, control_moved, control_workloads_moved, rows_contended, tripped
from baselines.verdict import exit_code
from harness.reasons import Reason
from harness.types import Case, Control, Measurement, Run

BUSY = (Reason("contended_cpu", {"used": 0.6}),)


def sides(a: list[float], b: list[float]) -> tuple[Control, ...]:
    return tuple(
        Control(side=side, measurement=Measurement(case=A, replicate=i, status="ok", samples={"latency_s": [seconds]}))  # type: ignore[arg-type]
        for side, values in (("a", a), ("b", b))
        for i, seconds in enumerate(values)
    )


def run_with(control: tuple[Control, ...] = (), gemm: float | None = None, run_id: str = "now") -> Run:
    run = run_of(measured(latency(0.100, 0.101, 0.099)), run_id, controls=control)
    if gemm is None:
        return run
    state = {"control_workload": {"gemm": [gemm, gemm, gemm]}}
    return replace(run, measurements=tuple(replace(m, state=state) for m in run.measurements))


def test_a_control_that_does_not_move_says_what_the_noise_allows() -> None:
    run = run_with(sides([0.100, 0.101, 0.100], [0.101, 0.100, 0.100]))
    assert control_moved(run) is None
    assert "differs from itself by +0.0 % (3 processes per row; the noise of this run explains -" in str(control(run))


def test_a_control_that_moved_disarms_speed_and_nothing_else(tmp_path: Path) -> None:
    for number in range(4):
        store.save(run_with(run_id=f"s{number}"), "as ever", tmp_path)
    moved = run_with(sides([0.100, 0.101, 0.100], [0.125, 0.126, 0.125]))
    found = compare_stored(moved, tmp_path)
    assert "the A/A control moved" in str(found.contended[0])
    assert {v.outcome for v in found.verdicts if v.kind == "noisy"} == {"inconclusive"}
    assert exit_code(found) == 14


def test_the_noise_of_the_run_itself_excuses_its_control() -> None:
    noisy = run_of(measured(latency(0.08, 0.10, 0.13)), controls=sides([0.10], [0.12]))
    assert control_moved(noisy) is None
    assert control_moved(replace(noisy, measurements=run_with().measurements)) is not None


@pytest.mark.parametrize("control", [(), sides([0.1], []), sides([0.0], [0.1])])
def test_a_control_that_cannot_tell_trips_nothing(control: tuple[Control, ...]) -> None:
    assert tripped(run_with(control)) == []


def test_a_fifth_of_the_rows_may_meet_a_busy_machine_and_no_more() -> None:
    rows = [m for i in range(10) for m in measured(latency(0.1, 0.1, 0.1), Case(model="m", batch_size=i + 1))]

    def busy(count: int) -> Run:
        return run_of([replace(m, warnings=BUSY) if m.case.batch_size <= count else m for m in rows])

    assert rows_contended(busy(2)) is None
    assert str(rows_contended(busy(3))).startswith(
        '3 of 10 rows were contended (for example "contended: other processes'
    )


def test_a_machine_of_another_speed_is_told_from_slower_code(tmp_path: Path) -> None:
    sessions = [run_with(gemm=0.0100 + 0.0001 * i, run_id=f"s{i}") for i in range(5)]
    assert control_workloads_moved(run_with(gemm=0.0101), sessions) == []
    assert control_workloads_moved(run_with(gemm=0.0130), sessions[:3]) == []  # three sessions do not know their spread
    (reason,) = control_workloads_moved(run_with(gemm=0.0130), sessions)
    assert "the duration of the control workload gemm changed by +27" in str(reason)
    for session in sessions:
        store.save(session, "as ever", tmp_path)
    slow = run_with(gemm=0.0130)
    slow = replace(slow, measurements=tuple(replace(m, samples={"latency_s": [0.13]}) for m in slow.measurements))
    assert exit_code(compare_stored(slow, tmp_path)) == 14


def test_control_workloads_of_a_busy_process_do_not_count() -> None:
    sessions = [run_with(gemm=0.0100 + 0.0001 * i) for i in range(5)]
    busy = run_with(gemm=0.0130)
    busy = replace(busy, measurements=tuple(replace(m, warnings=BUSY) for m in busy.measurements))
    assert control_workloads_moved(busy, sessions) == []


def test_a_control_that_is_noisier_than_the_other_rows_does_not_trip() -> None:
    """The cheapest row is often the noisiest: its own spread counts, not that of calmer rows alone."""
    rng = np.random.default_rng(0)
    calm = [m for i in range(24) for m in measured(latency(0.1, 0.1005, 0.0995), Case(model="m", batch_size=i + 1))]
    trips = 0
    for _ in range(300):
        a, b, own = (np.exp(rng.normal(0, 0.06, 3)).tolist() for _ in range(3))
        run = run_of([*calm, *measured(latency(*own))], controls=sides(a, b))
        trips += control_moved(run) is not None
    assert trips <= 6


def test_a_busy_run_is_not_disarmed_where_no_time_is_compared(tmp_path: Path) -> None:
    samples = {"weights_bytes": [1000.0], **latency(0.1, 0.1, 0.1)}
    store.save_reference(run_of(measured(samples), "shipped"), "shipped", tmp_path)
    busy = run_of([replace(m, warnings=BUSY) for m in measured(samples)])
    elsewhere = replace(busy, environment=changed(busy.environment, ("cpu", "model"), "AMD"))
    found = compare_stored(elsewhere, tmp_path)
    assert found.scope == "machine-independent"
    assert exit_code(found) == 0


# Runs with rounds, in which each reference takes turns with a second copy of itself.


def with_slower_copy(run: Run, case: Case, factor: float) -> Run:
    def scaled(control: Control) -> Control:
        if control.measurement.case != case:
            return control
        values = [v * factor for v in control.measurement.samples["latency_s"]]
        return replace(control, measurement=replace(control.measurement, samples={"latency_s": values}))

    return replace(run, controls=tuple(map(scaled, run.controls)))


def test_the_copies_of_equal_code_do_not_move() -> None:
    run = session_of(1)
    assert control_moved(run) is None
    assert str(control(run)).startswith("a second copy of the references of 4 groups took turns with it; ")


def test_a_copy_of_one_group_that_moved_is_named() -> None:
    reference = group_cases(2)[0]
    told = control_moved(with_slower_copy(session_of(1), reference, 1.06))
    assert told is not None
    assert told.data["control"].data["label"] == reference.label
    assert told.data["control"].data["shift"] == pytest.approx(0.06, abs=0.02)
    assert control_moved(with_slower_copy(session_of(1), reference, 1.01)) is None


def test_the_controls_of_equal_runs_move_in_one_of_two_hundred() -> None:
    """Seeded: 0.5 % of 60 runs are 0.3, and more than 2 of them have a probability of 0.4 %."""
    assert sum(control_moved(session_of(seed)) is not None for seed in range(200, 260)) <= 2


def busy_rounds(run: Run, share: float, rows: int) -> Run:
    """The run with this share of the rounds of so many rows contended."""
    chosen = {case.id for case in run.cases[:rows]}
    numbers = sorted({m.round for m in run.measurements if m.round is not None})

    def met(m: Measurement) -> bool:
        mine = [n for n in numbers if any(o.round == n and o.case == m.case for o in run.measurements)]
        return m.case.id in chosen and m.round in mine[: round(share * len(mine))]

    return replace(run, measurements=tuple(replace(m, warnings=BUSY) if met(m) else m for m in run.measurements))


def test_a_row_with_rounds_is_contended_if_most_of_those_that_count_are() -> None:
    run = session_of(1)
    assert rows_contended(busy_rounds(run, 0.5, 12)) is None  # two rounds of four are quiet: they count
    told = rows_contended(busy_rounds(run, 0.75, 12))
    assert told is not None
    assert (told.data["contended"], told.data["rows"]) == (12, 12)
    assert rows_contended(busy_rounds(run, 0.75, 2)) is None


def test_the_first_process_of_a_row_with_rounds_does_not_make_it_contended() -> None:
    run = session_of(1)
    alone = tuple(replace(m, warnings=BUSY) if m.round is None else m for m in run.measurements)
    assert rows_contended(replace(run, measurements=alone)) is None
