"""Decides a whole paired run while its pairs come in: which rows still need pairs, and what became of each.

    decision = PairedDecision(questions)
    while decision.wanted():
        ...measure a pair...; decision.record(row, {"latency_s": d}); decision.advance(share_of_budget_spent)
    decision.close()

Rounds. A round screens every open question; when all are screened, or SCREEN_SHARE of the time that was left is gone
and there are suspects, the suspects are confirmed on fresh pairs. They are then the family: Holm's step-down over their
p-values at FRESH_LEVEL / 2^round, so that all rounds together stay below FRESH_LEVEL. The family is fixed by the
screening pairs alone, and this alarm by fresh pairs alone, so looking early costs nothing. What is still open when the
suspects are settled, or a merely likely shift has had its look, is screened on in a further round.

All pairs. The same test over the screening and the fresh pairs together may raise the alarm as well, at POOLED_LEVEL
over all rows of the run, since a suspect was chosen by some of these pairs; and only where the fresh ones alone support
it. Both levels together are FAMILY_LEVEL. It needs 8 fresh pairs where the fresh ones alone need 16: with time for 12
rounds of pairs of all rows, at least a quarter more of the resampled runs catch +5 % (`tests/test_detector_table.py`
compares), and equal code alarms in none (`imgbench selftest --recorded FILE --rounds 12`). With more than 27 rows the
first look cannot pass, and a suspicion that came after 64 pairs is confirmed sooner by the fresh pairs alone.

The decision is a function of the pairs and of the share of the budget that was spent at each: a replay of the stored
ones gives the same, bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from baselines.paired.question import CONFIRM_LOOKS, FRESH_LEVEL, POOLED_LEVEL, SCREEN_LOOKS, Key, Phase, Question
from baselines.verdict import CONTENDED_SHARE

# 2: all pairs together may alarm, the outermost quarter of the turns is left out. 3: the run waits for a secondary
# metric or a control only while its fresh pairs make a shift likely.
RULE: Final = 4
SCREEN_SHARE: Final = 0.4
HOPELESS_AFTER: Final = 1 / 3  # of the budget: where most pairs were contended until then, the rest is not spent


@dataclass(frozen=True, kw_only=True)
class Count:
    """Pairs of the whole run, kept and dropped, over all rows, whichever of a row's metrics they were measured for."""

    kept: int
    dropped: int

    @property
    def contended(self) -> bool:
        return self.dropped > CONTENDED_SHARE * (self.kept + self.dropped)


class PairedDecision:
    """The state of a paired run. `phase` says what the pairs that come in now are used for."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions: dict[Key, Question] = {q.key: q for q in questions}
        if len(self.questions) != len(questions):
            raise ValueError("a question is asked twice")
        self.phase: Phase = "screen"
        self.round = 1
        self.gave_up = False
        self._began = 0.0
        self._rows = {q.key.row for q in questions if q.primary}
        self._kept: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def wanted(self) -> set[str]:
        """Rows (and controls) that need further pairs in this phase; empty when the run is decided."""
        if self.phase == "screen":
            return {q.key.row for q in self.questions.values() if q.primary and q.state == "open"}
        if self.phase == "confirm":
            return {q.key.row for q in self.questions.values() if self._waits(q)}
        return set()

    def record(self, row: str, shifts: Mapping[str, float], *, kept: bool = True) -> None:
        """One pair of one row: the log ratio of each metric (+ is worse); one that is not `kept` is only counted."""
        (self._kept if kept else self._dropped)[row] += 1
        for question in (q for q in self._of(row) if q.takes(self.phase)):
            if not kept:
                question.dropped += 1
            elif question.key.metric in shifts:
                question.record(shifts[question.key.metric])

    def abandon(self, row: str) -> None:
        """A row that failed in a block: it must not hold up the others."""
        for question in self._of(row):
            question.abandon()

    def advance(self, spent: float) -> None:
        """Looks where a look is due, and moves on to the next phase. `spent` is the share of the budget, 0 to 1."""
        if self.phase == "screen":
            for question in self.questions.values():
                question.screen()
            if self._screening_over(spent):
                self._begin_confirming()
        if self.phase == "confirm":
            for question in self.questions.values():
                question.confirm()
                if question.primary or question.control:
                    question.pool(self._sharing(question))
            for number in range(1, self.round + 1):
                self._holm(number, control=False)
                self._holm(number, control=True)
            self._pooled()
            if not any(self._waits(q) for q in self.questions.values()):
                self._begin_round(spent)

        if spent >= HOPELESS_AFTER and self.count().dropped > self.count().kept:
            self.gave_up = True
            self.close()

    def close(self) -> None:
        """The budget is spent: what is open stays undecided."""
        self.phase = "done"

    def count(self) -> Count:
        return Count(kept=sum(self._kept[row] for row in self._rows), dropped=sum(self._dropped[r] for r in self._rows))

    def _of(self, row: str) -> list[Question]:
        return [q for q in self.questions.values() if q.key.row == row]

    def _waits(self, question: Question) -> bool:
        """Whether the run stays in the confirmation for this question. What a look suspected of a latency is confirmed
        to its end. What was only likely at the end of the screening, controls, and secondary metrics wait for one look
        a round, so that open latencies are screened on meanwhile; not at all where their row's latency has alarmed, and
        no longer once their fresh pairs make a shift unlikely: pairs that come for other questions still count. (Where
        every latency waits for one look a round, less is caught.)"""
        if question.state != "suspect" or (question.primary and not question.only_likely):
            return question.state == "suspect"
        if question.deferred:
            return False
        settled = any(q.primary and q.state in {"regressed", "improved"} for q in self._of(question.key.row))
        if settled and not question.primary:
            return False
        looks = CONFIRM_LOOKS[: self.round] if self._open() else CONFIRM_LOOKS
        return len(question.confirmed) < looks[-1]

    def _open(self) -> bool:
        return any(q.primary and q.state == "open" for q in self.questions.values())

    def _screening_over(self, spent: float) -> bool:
        if not self._open():
            return True
        suspects = any(self._waits(q) for q in self.questions.values())
        share = self._began + SCREEN_SHARE * (1 - self._began)
        first_looks = all(
            len(q.screened) >= SCREEN_LOOKS[0] for q in self.questions.values() if q.primary and q.state == "open"
        )
        return suspects and first_looks and spent >= share

    def _begin_confirming(self) -> None:
        first = [q for q in self.questions.values() if q.primary or q.control]
        for question in first:
            question.suspect_if_likely()
        # A start-up or a tail is likely to shift in most rows: confirming all takes the time of suspected latencies.
        if not any(q.primary and q.state == "suspect" for q in first):
            for question in self.questions.values():
                question.suspect_if_likely()
        for question in self.questions.values():
            if question.state == "suspect" and question.family is None:
                question.family = self.round
        self.phase = "confirm"

    def _sharing(self, question: Question) -> int:
        """How many questions share the test of all pairs with this one: the rows, or the controls."""
        return len(self._rows) if question.primary else sum(q.control for q in self.questions.values())

    def _holm(self, number: int, *, control: bool) -> None:
        """Alarms of one round: Holm's step-down over all of its suspects, settled ones included. Controls, whose alarm
        only disarms, are a family of their own."""
        family = sorted(
            (q for q in self.questions.values() if q.family == number and q.control == control),
            key=lambda q: 1.0 if q.p_value is None else q.p_value,
        )
        for rank, question in enumerate(family):
            level = FRESH_LEVEL / 2**number / (len(family) - rank)
            if question.p_value is None or question.p_value > level:
                break
            if question.state == "suspect":
                place = f"Holm, {rank + 1} of {len(family)} suspects, round {number}"
                question.alarm(f"p = {question.p_value:.2g} <= {level:.2g} ({place})")
        for question in family:
            question.give_up_after_last_look()

    def _pooled(self) -> None:
        """Alarms of all pairs together: Bonferroni over every row (or control) of the run, suspected or not."""
        for question in self.questions.values():
            p_value = question.pooled_p_value
            if question.state == "suspect" and p_value is not None and p_value <= POOLED_LEVEL:
                question.alarm(f"p = {p_value:.2g} <= {POOLED_LEVEL:g} (both phases)", by_all_pairs=True)

    def _begin_round(self, spent: float) -> None:
        self.round += 1
        self._began = spent
        self.phase = "screen" if self._open() else "done"
