"""Whether two loops take twice as long as one. Work that is cached or not waited for does not scale linearly."""

from __future__ import annotations

import statistics
from typing import Final

from harness.trial import Findings, Trial

STRETCH_S: Final = 0.05  # shortest duration of one loop: a synchronisation is then below a thousandth of it
LONGEST: Final = 2000  # iterations in one loop
ROUNDS: Final = 5
LONGEST_S: Final = 2.0  # after which no round is started


def two_loops(trial: Trial) -> Findings:
    """The time of 2n iterations divided by that of n, as the median over up to ROUNDS rounds; it must be 2. The time of
    n is taken before and after that of 2n, so that a drift of the clocks cancels."""
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
