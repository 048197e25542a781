"""The decision rules of other tools, implemented from their source code, on processes of samples.

    RULES["pyperf compare_to"].decide(base, head)     # "worse", "better" or "same"

`base` and `head` are lists of processes, and a process is an array of seconds. A repetition of a tool is the mean of
several iterations. Here it is the mean of a segment of consecutive samples, with `values` segments per process. The
number of processes and every threshold are the defaults of the tool.

The simulation favours the tools: base and head are measured one directly after the other. In practice a stored baseline
or a history comes from another job, and differs more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import special

from baselines.detector.criterion import CONFIDENCE, SIGNIFICANCE, THRESHOLD, change_interval, t_test_p
from baselines.detector.drawn import Array
from baselines.detector.ranks import location_interval, mann_whitney_conservative, mann_whitney_p, smallest_p

Call = Literal["worse", "better", "same"]
Decide = Callable[[Sequence[Array], Sequence[Array]], Call]

NVBENCH_MIN_SAMPLES: Final = 5
PYPERF_STEPS: Final = ((200, 1.960), (100, 1.984), (80, 1.990), (60, 2.000), (50, 2.009), (40, 2.021), (31, 2.042))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A tool's rule. `base_processes` and `head_processes` are the defaults of the tool. A `one_sided` tool never
    decides "better". `source` is the version of the tool."""

    name: str
    decide: Decide
    base_processes: int
    head_processes: int
    source: str
    one_sided: bool = False


def repetitions(processes: Sequence[Array], values: int) -> Array:
    """`values` repetitions of each process, pooled. A repetition is the mean of a segment, and segments are equally
    long. A process with fewer samples has fewer repetitions."""
    found = []
    for process in processes:
        count = min(values, len(process))
        size = len(process) // count
        found.append(process[: count * size].reshape(count, size).mean(axis=1))
    return np.concatenate(found)


def pytest_benchmark(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """`--benchmark-compare-fail=mean:5%`: worse if the mean of all rounds grew by more than 5 %, and never better.

    Growth from a mean of 0 is infinite. Source: pytest_benchmark/utils.py, PercentageRegressionCheck.
    """
    there, here = float(np.concatenate(base).mean()), float(np.concatenate(head).mean())
    change = here / there * 100 - 100 if there else float("inf")
    return "worse" if change > 5 else "same"


def asv(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """`asv continuous`: medians differ by more than the factor 1.1, and a Mann-Whitney U test has p < 0.002.

    If there are too few samples to reach that p-value, the 99 % intervals of the medians must be disjoint. There are
    two processes of up to five samples ("rounds", "repeat"). Source: asv/commands/compare.py `_is_result_better`,
    asv/_stats.py `is_different`, asv_runner/statistics.py `compute_stats`, asv_runner/benchmarks/time.py.
    """
    there, here = repetitions(base, 5), repetitions(head, 5)
    if smallest_p(len(there), len(here)) < 0.002:
        different = mann_whitney_conservative(there, here) < 0.002
    else:
        (low, high), (other_low, other_high) = location_interval(there), location_interval(here)
        different = high < other_low or other_high < low
    old, new = float(np.median(there)), float(np.median(here))
    if not different:
        return "same"
    return "worse" if old < new / 1.1 else "better" if new < old / 1.1 else "same"


def pyperf(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """`pyperf compare_to`: Student's t-test of the pooled values, 95 % two-tailed, without a smallest difference.

    Cases that its test does not cover (unequal counts, no variance, a single value each) count as significant, and the
    means then decide. The values of 20 processes, 3 of each, are pooled. Source: pyperf/_compare.py
    `is_significant_benchs`, pyperf/_utils.py `is_significant`, `tdist95conf_level`, pyperf/_runner.py.
    """
    there, here = repetitions(base, 3), repetitions(head, 3)
    difference = float(here.mean() - there.mean())
    call: Call = "worse" if difference > 0 else "better" if difference < 0 else "same"
    if len(there) != len(here) or len(there) == 1:
        return call
    error = (there.var(ddof=1) + here.var(ddof=1)) / len(there)
    if error == 0:
        return call
    return call if abs(difference) / error**0.5 >= pyperf_critical(2 * len(there) - 2) else "same"


def pyperf_critical(degrees: int) -> float:
    """pyperf's critical value of t: with three decimals up to 30 degrees of freedom, and from a table above."""
    for least, value in PYPERF_STEPS:
        if degrees >= least:
            return value
    return round(float(special.stdtrit(degrees, 0.975)), 3)


def criterion(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """criterion.rs: a bootstrapped t-test of the means has p < 0.05, and the 95 % interval of the change lies above 1 %
    or below -1 %.

    Source: src/analysis/compare.rs, src/stats/mod.rs `p_value`, src/report.rs `compare_to_threshold`, defaults in
    src/lib.rs (significance_level 0.05, noise_threshold 0.01, confidence_level 0.95).
    """
    there, here = np.concatenate(base), np.concatenate(head)
    if not t_test_p(here, there) < SIGNIFICANCE:
        return "same"
    low, high = change_interval(here, there, CONFIDENCE)
    return "worse" if low > THRESHOLD else "better" if high < -THRESHOLD else "same"


def google_benchmark(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """`compare.py` with 9 repetitions: two-sided Mann-Whitney U test, alpha 0.05, without a smallest difference.

    Below 9 repetitions it warns, but still prints its p-value. Below 2 it prints nothing. The medians give the
    direction. Source: tools/gbench/report.py `calc_utest`, `print_utest`; tools/compare.py `--alpha`.
    """
    there, here = repetitions(base, 9), repetitions(head, 9)
    if min(len(there), len(here)) < 2 or mann_whitney_p(there, here) >= 0.05:
        return "same"
    difference = float(np.median(here) - np.median(there))
    return "worse" if difference > 0 else "better" if difference < 0 else "same"


def nvbench_legacy(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """`nvbench-compare-legacy`: the means differ by more than the smaller of the two relative standard deviations.

    The tool prints "????" (here "same") if neither arm has noise. Below 5 samples the noise is infinite. Source:
    python/scripts/nvbench_compare.py; nvbench/detail/statistics.cuh.
    """
    there, here = np.concatenate(base), np.concatenate(head)
    noises = [float(v.std(ddof=1) / v.mean()) for v in (there, here) if len(v) >= NVBENCH_MIN_SAMPLES]
    known = [noise for noise in noises if noise > 0]
    change = float(here.mean() / there.mean() - 1)
    if not known or abs(change) <= min(known):
        return "same"
    return "better" if change < 0 else "worse"


def nvbench_robust(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """`nvbench-compare-robust`: the intervals [minimum, third quartile] have a gap of at least 0.5 %.

    Everything else is SAME or AMBG in the tool, and "same" here. The tool confirms the gap in clock cycles. Here the
    clock is constant, so the gap is always confirmed. Source: python/scripts/nvbench_compare_robust.py
    `compare_intervals_for_clear_gap`, docs/nvbench_compare_robust.md (preset "default").
    """
    (low, high), (other_low, other_high) = (_nvbench_interval(np.concatenate(arm)) for arm in (base, head))
    if other_low > high and (other_low - high) / high >= 0.005:
        return "worse"
    return "better" if other_high < low and (low - other_high) / other_high >= 0.005 else "same"


def _nvbench_interval(values: Array) -> tuple[float, float]:
    ordered = np.sort(values)
    return float(ordered[0]), float(ordered[(75 * (len(ordered) - 1) + 50) // 100])


def bencher(base: Sequence[Array], head: Sequence[Array]) -> Call:
    """Bencher's default threshold: the new mean is above the 99 % t prediction bound of up to 64 earlier ones.

    A history of one value, or of equal values, has no bound and raises no alarm. By default there is no lower bound.
    Source: lib/bencher_boundary/src/limits/mod.rs `new_normal`, mean.rs;
    lib/bencher_valid/src/model/mod.rs `upper_boundary`.
    """
    history = np.array([process.mean() for process in base])
    count = len(history)
    deviation = float(history.std(ddof=1)) if count > 1 else 0.0
    if deviation == 0:
        return "same"
    quantile = float(special.stdtrit(count - 1, 0.99))
    bound = float(history.mean()) + quantile * deviation * (1 + 1 / count) ** 0.5
    return "worse" if float(np.concatenate(head).mean()) > bound else "same"


def _rule(
    name: str, decide: Decide, processes: tuple[int, int], source: str, *, one_sided: bool = False
) -> tuple[str, Rule]:
    base, head = processes
    return name, Rule(
        name=name, decide=decide, base_processes=base, head_processes=head, source=source, one_sided=one_sided
    )


RULES: Final[dict[str, Rule]] = dict(
    (
        _rule("pytest-benchmark mean:5%", pytest_benchmark, (1, 1), "pytest-benchmark 5.3.1", one_sided=True),
        _rule("asv continuous", asv, (2, 2), "asv 0.6.6"),
        _rule("pyperf compare_to", pyperf, (20, 20), "pyperf 2.10.0"),
        _rule("criterion.rs", criterion, (1, 1), "bheisler/criterion.rs@567405d"),
        _rule("google/benchmark U test", google_benchmark, (1, 1), "google/benchmark@267a1115"),
        _rule("nvbench legacy", nvbench_legacy, (1, 1), "NVIDIA/nvbench@66212f1"),
        _rule("nvbench robust", nvbench_robust, (1, 1), "NVIDIA/nvbench@66212f1"),
        _rule("bencher t 0.99", bencher, (64, 1), "bencherdev/bencher@8d75325c3", one_sided=True),
    )
)
