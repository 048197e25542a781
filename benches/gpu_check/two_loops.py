"""Whether the time of two loops is twice that of one: work that is cached, or not waited for, is not linear."""

from __future__ import annotations

import statistics
from typing import Final

from harness.trial import Findings, Trial

STRETCH_S: Final = 0.05  # of one loop at least, so that a synchronisation is below a thousandth of it
LONGEST: Final = 2000  # iterations in one loop
ROUNDS: Final = 5
LONGEST_S: Final = 2.0  # after which no round is begun


def two_loops(trial: Trial) -> Findings:
    """The median over up to ROUNDS of the time of 2n iterations over that of n, which must be 2; the time of n is taken
    before and after, so that a clock that drifts cancels."""
    once = max(trial.timer.seconds(trial.step), 1e-7)
    count = min(max(1, round(STRETCH_S / once)), LONGEST)

    def total(iterations: int) -> float:
        return trial.timer.seconds(trial.step, iterations) * iterations

    ratios: list[float] = []
    began = trial.timer.now()
    while len(ratios) < ROUNDS and (not ratios or trial.timer.now() - began < LONGEST_S):
        before, double, after = total(count), total(2 * count), total(count)
        ratios.append(2 * double / (before + after))
    return Findings(facts={"two_loops_ratio": statistics.median(ratios), "two_loops_iterations": count})
