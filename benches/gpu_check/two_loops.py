"""Whether the time of two loops is twice that of one, because the time is not linear if work is cached or not waited
for. The probe also measures the cost of a synchronisation after each iteration."""

from __future__ import annotations

import statistics
from typing import Final

from harness.measuring.trial import Findings, Trial

STRETCH_S: Final = 0.05  # shortest duration of one loop: a synchronisation is then below a thousandth of it
LONGEST: Final = 2000  # iterations in one loop
ROUNDS: Final = 5
LONGEST_S: Final = 2.0  # after which no round starts
SINGLES: Final = 20  # iterations that are waited for one by one
SINGLES_S: Final = 0.5  # after which no further one starts


def two_loops(trial: Trial) -> Findings:
    """The median over up to ROUNDS of the time of 2n iterations over that of n, which must be 2; n iterations are
    timed before and after, so that a drift of the clock rate cancels.

    Fact `synchronisation_s`: how much longer an iteration takes if it is followed by a synchronisation than as one of
    many in a row. It includes the synchronisation itself and, where the GPU is faster than the host, the launches that
    no longer run ahead.
    """
    once = max(trial.timer.seconds(trial.step), 1e-7)
    count = min(max(1, round(STRETCH_S / once)), LONGEST)

    def total(iterations: int) -> float:
        return trial.timer.seconds(trial.step, iterations) * iterations

    ratios: list[float] = []
    began = trial.timer.now()
    while len(ratios) < ROUNDS and (not ratios or trial.timer.now() - began < LONGEST_S):
        before, double, after = total(count), total(2 * count), total(count)
        ratios.append(2 * double / (before + after))
    looped, began = total(count) / count, trial.timer.now()
    singles: list[float] = []
    while len(singles) < SINGLES and (not singles or trial.timer.now() - began < SINGLES_S):
        singles.append(total(1))
    return Findings(
        facts={
            "two_loops_ratio": statistics.median(ratios),
            "two_loops_iterations": count,
            "synchronisation_s": statistics.median(singles) - looped,
        }
    )
