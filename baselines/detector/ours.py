"""imgbench's rule in the table of error rates: `PairedDecision` gets resampled pairs until it ends or the budget is
spent.

The decision runs the code of a real run. The order of the pairs (a round is one pair of each group that needs one) and
the budget (in measured rows) are simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from baselines.detector.drawn import ResampledRun, Source
from baselines.paired.decision import PairedDecision
from baselines.paired.metrics import PAIRED_METRICS
from baselines.paired.question import Key, Question

START_COST: Final = 1.0  # of starting the two processes of a pair; measuring one row in both costs 1


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The paired rule with a budget for `rounds` rounds of pairs of all rows. The time of a row that is decided early
    is used for the other rows, up to `longest` pairs of one row."""

    rounds: int = 32
    longest: int = 160

    def __call__(self, source: Source, slow: Mapping[str, float], generator: np.random.Generator) -> dict[str, str]:
        """The outcome of each row of one run, in which the head's `slow` rows are slower by the given shares.

        A row is regressed or improved if any of its metrics is; otherwise it has the outcome of its latency.
        """
        return outcomes(self.decided(source.draw(generator, self.longest).slowed(slow)))

    def decided(self, run: ResampledRun) -> PairedDecision:
        """The decision after the pairs of one run."""
        decision = PairedDecision(_questions(run))
        counts = dict.fromkeys(run.groups.values(), 0)
        budget = self.rounds * (len(counts) * START_COST + len(run.groups))
        spent = 0.0
        while (wanted := decision.wanted()) and spent < budget:
            for group in counts:
                rows = [row for row in wanted if run.groups[row] == group]
                if not rows:
                    continue
                pair = counts[group]
                if pair == self.longest:
                    spent = budget
                    break
                counts[group] += 1
                for row in sorted(rows):
                    _record(decision, run, row, pair)
                spent += START_COST + len(rows)
                decision.advance(min(1.0, spent / budget))
                wanted = decision.wanted()
        decision.close()
        return decision


def outcomes(decision: PairedDecision) -> dict[str, str]:
    """Outcome by row: regressed, improved, unchanged or inconclusive."""
    found: dict[str, str] = {}
    for question in decision.questions.values():
        if question.state in {"regressed", "improved"}:
            found[question.key.row] = question.state
        elif question.primary:
            unchanged = question.state == "unchanged" or (question.state == "dropped" and question.within_guarantee())
            found.setdefault(question.key.row, "unchanged" if unchanged else "inconclusive")
    return found


def _record(decision: PairedDecision, run: ResampledRun, row: str, pair: int) -> None:
    shifts = {metric: float(values[pair]) for (its_row, metric), values in run.shifts.items() if its_row == row}
    contended = any(math.isnan(value) for value in shifts.values())
    decision.record(row, shifts, kept=not contended)


def _questions(run: ResampledRun) -> list[Question]:
    return [
        Question(key=Key(row=row, metric=paired.metric.name), sensitivity=paired.sensitivity, primary=paired.primary)
        for row in run.groups
        for paired in PAIRED_METRICS
        if (row, paired.metric.name) in run.shifts
    ]
