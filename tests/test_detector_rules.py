"""The rules of other tools on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from baselines.detector import criterion, ranks
from baselines.detector.rules import RULES, pyperf_critical, repetitions

RULE_NAMES = list(RULES)


def noisy(count: int, centre: float = 1.0, sd: float = 0.01, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, sd, count)


def processes(rule: str, head_factor: float = 1.0, samples: int = 45) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As many processes as the tool takes, no differences between processes."""
    found = RULES[rule]
    base = [noisy(samples, seed=i) for i in range(found.base_processes)]
    head = [noisy(samples, seed=1000 + i) * head_factor for i in range(found.head_processes)]
    return base, head


@pytest.mark.parametrize("name", RULE_NAMES)
def test_a_shift_of_20_percent_is_seen_by_every_tool(name: str) -> None:
    assert RULES[name].decide(*processes(name, 1.2)) == "worse"


@pytest.mark.parametrize("name", RULE_NAMES)
def test_only_two_sided_tools_see_an_improvement(name: str) -> None:
    assert RULES[name].decide(*processes(name, 1 / 1.2)) == ("same" if RULES[name].one_sided else "better")


@pytest.mark.parametrize("name", RULE_NAMES)
def test_the_same_samples_in_both_arms_are_the_same(name: str) -> None:
    base, _ = processes(name)
    assert RULES[name].decide(base, base) == "same"


@pytest.mark.parametrize("name", RULE_NAMES)
def test_equal_constant_samples_are_the_same(name: str) -> None:
    rule = RULES[name]
    assert rule.decide([np.ones(20)] * rule.base_processes, [np.ones(20)] * rule.head_processes) == "same"


BLIND_WITHOUT_NOISE = {"nvbench legacy", "bencher t 0.99"}


@pytest.mark.parametrize("name", RULE_NAMES)
def test_tools_that_divide_by_the_noise_are_blind_without_any(name: str) -> None:
    rule = RULES[name]
    found = rule.decide([np.ones(20)] * rule.base_processes, [np.full(20, 1.25)] * rule.head_processes)
    assert found == ("same" if name in BLIND_WITHOUT_NOISE else "worse")


def test_pytest_benchmark_compares_means_with_5_percent() -> None:
    decide = RULES["pytest-benchmark mean:5%"].decide
    assert decide([np.array([1.0, 1.0])], [np.array([1.0, 1.099])]) == "same"
    assert decide([np.array([1.0, 1.0])], [np.array([1.0, 1.101])]) == "worse"
    assert decide([np.zeros(2)], [np.zeros(2)]) == "worse"  # a mean of 0 counts as infinitely much grown


def test_asv_needs_both_the_factor_and_the_test() -> None:
    decide = RULES["asv continuous"].decide
    base = [noisy(5, seed=1), noisy(5, seed=2)]
    assert decide(base, [1.08 * p for p in base]) == "same"  # significant, below the factor
    assert decide(base, [1.15 * p for p in base]) == "worse"
    wide = [np.array([1.0, 2.0, 3.0, 4.0, 5.0])] * 2
    assert decide(wide, [1.2 * p for p in wide]) == "same"  # beyond the factor, not significant


def test_asv_uses_intervals_where_few_samples_cannot_reach_its_p() -> None:
    assert ranks.smallest_p(5, 5) == 1 / 252  # above 0.002
    decide = RULES["asv continuous"].decide
    tight = np.array([0.99, 0.995, 1.0, 1.005, 1.01])
    assert decide([tight], [2 * tight]) == "worse"
    assert decide([tight[:2]], [1.15 * tight[:2]]) == "same"  # two samples: the interval is far wider than that


def test_pyperf_calls_what_it_cannot_test_significant() -> None:
    decide = RULES["pyperf compare_to"].decide
    base = [np.array([1.00, 1.02, 0.98])]
    assert decide(base, [np.array([1.001, 1.021, 0.981])]) == "same"
    assert decide(base, [np.array([1.00, 1.002])]) == "worse"  # unequal counts
    assert decide([np.array([1.0])], [np.array([1.0001])]) == "worse"  # one value each
    assert decide([np.ones(3)], [np.full(3, 1.0001)]) == "worse"  # no variance


def test_pyperf_has_a_table_of_t() -> None:
    assert [pyperf_critical(d) for d in (1, 10, 30, 31, 39, 40, 118, 200)] == [
        12.706,
        2.228,
        2.042,
        2.042,
        2.042,
        2.021,
        1.984,
        1.960,
    ]


def test_google_benchmark_has_no_smallest_difference() -> None:
    decide = RULES["google/benchmark U test"].decide
    base = np.linspace(1.0, 1.0008, 9)
    assert decide([base], [base + 0.001]) == "worse"  # 0.1 %
    assert decide([base], [base + 0.0002]) == "same"
    assert decide([np.array([1.0])], [np.array([2.0])]) == "same"  # one repetition: it says nothing


def test_criterion_ignores_changes_below_its_noise_threshold() -> None:
    base = noisy(100, sd=0.001)
    decide = RULES["criterion.rs"].decide
    assert decide([base], [1.008 * base]) == "same"
    assert criterion.t_test_p(1.008 * base, base) < 0.05
    assert decide([base], [1.02 * base]) == "worse"


def test_criterions_bootstrap_agrees_with_welchs_test() -> None:
    first, second = noisy(60, 1.003, seed=3), noisy(40, 1.0, seed=4)
    expected = scipy_stats.ttest_ind(first, second, equal_var=False).pvalue
    assert criterion.t_test_p(first, second) == pytest.approx(expected, abs=0.02)
    low, high = criterion.change_interval(first, second, 0.95)
    assert low < first.mean() / second.mean() - 1 < high


def test_nvbench_legacy_takes_the_smaller_noise() -> None:
    decide = RULES["nvbench legacy"].decide
    quiet, wild = np.tile([0.99, 1.01], 10), np.tile([0.7, 1.34], 10)  # the second one's mean is 1.02
    assert decide([quiet], [wild]) == "worse"
    assert decide([wild], [wild * 1.02]) == "same"
    assert decide([quiet[:4]], [2 * quiet[:4]]) == "same"  # below five samples the noise is infinite


def test_nvbench_robust_wants_a_gap_between_minimum_and_third_quartile() -> None:
    decide = RULES["nvbench robust"].decide
    base = np.array([1.00, 1.01, 1.02, 1.03, 9.0])  # [1.00, 1.03]: the outlier is outside
    assert decide([base], [base - 1.00 + 1.036]) == "worse"  # 0.58 % above 1.03
    assert decide([base], [base - 1.00 + 1.034]) == "same"  # 0.39 %
    assert decide([base - 1.00 + 1.036], [base]) == "better"


def test_bencher_bounds_the_next_value_by_its_history() -> None:
    decide = RULES["bencher t 0.99"].decide
    history = [np.array([v]) for v in (0.98, 0.99, 1.00, 1.01, 1.02)]
    bound = 1.0 + 3.7469 * 0.0158114 * math.sqrt(1.2)  # t(0.99, 4), sd, one new value
    assert decide(history, [np.array([bound - 0.001])]) == "same"
    assert decide(history, [np.array([bound + 0.001])]) == "worse"
    assert decide(history[:1], [np.array([9.0])]) == "same"  # one earlier value: no bound


def test_repetitions_are_means_of_stretches() -> None:
    found = repetitions([np.arange(7.0), np.array([10.0, 20.0])], 3)
    assert found.tolist() == [0.5, 2.5, 4.5, 10.0, 20.0]


@pytest.mark.parametrize(("m", "n", "step"), [(5, 7, 0.0), (12, 9, 0.0), (30, 25, 0.0), (9, 9, 0.5), (6, 20, 0.5)])
def test_u_test_is_scipys(m: int, n: int, step: float) -> None:
    first, second = noisy(m, 0.0, 1.0, seed=m), noisy(n, 0.6, 1.0, seed=100 + n)
    if step:
        first, second = np.round(first / step), np.round(second / step)
    expected = scipy_stats.mannwhitneyu(first, second, alternative="two-sided").pvalue
    assert ranks.mann_whitney_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_asvs_u_test_breaks_ties_against_significance() -> None:
    first, second = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    assert ranks.mann_whitney_conservative(first, second) == pytest.approx(2 / 20)
    tied = np.array([3.0, 5.0, 6.0])
    assert ranks.mann_whitney_conservative(first, tied) == pytest.approx(4 / 20)  # the tie counts against it
