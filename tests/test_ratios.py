"""The ratios of rows to their reference: one round, several rounds, contention, and rounds that are not complete."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from rounds_fixture import CONTENDED, Noise, group_cases, process_of, rounds_run, run_of_rounds

from harness.ratios import Ratio, Ratios, log_ratio, ratios, rounds_needed
from harness.types import Case, Measurement, Run

REFERENCE, ROW, OTHER = group_cases(rows=2)
TRUE = {REFERENCE: 0.010, ROW: 0.005, OTHER: 0.020}


def timed(case: Case, *seconds: float, number: int = 0, turns: int = 4, **changes: object) -> Measurement:
    return process_of(case, list(seconds), number, turns=turns, replicate=number + 1, **changes)


def of_rounds(*rows: float, copies: tuple[float, ...] = (), reference: float = 0.01) -> Run:
    """A run with a row of the given seconds in rounds 0, 1, ..., a reference, and copies of it."""
    measured = [timed(REFERENCE, *[reference] * 4, number=i) for i in range(len(rows))]
    measured += [timed(ROW, *[value] * 4, number=i) for i, value in enumerate(rows)]
    return run_of_rounds(
        (REFERENCE, ROW), measured, [timed(REFERENCE, *[value] * 4, number=i) for i, value in enumerate(copies)]
    )


def ratio_of(run: Run, case: Case = ROW) -> Ratio:
    return ratios(run).of[case.id]


# One round.


def test_turns_are_compared_one_by_one() -> None:
    """The machine's speed changes from turn to turn; the medians of the processes would differ by 50 %."""
    row, reference = timed(ROW, 1, 2, 4, 8), timed(REFERENCE, 2, 4, 8, 16)
    assert log_ratio(row, reference) == pytest.approx(-math.log(2))
    skewed = timed(ROW, 1, 2, 12, 24), timed(REFERENCE, 1, 2, 4, 8)
    assert log_ratio(*skewed) == pytest.approx(math.log(3) / 2)


def test_a_burst_in_one_turn_is_left_out() -> None:
    assert log_ratio(timed(ROW, 1, 1, 5, 1), timed(REFERENCE, 1, 1, 1, 1)) == pytest.approx(0.0)


def test_several_samples_of_a_turn_count_by_their_median() -> None:
    row = timed(ROW, *[2, 2, 9], *[4, 4, 9], turns=2)
    reference = timed(REFERENCE, *[1, 1, 9], *[2, 2, 9], turns=2)
    assert log_ratio(row, reference) == pytest.approx(math.log(2))


def test_unequal_numbers_of_turns_are_compared_by_the_medians_of_the_processes() -> None:
    assert log_ratio(timed(ROW, 2, 2, 2, turns=3), timed(REFERENCE, 1, 1, 1, 1, 1)) == pytest.approx(math.log(2))


def test_a_process_without_a_latency_has_no_ratio() -> None:
    failed = timed(ROW, status="failed", reason="boom", samples={})
    assert log_ratio(failed, timed(REFERENCE, 1, 1, 1, 1)) is None
    assert log_ratio(timed(ROW, samples={}), timed(REFERENCE, 1, 1, 1, 1)) is None


# The ratio.


def test_a_ratio_is_a_speed() -> None:
    """Half of the seconds are twice the speed, and the interval is around it."""
    run = rounds_run(
        groups=2, rows=2, rounds=4, noise=Noise(outliers=0), seconds=lambda case: 0.01 / (1 + case.batch_size)
    )
    assert all(0.9 < r.value < 1.1 for r in ratios(run).of.values())
    faster = ratio_of(of_rounds(0.005, 0.00501, 0.00499, copies=(0.01, 0.01, 0.01)))
    assert (faster.case_id, faster.reference_id, faster.rounds) == (ROW.id, REFERENCE.id, 3)
    assert faster.value == pytest.approx(2.0, rel=0.01)
    assert faster.low is not None
    assert faster.high is not None
    assert faster.low < 2.0 < faster.high
    assert faster.separable is True
    assert faster.half_width == pytest.approx(math.log(faster.high / faster.low) / 2)


def test_drift_between_rounds_cancels() -> None:
    run = rounds_run(
        rows=2,
        rounds=5,
        noise=Noise(process=(1e-9, 1e-9), outliers=0, burst=0, sample=0, drift=0.5),
        seconds=TRUE.__getitem__,
    )
    assert ratio_of(run).value == pytest.approx(2.0)
    assert ratio_of(run, OTHER).value == pytest.approx(0.5)


def test_a_run_without_rounds_has_no_ratios() -> None:
    assert ratios(rounds_run(rounds=0)) == Ratios(of={}, controls={})


def test_the_reference_is_compared_with_its_copy() -> None:
    found = ratios(rounds_run(groups=2, rounds=3))
    references = {group_cases(group)[0].id for group in range(2)}
    assert set(found.controls) == references
    assert not references & set(found.of)
    for reference, control in found.controls.items():
        assert control.case_id == control.reference_id == reference
        assert control.value == pytest.approx(1.0)
        assert control.separable is False


def test_copies_of_the_reference_halve_its_noise() -> None:
    """The reference is 3 % slow in one process, its copy is 3 % fast: their mean counts."""
    run = of_rounds(0.01, copies=(0.0097,), reference=0.0103)
    assert ratio_of(run).value == pytest.approx(math.sqrt(0.0097 * 0.0103) / 0.01)


def test_a_round_whose_reference_differs_from_its_copy_counts_for_little() -> None:
    """The reference is 30 % slow in round 0. Two values would otherwise have their mean."""
    measured = [timed(REFERENCE, *[0.013] * 4), timed(REFERENCE, *[0.01] * 4, number=1)]
    measured += [timed(ROW, *[0.01] * 4, number=i) for i in range(2)]
    copies = [timed(REFERENCE, *[0.01] * 4, number=i) for i in range(2)]
    assert ratio_of(run_of_rounds((REFERENCE, ROW), measured, copies)).value == pytest.approx(1.0, abs=0.02)
    assert ratio_of(run_of_rounds((REFERENCE, ROW), measured, [])).value == pytest.approx(1.14, abs=0.03)


def test_an_outlying_round_of_three_moves_the_ratio_little() -> None:
    copies = (0.01, 0.01005, 0.00995)
    assert ratio_of(of_rounds(0.01, 0.0101, 0.014, copies=copies)).value == pytest.approx(1.0, abs=0.01)


def test_two_rounds_that_disagree_have_a_wide_interval() -> None:
    agreeing, apart = (
        ratio_of(of_rounds(0.01, second, copies=(0.01, 0.01))).half_width for second in (0.01005, 0.0135)
    )
    assert agreeing is not None
    assert apart is not None
    assert agreeing < 0.04
    assert apart > 0.12


def test_the_interval_of_one_round_comes_from_the_controls() -> None:
    """As the controls spread, so wide is the interval of a single round."""
    widths = []
    for deviation in (0.004, 0.03):
        run = rounds_run(groups=12, rows=1, rounds=1, noise=Noise(process=(deviation, deviation), outliers=0))
        found = [r.half_width for r in ratios(run).of.values()]
        widths.append(sum(w for w in found if w is not None) / len(found))
    assert widths[1] > 2 * widths[0]


def test_without_any_known_spread_there_is_no_interval() -> None:
    """One round, no copy, and too few turns to show how a process varies."""
    run = run_of_rounds((REFERENCE, ROW), [timed(REFERENCE, 0.01, turns=1), timed(ROW, 0.005, turns=1)], [])
    found = ratio_of(run)
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high, found.half_width, found.separable) == (None, None, None, None)


# Which processes count.


def with_contended(run: Run, *numbers: int, case: Case = ROW) -> Run:
    changed = [
        replace(m, warnings=(CONTENDED,)) if m.case == case and m.round in numbers else m for m in run.measurements
    ]
    return replace(run, measurements=tuple(changed))


@pytest.mark.parametrize("case", [ROW, REFERENCE])
def test_contended_rounds_are_left_out_if_two_others_remain(case: Case) -> None:
    run = of_rounds(0.010, 0.010, 0.0105, 0.0106, copies=(0.01,) * 4)
    left = ratio_of(with_contended(run, 2, 3, case=case))
    assert left.rounds == 2
    assert left.value == pytest.approx(1.0, abs=0.002)
    assert ratio_of(with_contended(run, 1, 2, 3, case=case)).rounds == 4


def test_a_slow_round_without_a_warning_is_not_left_out() -> None:
    assert ratio_of(of_rounds(0.010, 0.010, 0.02, copies=(0.01,) * 3)).rounds == 3


def test_a_contended_copy_is_left_out_alone() -> None:
    run = of_rounds(0.0102, 0.0102, copies=(0.0106, 0.0106))
    busy = tuple(replace(c, measurement=replace(c.measurement, warnings=(CONTENDED,))) for c in run.controls)
    assert ratio_of(run).value > 1.005
    assert ratio_of(replace(run, controls=busy)).value == pytest.approx(0.01 / 0.0102, abs=0.002)
    assert ratio_of(replace(run, controls=busy)).rounds == 2


def test_rounds_of_superseded_attempts_count() -> None:
    """A contended process that was measured again took turns in its round all the same."""
    run = of_rounds(0.01, 0.01, 0.01, copies=(0.01,) * 3)
    row = [m for m in run.measurements if m.case == ROW]
    rest = tuple(m for m in run.measurements if m not in row[:1])
    superseded = replace(run, measurements=rest, superseded=(row[0],))
    assert ratio_of(superseded).rounds == 3
    assert ratio_of(superseded) == ratio_of(run)


def test_failed_processes_and_processes_alone_have_no_part() -> None:
    run = of_rounds(0.01, 0.01, copies=(0.01, 0.01))
    failed = timed(ROW, number=2, status="failed", reason="boom", samples={})
    alone = replace(timed(ROW, *[0.5] * 4), round=None)
    more = replace(run, measurements=(*run.measurements, timed(REFERENCE, *[0.01] * 4, number=2), failed, alone))
    assert ratio_of(more) == ratio_of(run)


def test_processes_one_after_the_other_are_compared_by_the_mean_of_two() -> None:
    """The machine gets slower during A B B A, which cancels."""
    facts = {"turns": 4, "alternates": "processes"}
    order = [(REFERENCE, 0.010), (ROW, 0.011), (ROW, 0.0121), (REFERENCE, 0.01331)]
    run = run_of_rounds((REFERENCE, ROW), [timed(case, *[s] * 4, facts=facts) for case, s in order], [])
    assert ratio_of(run).value == pytest.approx(1.0)
    assert ratio_of(run).simultaneous is False
    assert ratio_of(of_rounds(0.01)).simultaneous is True
    unfinished = replace(run, measurements=run.measurements[:3])
    assert not ratios(unfinished).of


def test_without_an_eager_fp32_row_the_first_valid_row_is_the_reference() -> None:
    run = of_rounds(0.005, 0.005, copies=())
    swapped = {REFERENCE: OTHER, ROW: ROW}
    measured = [replace(m, case=swapped[m.case]) for m in run.measurements]
    found = ratios(run_of_rounds((OTHER, ROW), measured, []))
    assert found.of[ROW.id].reference_id == OTHER.id


# Between rows.


def test_two_rows_are_compared_in_the_rounds_of_both() -> None:
    run = rounds_run(rows=2, rounds=4, noise=Noise(outliers=0), seconds=TRUE.__getitem__)
    found = ratios(run)
    direct = found.between(ROW.id, OTHER.id)
    assert direct is not None
    assert (direct.case_id, direct.reference_id, direct.rounds) == (ROW.id, OTHER.id, 4)
    assert direct.low is not None
    assert direct.high is not None
    assert direct.low < 4.0 < direct.high
    back = found.between(OTHER.id, ROW.id)
    assert back is not None
    assert back.value == pytest.approx(1 / direct.value)
    assert back.high == pytest.approx(1 / direct.low, rel=1e-3)


def test_noise_of_the_reference_has_no_part_in_the_ratio_of_two_rows() -> None:
    """The reference varies by 6 %, both rows do not: their own ratio is sharper than those to the reference."""
    measured = []
    for number, speed in enumerate((1.0, 1.06, 0.96, 1.03)):
        measured += [timed(REFERENCE, *[0.01 * speed] * 4, number=number)]
        measured += [timed(ROW, *[0.005] * 4, number=number), timed(OTHER, *[0.02] * 4, number=number)]
    found = ratios(run_of_rounds((REFERENCE, ROW, OTHER), measured, []))
    direct, to_reference = found.between(ROW.id, OTHER.id), found.of[ROW.id]
    assert direct is not None
    assert direct.value == pytest.approx(4.0)
    assert direct.half_width is not None
    assert to_reference.half_width is not None
    assert direct.half_width < to_reference.half_width / 1.3


def test_rows_without_common_rounds_are_compared_through_the_reference() -> None:
    run = rounds_run(rows=2, rounds=6, noise=Noise(outliers=0), seconds=TRUE.__getitem__)
    measured = [
        m
        for m in run.measurements
        if m.round is None or m.case not in (ROW, OTHER) or (m.case == ROW) == (m.round % 2 == 0)
    ]
    found = ratios(replace(run, measurements=tuple(measured)))
    through = found.between(ROW.id, OTHER.id)
    row, other = found.of[ROW.id], found.of[OTHER.id]
    assert through is not None
    assert through.rounds == 3
    assert through.value == pytest.approx(row.value / other.value)
    assert None not in (through.half_width, row.half_width, other.half_width)
    assert through.half_width == pytest.approx(math.hypot(row.half_width or 0, other.half_width or 0), rel=0.1)


def test_the_reference_is_compared_with_a_row() -> None:
    found = ratios(rounds_run(rounds=3, seconds=TRUE.__getitem__, rows=2))
    there, back = found.between(ROW.id, REFERENCE.id), found.between(REFERENCE.id, ROW.id)
    assert there == found.of[ROW.id]
    assert back is not None
    assert back.value == pytest.approx(1 / there.value if there else 0)
    assert (back.case_id, back.reference_id) == (REFERENCE.id, ROW.id)


def test_rows_of_different_groups_are_not_compared() -> None:
    found = ratios(rounds_run(groups=2, rounds=3, rows=1))
    first, second = (group_cases(group, 1)[1].id for group in range(2))
    assert found.between(first, second) is None
    assert found.between(first, "unknown") is None
    assert found.between(first, first) is None


# Planning.


def test_no_more_rounds_are_needed_within_the_interval() -> None:
    run = rounds_run(groups=4, rounds=6, noise=Noise(process=(0.002, 0.002), outliers=0))
    assert rounds_needed(run, ROW.id, 0.03) == 0
    assert rounds_needed(run, ROW.id, 0.0005) > 6


def test_a_row_without_rounds_is_planned_by_the_other_rows() -> None:
    """The wider the others spread, the more rounds are planned; nothing known gives a default."""
    planned = []
    for deviation in (0.003, 0.03):
        run = rounds_run(groups=6, rows=2, rounds=3, noise=Noise(process=(deviation, deviation), outliers=0))
        measured = tuple(m for m in run.measurements if m.case != ROW or m.round is None)
        planned.append(rounds_needed(replace(run, measurements=measured), ROW.id, 0.03))
    assert 1 <= planned[0] < planned[1] <= 16
    assert 1 < rounds_needed(rounds_run(rounds=0), ROW.id, 0.03) < 16


def test_planned_rounds_are_about_those_that_are_needed() -> None:
    """Over many rows, the planned number is right within a third on average."""
    noise = Noise(seed=3, process=(0.01, 0.025), outliers=0)
    whole = rounds_run(groups=8, rows=3, rounds=16, noise=noise)
    first = whole_until(whole, 16)
    planned, needed = 0, 0
    known = {case.id for case in whole.cases}
    counts = {number: ratios(whole_until(whole, 8 * number)) for number in range(2, 17)}
    begun = ratios(first)
    for case_id in known & set(begun.of):
        planned += 2 + begun.rounds_needed(case_id, begun.of[case_id].reference_id, 0.02)
        needed += next((n for n, r in counts.items() if (r.of[case_id].half_width or 1) <= 0.02), 16)
    assert planned == pytest.approx(needed, rel=1 / 3)


def whole_until(run: Run, rounds: int) -> Run:
    """The run when so many of its rounds, of all groups together, had been measured."""
    return replace(
        run,
        measurements=tuple(m for m in run.measurements if m.round is None or m.round < rounds),
        controls=tuple(c for c in run.controls if c.measurement.round is None or c.measurement.round < rounds),
    )


def test_ratios_are_computed_without_pandas() -> None:
    code = "import sys, harness.ratios; assert not {'pandas', 'torch', 'scipy.stats'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
