"""The rules of exact values, memory, energy and quality, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from baseline_fixture import (
    MIB,
    against,
    measured,
    only,
    run_of,
    stored,
)

from baselines.stored.compare import compare
from baselines.stored.rules import mcnemar
from baselines.verdict import exit_code
from harness.types import IDENTICAL, Run


def test_exact_values() -> None:
    assert against({"parameters": [5.0]}, {"parameters": [5.0]}).outcome == "unchanged"
    other = against({"parameters": [5.0]}, {"parameters": [6.0]})
    assert (other.outcome, str(other.reason)) == (
        "not_comparable",
        "the value changed from 5 to 6, because the work differs",
    )
    assert against({"weights_bytes": [100.0]}, {"weights_bytes": [101.0]}).outcome == "regressed"
    assert against({"weights_bytes": [100.0]}, {"weights_bytes": [99.0]}).outcome == "improved"
    varying = against({"parameters": [5.0]}, {"parameters": [[5.0], [6.0], [5.0]]})
    assert (varying.outcome, str(varying.reason)) == (
        "not_comparable",
        "an exact metric has several values in one run: 5, 6",
    )


@pytest.mark.parametrize(
    ("then", "now", "outcome"),
    [
        (100 * MIB, 102 * MIB, "unchanged"),  # 2 MiB is more than 0.5 %
        (100 * MIB, 102 * MIB + 1, "regressed"),
        (1000 * MIB, 1005 * MIB, "unchanged"),  # 0.5 % is more than 2 MiB
        (1000 * MIB, 1005 * MIB + 1, "regressed"),
        (1000 * MIB, 990 * MIB, "improved"),
    ],
)
def test_near_exact(then: float, now: float, outcome: str) -> None:
    assert against({"peak_allocated_bytes": [then]}, {"peak_allocated_bytes": [now]}).outcome == outcome


def memory(*mebibytes: float) -> Run:
    """A run of three processes with these peaks."""
    return run_of(measured({"peak_allocated_bytes": [[v * MIB] for v in mebibytes]}))


@pytest.mark.parametrize(("now", "outcome"), [(142.0, "unchanged"), (143.0, "regressed"), (178.0, "regressed")])
def test_near_exact_does_not_widen_with_what_was_accepted(now: float, outcome: str) -> None:
    """A growth from 100 to 140 MiB that was accepted once is the new normal, and no permission for the next."""
    sessions = stored(*(memory(v, v, v) for v in (100.0, 140.0, 140.0)))
    verdict = only(compare(memory(now, now, now), sessions))
    assert (verdict.outcome, verdict.baseline) == (outcome, 140.0 * MIB)


@pytest.mark.parametrize(("now", "outcome"), [(114.0, "unchanged"), (115.0, "regressed")])
def test_near_exact_is_no_finer_than_the_processes_of_its_sessions(now: float, outcome: str) -> None:
    sessions = stored(memory(100.0, 104.0, 102.0), memory(100.0, 160.0, 100.0), memory(106.0, 110.0, 108.0))
    assert only(compare(memory(now, now - 1, now), sessions)).outcome == outcome


@pytest.mark.parametrize(("now", "outcome"), [(10.9, "unchanged"), (11.2, "regressed"), (8.0, "improved")])
def test_energy(now: float, outcome: str) -> None:
    verdict = against({"energy_per_image_j": [10.0]}, {"energy_per_image_j": [now]})
    assert (verdict.outcome, verdict.gating) == (outcome, True)


def test_advisory_metrics_are_not_judged() -> None:
    """Noise of which nothing is known is never sold as a regression."""
    both = {"load_s": [1.0], "parameters": [1.0]}
    found = compare(run_of(measured({**both, "load_s": [5.0]})), stored(run_of(measured(both))))
    assert [v.metric for v in found.verdicts] == ["parameters"]
    assert exit_code(found) == 0


def test_a_run_with_nothing_to_judge_measured_nothing() -> None:
    assert exit_code(compare(run_of(measured({"load_s": [5.0]})), stored(run_of(measured({"load_s": [1.0]}))))) == 13


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 0) == 1.0
    assert mcnemar(8, 0) == 2 / 2**8
    assert mcnemar(9, 1) == mcnemar(1, 9) == 2 * (1 + 10) / 2**10
    assert mcnemar(5, 5) == 1.0


@pytest.mark.parametrize(
    ("lost", "won", "outcome"),
    [
        (7, 0, "inconclusive"),
        (8, 0, "regressed"),
        (0, 8, "improved"),
        (9, 1, "inconclusive"),
        (4, 3, "inconclusive"),
        (3, 3, "unchanged"),
        (0, 0, "unchanged"),
        (12, 1, "regressed"),
    ],
)
def test_items(lost: int, won: int, outcome: str) -> None:
    then = [1.0] * lost + [0.0] * won + [1.0] * (100 - lost - won)
    now = [0.0] * lost + [1.0] * won + [1.0] * (100 - lost - won)
    verdict = against({"top1": then}, {"top1": now})
    assert verdict.outcome == outcome
    if lost + won:
        told = f"{lost + won} of 100 items flipped ({lost + won}.0 %): {lost} lost, {won} won; "
        assert str(verdict.reason).startswith(told)
    assert verdict.baseline == (100 - won) / 100


def test_items_in_equal_number_on_both_sides_still_show_their_flips() -> None:
    verdict = against({"top1": [1.0, 0.0] * 5}, {"top1": [0.0, 1.0] * 5})
    assert (verdict.outcome, verdict.ratio) == ("inconclusive", 1.0)
    assert "10 of 10 items flipped (100.0 %)" in str(verdict.reason)
    assert "a change of 55.5 % is not excluded" in str(verdict.reason)


def test_items_that_cannot_be_paired() -> None:
    other_count = against({"top1": [1.0] * 10}, {"top1": [1.0] * 9})
    assert (other_count.outcome, str(other_count.reason)) == (
        "not_comparable",
        "there are 9 items here and 10 in the baseline",
    )
    assert against({"top1": [1.0, 0.5]}, {"top1": [1.0, 0.0]}).outcome == "not_comparable"
    assert against({"top1": [1.0] * 7}, {"top1": [0.0] * 7}).outcome == "inconclusive", "7 items can never reach 1 %"


@pytest.mark.parametrize(
    ("then", "now", "outcome"),
    [(50.0, 55.0, "unchanged"), (50.0, 56.0, "regressed"), (50.0, 40.0, "improved"), (-0.001, 0.003, "unchanged")],
)
def test_sets(then: float, now: float, outcome: str) -> None:
    assert against({"fid": [then]}, {"fid": [now]}).outcome == outcome


@pytest.mark.parametrize(
    "conditions", [{"items": 20, "reference_hash": "r1"}, {"items": 10, "reference_hash": "r2"}, None]
)
@pytest.mark.parametrize("name", ["fid", "top1"])
def test_quality_of_other_conditions(conditions: Any, name: str) -> None:
    now = run_of(measured({name: [1.0]}, quality_conditions=conditions))
    verdict = only(compare(now, stored(run_of(measured({name: [1.0]})))))
    assert verdict.outcome == "not_comparable"
    assert "conditions" in str(verdict.reason)


@pytest.mark.parametrize(
    ("name", "then", "now", "outcome"),
    [
        ("psnr_db", 30.0, 29.5, "unchanged"),
        ("psnr_db", 30.0, 29.4, "regressed"),
        ("psnr_db", 90.0, 62.0, "unchanged"),
        ("psnr_db", 90.0, 59.0, "regressed"),
        ("cosine_similarity", 0.999, 0.990, "unchanged"),
        ("cosine_similarity", 0.999, 0.980, "regressed"),
        ("cosine_similarity", 0.980, 0.999, "improved"),
    ],
)
def test_continuous(name: str, then: float, now: float, outcome: str) -> None:
    assert against({name: [then]}, {name: [now]}).outcome == outcome


def test_identical_pictures_have_no_psnr_and_are_not_missing() -> None:
    number = run_of(measured({"psnr_db": [30.0]}))
    identical = run_of(measured({"parameters": [1.0]}, missing={"psnr_db": IDENTICAL}))
    outcomes = {}
    for words, then, now in [("then", identical, number), ("now", number, identical), ("both", identical, identical)]:
        verdicts = compare(now, stored(then)).verdicts
        outcomes[words] = next(v.outcome for v in verdicts if v.metric == "psnr_db")
    assert outcomes == {"then": "regressed", "now": "improved", "both": "unchanged"}
