"""imgbench's rule in the table: `PairedDecision` gets resampled pairs until it ends or the budget is spent.

The decision is the code of a real run. Only the order of the pairs (a round is one pair of each group that needs one)
and the budget, in measured rows, are simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from baselines.detector.drawn import Drawn, Source
from baselines.paired.decision import PairedDecision
from baselines.paired.metrics import PAIRED_METRICS
from baselines.paired.question import Key, Question

START_COST: Final = 1.0  # starting the two processes of a pair, in units of measuring one row in both


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The paired rule with a budget of `rounds` rounds in which every row is measured. The time of a row
    that ends early goes to the others, up to `longest` pairs of one row."""

    rounds: int = 32
    longest: int = 160

    def __call__(self, source: Source, slow: Mapping[str, float], generator: np.random.Generator) -> dict[str, str]:
        """Outcome by row of one run in which head's `slow` rows are slower by these shares.

        A row is regressed or improved if any of its metrics is; otherwise it has the outcome of its latency.
        """
        return outcomes(self.decided(source.draw(generator, self.longest).slowed(slow)))

    def decided(self, drawn: Drawn) -> PairedDecision:
        """The decision after the pairs of one run."""
        decision = PairedDecision(_questions(drawn))
        counts = dict.fromkeys(drawn.groups.values(), 0)
        budget = self.rounds * (len(counts) * START_COST + len(drawn.groups))
        spent = 0.0
        while (wanted := decision.wanted()) and spent < budget:
            for group in counts:
                rows = [row for row in wanted if drawn.groups[row] == group]
                if not rows:
                    continue
                pair = counts[group]
                if pair == self.longest:
                    spent = budget
                    break
                counts[group] += 1
                for row in sorted(rows):
                    _record(decision, drawn, row, pair)
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


def _record(decision: PairedDecision, drawn: Drawn, row: str, pair: int) -> None:
    shifts = {metric: float(values[pair]) for (its_row, metric), values in drawn.shifts.items() if its_row == row}
    contended = any(math.isnan(value) for value in shifts.values())
    decision.record(row, shifts, kept=not contended)


def _questions(drawn: Drawn) -> list[Question]:
    return [
        Question(key=Key(row=row, metric=asked.metric.name), sensitivity=asked.sensitivity, primary=asked.primary)
        for row in drawn.groups
        for asked in PAIRED_METRICS
        if (row, asked.metric.name) in drawn.shifts
    ]
