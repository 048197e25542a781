"""Whether the time of two loops is twice that of one, since work that is cached or not waited for is not linear; and
what it costs to synchronise after each iteration."""

from __future__ import annotations

import statistics
from typing import Final

from harness.measuring.trial import Findings, Trial

STRETCH_S: Final = 0.05  # shortest duration of one loop: a synchronisation is then below a thousandth of it
LONGEST: Final = 2000  # iterations in one loop
ROUNDS: Final = 5
LONGEST_S: Final = 2.0  # after which no round is begun
SINGLES: Final = 20  # iterations that are waited for one by one
SINGLES_S: Final = 0.5  # after which no further one is begun


def two_loops(trial: Trial) -> Findings:
    """The median over up to ROUNDS of the time of 2n iterations over that of n, which must be 2; the time of n is taken
    before and after, so that a clock that drifts cancels.

    Fact `synchronisation_s`: how much longer an iteration takes that is waited for alone than one of many in a row. It
    holds the synchronisation itself and, where the GPU is faster than the host, the launches that no longer run ahead.
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
