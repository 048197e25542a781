"""The session rule for times, by hand and in a simulation."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from baseline_fixture import (
    METRICS,
    against,
    latency,
    measured,
    only,
    run_of,
    sessions_of,
    stored,
)

from baselines.stored.compare import compare
from baselines.stored.noisy import FULL_SESSIONS, SHARED_MACHINE_SD, discoveries, shift_of
from baselines.verdict import Comparison, exit_code
from harness.types import Case
from reports import gate
from reports.ci.annotations import github
from reports.ci.badge import badge
from reports.ci.junit import junit
from reports.formats import markdown


def test_four_sessions_by_hand() -> None:
    # centres in log: 0, 0.02, 0, 0.02 -> mean 0.01, s = 0.011547; error = s * sqrt(1 + 1/4) = 0.012910
    # threshold = 0.01 + t(0.99, 3) * error = 0.01 + 4.540703 * 0.012910 = 0.068620
    sessions = [[[math.exp(v)]] for v in (0.0, 0.02, 0.0, 0.02)]
    shift = shift_of(METRICS["latency_s"], sessions, [[math.exp(0.11)]])
    assert shift.harm == pytest.approx(0.10)
    assert shift.error == pytest.approx(0.0129099, rel=1e-5)
    assert shift.threshold == pytest.approx(0.0686200, rel=1e-5)
    # + t(0.95, 3) * error = 2.353363 * 0.012910
    assert shift.detectable == pytest.approx(0.0686200 + 0.0303818, rel=1e-5)
    # t = (0.10 - 0.01) / 0.01291 = 6.971 on 3 degrees of freedom
    assert shift.p_value(+1) == pytest.approx(0.00303, rel=0.01)
    assert shift.gating


def test_four_sessions_gate() -> None:
    sessions = sessions_of(1.0, 1.01, 1.0, 1.01)
    slower = compare(run_of(measured(latency(1.3, 1.3, 1.3))), sessions)
    verdict = only(slower)
    assert (verdict.outcome, verdict.gating, slower.sessions) == ("regressed", True, 4)
    assert verdict.ratio == pytest.approx(1.3 / math.sqrt(1.01))
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < verdict.ratio < verdict.high
    assert verdict.minimum_detectable == pytest.approx(0.0564, rel=0.02)
    assert exit_code(slower) == 10
    faster = compare(run_of(measured(latency(0.7, 0.7, 0.7))), sessions)
    assert only(faster).outcome == "improved"
    assert exit_code(faster) == 0
    same = compare(run_of(measured(latency(1.0, 1.0, 1.02))), sessions_of(1.0, 1.005, 1.0, 1.005))
    assert only(same).outcome == "unchanged"


def test_unchanged_is_not_said_where_five_percent_could_hide() -> None:
    """The same run against sessions that scatter by 0.6 %: 5.6 % is what they show, so 5 % is not excluded."""
    found = compare(run_of(measured(latency(1.0, 1.0, 1.02))), sessions_of(1.0, 1.01, 1.0, 1.01))
    verdict = only(found)
    assert (verdict.outcome, verdict.gating) == ("inconclusive", True)
    assert str(verdict.reason).endswith(
        "a change below 5.6 % is not detected reliably; a change of 5.0 % is not excluded"
    )
    assert (exit_code(found), exit_code(found, strict=True)) == (0, 11)
    assert gate.sentence(found) == "Not red: nothing regressed, but 1 row could not be decided."
    assert json.loads(badge(found))["message"] == "inconclusive"
    assert "not slower" not in markdown.pull_request_comment(found) + github(found) + junit(found)


def test_a_shift_near_five_percent_is_not_unchanged_though_no_alarm() -> None:
    """By hand: sessions at log +-0.004, error 0.0046188 x sqrt(1.25) = 0.0051640, threshold 0.01 + 4.5407 x 0.005164 =
    0.033448. A shift of 0.03 alarms not, and its bound 0.03 + 0.023448 is beyond ln 1.05 = 0.04879."""
    sessions = [[[math.exp(v)]] for v in (-0.004, 0.004, -0.004, 0.004)]
    for harm, excluded in ((0.0, True), (0.025, True), (0.026, False), (-0.026, False)):
        shift = shift_of(METRICS["latency_s"], sessions, [[math.exp(harm)]])
        assert shift.detectable < math.log(1.05)
        assert abs(shift.harm) < shift.threshold
        assert shift.excluded is excluded


def test_one_session_is_advisory() -> None:
    comparison = compare(run_of(measured(latency(2, 2, 2))), sessions_of(1.0))
    verdict = only(comparison)
    assert (verdict.outcome, verdict.gating) == ("regressed", False)
    assert str(verdict.reason).startswith("advisory: 1 of 4 sessions; +100.0 %, beyond the noise of 1 session")
    assert exit_code(comparison, strict=True) == 0
    error = SHARED_MACHINE_SD * math.sqrt(2)
    assert verdict.minimum_detectable == pytest.approx(math.expm1(0.01 + (2.326348 + 1.644854) * error), rel=1e-5)


def test_higher_is_better_turns_the_sign() -> None:
    sessions = stored(*(run_of(measured({"rate": [[v]] * 3})) for v in (100.0, 101.0, 100.0, 101.0)))
    assert only(compare(run_of(measured({"rate": [[70.0]] * 3})), sessions)).outcome == "regressed"
    verdict = only(compare(run_of(measured({"rate": [[140.0]] * 3})), sessions))
    assert verdict.outcome == "improved"
    assert verdict.ratio
    assert verdict.low
    assert verdict.low < verdict.ratio


def test_one_disturbed_process_does_not_alarm() -> None:
    verdict = only(compare(run_of(measured(latency(1.0, 2.0, 2.0))), sessions_of(1.0, 1.01, 1.0, 1.01)))
    assert verdict.outcome == "inconclusive"
    assert "the processes of this run do not agree on the change" in str(verdict.reason)


def test_a_comparison_that_cannot_see_is_inconclusive() -> None:
    verdict = only(compare(run_of(measured(latency(1, 1, 1))), sessions_of(1.0, 1.5, 0.7, 1.2)))
    assert verdict.outcome == "inconclusive"
    assert verdict.minimum_detectable
    assert verdict.minimum_detectable > 0.5
    comparison = Comparison(run_id="r", suite="s", baseline="b", scope="all", verdicts=(verdict,))
    assert (exit_code(comparison), exit_code(comparison, strict=True)) == (0, 11)


def test_constant_samples_and_unequal_counts_have_verdicts() -> None:
    sessions = stored(*(run_of(measured({"latency_s": [[1.0] * 5] * 3})) for _ in range(4)))
    assert only(compare(run_of(measured({"latency_s": [[1.0] * 3] * 3})), sessions)).outcome == "unchanged"
    assert only(compare(run_of(measured({"latency_s": [[1.005] * 3] * 3})), sessions)).outcome == "unchanged"
    assert only(compare(run_of(measured({"latency_s": [[1.02] * 3] * 3})), sessions)).outcome == "regressed"
    assert against(latency(1, 1, 1), {"latency_s": [[1.0, 1.0]] * 3}).outcome == "inconclusive"


def test_a_lone_alarm_among_many_rows_is_a_suspect() -> None:
    assert discoveries([0.001, 0.5, 0.02], 0.03) == [True, False, True]
    assert discoveries([0.004] + [0.5] * 9, 0.01) == [False] * 10
    assert discoveries([0.009] * 10, 0.01) == [True] * 10
    assert discoveries([], 0.01) == []
    cases = [Case(model=f"m{i}") for i in range(20)]
    levels = (1.0, 1.005, 1.0, 1.005)
    sessions = stored(*(run_of([m for c in cases for m in measured(latency(v, v, v), c)]) for v in levels))
    now = run_of([m for i, c in enumerate(cases) for m in measured(latency(*[1.05 if i == 0 else 1.0] * 3), c)])
    first, *rest = compare(now, sessions).verdicts
    assert first.outcome == "inconclusive"
    assert "suspect (regressed) and not confirmed, because 20 comparisons" in str(first.reason)
    assert {v.outcome for v in rest} == {"unchanged"}


def simulate(
    rng: np.random.Generator, sessions: int, slower: float, rows: int = 24, scale: float = 1.0
) -> list[list[Any]]:
    """Samples of each row, by session (this run last) and process; the three levels each have their noise."""
    noise = rng.normal(0, 0.015, (sessions + 1, 1, 1)) + rng.normal(0, 0.01, (sessions + 1, rows, 1))
    seconds = np.exp(scale * (noise + rng.normal(0, 0.02, (sessions + 1, rows, 3))))
    seconds[-1] *= slower
    return [[[[v] for v in seconds[s, r]] for s in range(sessions + 1)] for r in range(rows)]


def alarms(rng: np.random.Generator, sessions: int, slower: float) -> int:
    shifts = [shift_of(METRICS["latency_s"], row[:-1], row[-1]) for row in simulate(rng, sessions, slower)]
    confirmed = discoveries([s.p_value(+1) for s in shifts], 0.01)
    return sum(c and s.harm > s.threshold for c, s in zip(confirmed, shifts, strict=True))


@pytest.mark.parametrize(("sessions", "least_power"), [(FULL_SESSIONS, 0.6), (10, 0.99)])
def test_simulated_false_alarms_and_power(sessions: int, least_power: float) -> None:
    rng = np.random.default_rng(7)
    quiet = [alarms(rng, sessions, 1.0) for _ in range(100)]
    slower = [alarms(rng, sessions, 1.2) for _ in range(30)]
    assert sum(count > 0 for count in quiet) <= 2, "runs with any alarm where nothing changed"
    assert np.mean(slower) / 24 >= least_power, "share of the rows found where all are 20 % slower"


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_simulated_slowdown_of_five_percent_is_never_called_unchanged(scale: float) -> None:
    """On a shared machine, and on one with a fifth of its noise, which calls most of what is equal unchanged."""
    rng = np.random.default_rng(8)
    said = {}
    for slower in (1.0, 1.05):
        runs = [simulate(rng, 6, slower, scale=scale) for _ in range(40)]
        shifts = [shift_of(METRICS["latency_s"], row[:-1], row[-1]) for run in runs for row in run]
        said[slower] = np.mean([s.excluded and abs(s.harm) <= s.threshold for s in shifts])
    assert said[1.05] == 0
    assert said[1.0] >= (0.9 if scale < 1 else 0)
