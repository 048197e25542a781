"""Latency relative to the group against stored sessions: what is seen, what is not, and to which row it is assigned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from baseline_fixture import ENVIRONMENT
from relative_fixture import compared, relative, session, slowed
from rounds_fixture import CONTENDED, group_cases

from baselines.stored import relative as rule
from baselines.stored.relative import FLOOR, Member, holm, shifts
from baselines.verdict import exit_code
from baselines.wording import ReasonKind
from harness.types import Run

SESSIONS = [session(seed) for seed in range(4)]
HERE = session(50)
REFERENCE, ROW, OTHER = (case.id for case in group_cases(1, 2))


def member(name: str, *logs: float, sd: float = 0.004) -> Member:
    return Member(case_id=name, logs=logs, variances=(sd**2,) * len(logs))


def quiet_groups(*, slow: float = 0.0, seed: int = 0, sessions: int = 4) -> list[list[Member]]:
    """Six groups of three rows, whose values differ by 0.4 %; in the run, row r of group 0 is slower."""
    generator = np.random.default_rng(seed)
    found = []
    for group in range(6):
        rows = [member("ref" if group == 0 else f"ref{group}", *[0.0] * (sessions + 1))]
        for name in ("r", "s"):
            logs = generator.normal(0.5, 0.004, sessions + 1)
            logs[-1] += slow if (group, name) == (0, "r") else 0.0
            rows.append(member(name if group == 0 else f"{name}{group}", *logs))
        found.append(rows)
    return found


# The rule.


def test_the_row_that_changed_stands_out_and_no_other_one() -> None:
    found = {s.case_id: s for s in shifts(quiet_groups(slow=0.05))}
    assert found["r"].shift == pytest.approx(0.05, abs=0.012)
    assert found["r"].p_worse < 1e-4
    low, high = found["r"].interval
    assert low < 0.05 < high
    assert all(s.p_worse > 0.001 and s.p_better > 0.001 for name, s in found.items() if name != "r")


def test_a_slower_reference_is_not_two_faster_rows() -> None:
    groups = quiet_groups()
    groups[0] = [groups[0][0], *(replace(m, logs=(*m.logs[:-1], m.logs[-1] - 0.05)) for m in groups[0][1:])]
    found = {s.case_id: s for s in shifts(groups)}
    assert found["ref"].shift == pytest.approx(0.05, abs=0.012)
    assert found["ref"].p_worse < 1e-4
    assert min(found["r"].p_better, found["s"].p_better) > 0.05


def test_a_shift_up_to_the_floor_is_no_change_however_precise_it_is() -> None:
    def p_worse(shift: float) -> float:
        equal = [[replace(m, logs=(m.logs[0],) * 5, variances=(1e-10,) * 5) for m in g] for g in quiet_groups()]
        first = equal[0][1]
        equal[0][1] = replace(first, logs=(*first.logs[:-1], first.logs[0] + shift))
        return next(s.p_worse for s in shifts(equal) if s.case_id == "r")

    assert p_worse(0.9 * FLOOR) == 1.0
    assert p_worse(1.1 * FLOOR) < 1e-4


def test_rows_that_differ_from_session_to_session_widen_the_interval_of_all() -> None:
    """The processes explain 0.1 %; the sessions of every row differ by 2 %."""
    generator = np.random.default_rng(3)
    errors = []
    for between in (0.001, 0.02):
        groups = [
            [
                member(f"ref{g}", *[0.0] * 5, sd=0.001),
                *(member(f"{r}{g}", *generator.normal(0, between, 5), sd=0.001) for r in "rs"),
            ]
            for g in range(6)
        ]
        errors.append(float(np.median([s.expected.error for s in shifts(groups)])))
    assert errors[1] > 5 * errors[0]


def test_a_row_that_differs_from_session_to_session_has_a_wider_interval_than_others() -> None:
    groups = quiet_groups(sessions=6)
    groups[2][1] = member("restless", 0.5, 0.56, 0.44, 0.53, 0.47, 0.55, 0.5)
    found = {s.case_id: s for s in shifts(groups)}
    assert found["restless"].expected.error > 2 * found["s2"].expected.error


def test_more_sessions_detect_smaller_changes() -> None:
    few, many = (float(np.median([s.detectable for s in shifts(quiet_groups(sessions=n))])) for n in (1, 8))
    assert many < 0.8 * few


def test_the_threshold_is_the_shift_at_which_the_row_alone_is_rejected() -> None:
    shift = next(s for s in shifts(quiet_groups()) if s.case_id == "r")
    at = replace(shift, off=shift.expected.mean + shift.threshold)
    assert at.p_worse == pytest.approx(rule.FAMILY_LEVEL / 18, rel=0.05)


def test_without_groups_nothing_is_decided() -> None:
    assert shifts([]) == []
    assert shifts([[member("alone", 0.0, 0.0)]]) == []


def test_holm_rejects_in_order_and_stops() -> None:
    assert holm([0.005, 0.009, 0.003], 0.01) == [True, True, True]
    assert holm([0.004, 0.02, 0.003], 0.01) == [True, False, True]
    assert holm([0.004, 0.02, 0.0051], 0.01) == [False, False, False]
    assert holm([], 0.01) == []


def test_a_row_without_further_rounds_must_pass_a_stricter_level() -> None:
    shift = next(s for s in shifts(quiet_groups()) if s.case_id == "r")
    between = replace(shift, off=shift.expected.upper(0.004))
    assert rule.alarms([between], ()) == (set(), set())
    assert rule.alarms([between], {"r"}) == ({"r"}, set())
    assert rule.alarms([replace(shift, off=shift.expected.upper(0.0005))], ()) == ({"r"}, set())


# The verdicts.


def test_a_row_slower_than_its_group_is_regressed_and_fails_the_gate() -> None:
    found = compared(slowed(HERE, ROW, 1.06), SESSIONS)
    verdicts = relative(found)
    assert verdicts[ROW].outcome == "regressed"
    assert verdicts[ROW].gating
    assert verdicts[ROW].ratio == pytest.approx(1.06, abs=0.02)
    assert verdicts[ROW].candidate == pytest.approx((verdicts[ROW].baseline or 0.0) * (verdicts[ROW].ratio or 0.0))
    assert (verdicts[ROW].low or 0.0) < 1.06 < (verdicts[ROW].high or 0.0)
    assert {v.outcome for name, v in verdicts.items() if name != ROW} <= {"unchanged", "inconclusive"}
    assert exit_code(found) == 10


def test_a_slower_reference_is_its_own_regression() -> None:
    verdicts = relative(compared(slowed_reference(HERE), SESSIONS))
    assert verdicts[REFERENCE].outcome == "regressed"
    assert {v.outcome for name, v in verdicts.items() if name != REFERENCE} <= {"unchanged", "inconclusive"}


def slowed_reference(run: Run) -> Run:
    """The reference and its copy are the same code."""
    changed = slowed(run, REFERENCE, 1.06)
    assert any(c.measurement.case.id == REFERENCE for c in changed.controls)
    return changed


def test_a_faster_row_is_improved() -> None:
    found = compared(slowed(HERE, ROW, 1 / 1.07), SESSIONS)
    assert relative(found)[ROW].outcome == "improved"
    assert exit_code(found) == 0


def test_equal_code_has_no_alarm() -> None:
    found = relative(compared(HERE, SESSIONS))
    assert len(found) == 12
    assert {v.outcome for v in found.values()} <= {"unchanged", "inconclusive"}


def test_all_rows_slower_together_are_not_seen() -> None:
    verdicts = relative(compared(slowed(HERE, None, 1.05), SESSIONS))
    equal = relative(compared(HERE, SESSIONS))
    assert {name: v.outcome for name, v in verdicts.items()} == {name: v.outcome for name, v in equal.items()}
    assert verdicts[ROW].ratio == pytest.approx(equal[ROW].ratio)


def test_a_machine_of_another_speed_changes_nothing() -> None:
    verdicts = relative(compared(slowed(HERE, None, 1.8), SESSIONS))
    assert {v.outcome for v in verdicts.values()} <= {"unchanged", "inconclusive"}


def test_one_session_decides_and_does_not_advise() -> None:
    verdict = relative(compared(slowed(HERE, ROW, 1.15), SESSIONS[:1]))[ROW]
    assert (verdict.outcome, verdict.gating) == ("regressed", True)


def test_a_suite_too_small_to_show_how_sessions_differ_is_advisory() -> None:
    one = session(3, groups=1)
    found = compared(slowed(session(60, groups=1), group_cases(0, 2)[1].id, 1.3), [one])
    verdicts = relative(found)
    assert verdicts
    assert not any(v.gating for v in verdicts.values())
    assert "advisory: fewer than 6 comparisons" in str(next(iter(verdicts.values())).reason)


def test_in_a_group_of_two_either_row_may_have_changed() -> None:
    sessions = [session(seed, rows=1) for seed in range(4)]
    reference, row = (case.id for case in group_cases(1, 1))
    slower = relative(compared(slowed(session(50, rows=1), row, 1.08), sessions))
    assert (slower[row].outcome, slower[reference].outcome) == ("regressed", "inconclusive")
    assert "in a group of two rows either of them may have changed" in str(slower[row].reason)
    other = relative(compared(slowed(session(50, rows=1), reference, 1.08), sessions))
    assert (other[row].outcome, other[reference].outcome) == ("improved", "inconclusive")


def test_rows_of_other_work_have_no_relative_verdict_and_the_others_do() -> None:
    changed = replace(
        HERE,
        measurements=tuple(
            replace(m, facts={**m.facts, "work_hash": "w2", "identity": {"steps": 30}}) if m.case.id == ROW else m
            for m in HERE.measurements
        ),
    )
    verdicts = relative(compared(changed, SESSIONS))
    assert ROW not in verdicts
    assert OTHER in verdicts


def without_rounds(run: Run, case_id: str) -> Run:
    alone = tuple(m for m in run.measurements if m.case.id != case_id or m.round is None)
    return replace(run, measurements=alone)


def test_a_row_without_rounds_is_missing_and_one_that_the_sessions_lack_is_new() -> None:
    missing = relative(compared(without_rounds(HERE, ROW), SESSIONS))[ROW]
    assert (missing.outcome, missing.gating, missing.reason.kind) == ("missing", True, ReasonKind.NO_ROUNDS)
    new = relative(compared(HERE, [without_rounds(run, ROW) for run in SESSIONS]))[ROW]
    assert (new.outcome, new.gating) == ("new", False)


def test_a_session_that_lacks_a_row_does_not_count_for_its_group() -> None:
    verdicts = relative(compared(HERE, [without_rounds(SESSIONS[0], ROW), *SESSIONS[1:]]))
    assert verdicts[ROW].reason.data["sessions"] == 3
    assert verdicts[group_cases(0, 2)[1].id].reason.data["sessions"] == 4


def test_runs_without_rounds_have_no_relative_verdict() -> None:
    assert relative(compared(session(1, rounds=0), [session(2, rounds=0)])) == {}


def test_another_host_makes_it_advisory() -> None:
    moved = replace(slowed(HERE, ROW, 1.08), environment={**ENVIRONMENT, "host_hash": "host-b"})
    verdict = relative(compared(moved, SESSIONS))[ROW]
    assert (verdict.outcome, verdict.gating) == ("regressed", False)


def test_rows_are_found_under_another_spelling_of_their_weights() -> None:
    def spelled(run: Run, weights: str) -> Run:
        cases = {case.id: case.with_(weights=weights) for case in run.cases}

        def renamed(measurement):
            facts = {**measurement.facts, "weights_hash": "h"}
            return replace(measurement, case=cases[measurement.case.id], facts=facts)

        return replace(
            run,
            cases=tuple(cases.values()),
            measurements=tuple(map(renamed, run.measurements)),
            controls=tuple(replace(c, measurement=renamed(c.measurement)) for c in run.controls),
        )

    here, sessions = spelled(slowed(HERE, ROW, 1.06), "a/b"), [spelled(run, "./a/b") for run in SESSIONS]
    found = [v for v in relative(compared(here, sessions)).values() if v.outcome == "regressed"]
    assert [v.case_id for v in found] == [
        next(c for c in here.cases if c.label.count("backend0") and c.batch_size == 2).id
    ]


# Contention and controls.


def contended(run: Run) -> Run:
    return replace(run, measurements=tuple(replace(m, warnings=(CONTENDED,)) for m in run.measurements))


def test_contention_does_not_disarm_it() -> None:
    found = compared(contended(slowed(HERE, ROW, 1.06)), SESSIONS)
    assert found.contended
    assert relative(found)[ROW].outcome == "regressed"
    assert exit_code(found) == 10


def test_a_copy_that_differs_from_its_reference_disarms_it() -> None:
    changed = slowed(HERE, ROW, 1.06)
    moved = replace(
        changed,
        controls=tuple(
            replace(
                c,
                measurement=replace(
                    c.measurement, samples={"latency_s": [v * 1.1 for v in c.measurement.samples["latency_s"]]}
                ),
            )
            for c in changed.controls
        ),
    )
    found = compared(moved, SESSIONS)
    assert {v.outcome for v in relative(found).values()} == {"inconclusive"}
    assert exit_code(found) == 14
