"""What `compare` measures again, and that the second decision does not alarm more often than the rule allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from relative_fixture import compared, relative, session, slowed
from reports_fixture import make_comparison, make_run
from rounds_fixture import group_cases

from baselines.stored.noisy import shift_of
from baselines.stored.rows import rows_of
from baselines.stored.suspects import EXTRA, EXTRA_ROUNDS, suspects
from baselines.verdict import Verdict
from baselines.wording import ReasonKind, because
from harness.reasons import Reason, stated
from harness.types import Metric, Run

NO_REASON = stated("")
LATENCY = Metric(name="latency_s", unit="s", label="", better="lower", kind="noisy", description="")


def without_rounds() -> Run:
    """A run whose processes were all measured alone."""
    run = make_run()
    return replace(run, protocol=replace(run.protocol, rounds=False))


def verdict(case_id: str, outcome: Any, reason: Reason = NO_REASON, kind: str = "noisy") -> Verdict:
    return Verdict(case_id=case_id, label="", metric="latency_s", kind=kind, unit="s", outcome=outcome, reason=reason)


def test_what_is_called_changed_or_suspected_is_measured_again_and_nothing_else() -> None:
    run = without_rounds()
    ok = [row for row in rows_of(run).values() if row.ok][:4]
    ids = [row.case.id for row in ok]
    suspect = because(ReasonKind.SUSPECT, reason=NO_REASON, outcome="regressed", comparisons=40)
    verdicts = (
        verdict(ids[0], "regressed"),
        verdict(ids[1], "inconclusive", suspect),
        verdict(ids[2], "unchanged"),
        verdict(ids[3], "regressed", kind="exact"),
    )
    found = suspects(run, replace(make_comparison(), verdicts=verdicts, scope="all", refused=()))
    assert [case.id for case in found] == ids[:2]
    assert set(found.values()) == {run.protocol.replicates + EXTRA - len(ok[0].processes)}
    elsewhere = replace(make_comparison(), verdicts=verdicts, scope="machine-independent", refused=())
    assert suspects(run, elsewhere) == {}


def test_a_row_that_has_had_its_further_processes_is_decided() -> None:
    run = without_rounds()
    row = next(row for row in rows_of(run).values() if row.ok)
    more = [replace(row.processes[0], replicate=10 + i) for i in range(run.protocol.replicates + EXTRA)]
    measured = replace(run, measurements=(*run.measurements, *more))
    found = replace(make_comparison(), verdicts=(verdict(row.case.id, "regressed"),), scope="all", refused=())
    assert suspects(measured, found) == {}


SESSIONS = [session(seed) for seed in range(4)]
REFERENCE, ROW, _ = group_cases(1, 2)


def test_a_row_that_may_be_slower_than_its_group_gets_further_rounds_once() -> None:
    run = slowed(session(50), ROW.id, 1.02)
    found = compared(run, SESSIONS)
    assert relative(found)[ROW.id].outcome != "regressed"
    assert suspects(run, found)[ROW] == EXTRA_ROUNDS
    process = next(m for m in run.measurements if m.case == ROW and m.round is not None)
    further = replace(process, replicate=99, round=99, started="2026-01-02T00:00:01")
    extended = replace(run, measurements=(*run.measurements, further))
    assert ROW not in suspects(extended, found)
    assert ROW not in suspects(replace(run, finished=None), found)  # its own rounds are not complete


def test_a_row_that_is_faster_by_the_noise_of_the_run_gets_none() -> None:
    run = slowed(session(50), ROW.id, 1 / 1.015)
    assert ROW not in suspects(run, compared(run, SESSIONS))
    faster = slowed(session(50), ROW.id, 1 / 1.08)
    assert ROW in suspects(faster, compared(faster, SESSIONS))


def test_a_contended_run_gets_further_rounds_for_its_ratios() -> None:
    run = slowed(session(50), ROW.id, 1.02)
    found = replace(compared(run, SESSIONS), contended=(NO_REASON,))
    assert ROW in suspects(run, found)


def alarms(rng: np.random.Generator, shift: float) -> tuple[bool, bool]:
    """Whether one row alarms after 3 processes, and after EXTRA more of the same session; six stored sessions."""

    def session(level: float, count: int) -> list[list[float]]:
        disturbed = np.where(rng.random(count) < 0.1, rng.uniform(0.1, 0.6, count), 0.0)
        return [[float(v)] for v in np.exp(level + rng.normal(0, 0.02, count) + disturbed)]

    stored = [session(rng.normal(0, 0.015), 3) for _ in range(6)]
    today = rng.normal(0, 0.015) + shift
    here = session(today, 3)
    first = shift_of(LATENCY, stored, here)
    if first.p_value(1.0) > 0.01:
        return False, False
    second = shift_of(LATENCY, stored, here + session(today, EXTRA))
    return True, second.p_value(1.0) <= 0.01


def test_measuring_again_takes_false_suspicions_back_and_keeps_true_ones() -> None:
    rng = np.random.default_rng(0)
    equal = [alarms(rng, 0.0) for _ in range(4000)]
    first, second = (sum(one[i] for one in equal) for i in (0, 1))
    assert second < first
    assert second <= 0.01 * len(equal)
    slower = [alarms(rng, 0.20) for _ in range(400)]
    suspected, confirmed = (sum(one[i] for one in slower) for i in (0, 1))
    assert confirmed >= 0.95 * suspected > 0.5 * len(slower)
