"""The decision on a paired run during the measurement: which rows need further pairs, and their outcomes.

    decision = PairedDecision(questions)
    while decision.wanted():
        ...measure a pair...; decision.record(row, {"latency_s": d}); decision.advance(share_of_budget_spent)
    decision.close()

Rounds. A round screens every open question. Confirmation with fresh pairs begins when all questions are screened,
or when there are suspects and SCREEN_SHARE of the remaining time is spent. The suspects are one family: Holm's
step-down tests their p-values at FRESH_LEVEL / 2^round, so that all rounds together stay below FRESH_LEVEL. Only
screening pairs define the family, and only fresh pairs raise this alarm, so early looks do not increase the error rate.
The next round screens the open questions again. It begins when the suspects are settled, and each shift that was only
likely has had one look.

The test on all pairs. The same test on the screening and the fresh pairs together may also raise the alarm. Some of
these pairs selected the suspect. The level is therefore POOLED_LEVEL over all rows of the run, and the fresh pairs
alone must support the alarm. Both levels add up to FAMILY_LEVEL. This test needs 8 fresh pairs, and the test on fresh
pairs needs 16. With time for 12 rounds of pairs of all rows, it detects +5 % in at least a quarter more of the
resampled runs (`tests/test_detector_table.py`), and equal code raises no alarm (`imgbench selftest --recorded FILE
--rounds 12`). With more than 27 rows the first look cannot pass, and fresh pairs alone confirm a suspicion after 64
pairs sooner.

The decision is a function of the pairs and of the share of the budget that was spent at each pair. So a replay of the
stored pairs gives a bit-identical decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from baselines.paired.question import CONFIRM_LOOKS, FRESH_LEVEL, POOLED_LEVEL, SCREEN_LOOKS, Key, Phase, Question
from baselines.verdict import CONTENDED_SHARE

# Version 2: all pairs together may raise an alarm, and the outermost quarter of the turns is trimmed.
# Version 3: the run waits for a secondary metric or a control only while its fresh pairs make a shift likely.
# Version 4: memory and size on disk that differ are measured in three processes per arm. Times are decided as before.
RULE: Final = 4
SCREEN_SHARE: Final = 0.4
GIVE_UP_AFTER: Final = 1 / 3  # of the budget: if most pairs were contended by then, the run ends


@dataclass(frozen=True, kw_only=True)
class Count:
    """The kept and the dropped pairs of the run over all rows."""

    kept: int
    dropped: int

    @property
    def contended(self) -> bool:
        return self.dropped > CONTENDED_SHARE * (self.kept + self.dropped)


class PairedDecision:
    """The state of the decision on a paired run. `phase` says what the next pairs are used for."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions: dict[Key, Question] = {q.key: q for q in questions}
        if len(self.questions) != len(questions):
            raise ValueError("two questions have the same key")
        self.phase: Phase = "screen"
        self.round = 1
        self.gave_up = False
        self._began = 0.0
        self._rows = {q.key.row for q in questions if q.primary}
        self._kept: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def wanted(self) -> set[str]:
        """Rows (and controls) that need further pairs in this phase; empty if the run is decided."""
        if self.phase == "screen":
            return {q.key.row for q in self.questions.values() if q.primary and q.state == "open"}
        if self.phase == "confirm":
            return {q.key.row for q in self.questions.values() if self._waits(q)}
        return set()

    def record(self, row: str, shifts: Mapping[str, float], *, kept: bool = True) -> None:
        """Adds one pair of one row: the log ratio of each metric (positive is worse). A pair that is not `kept` is only
        counted."""
        (self._kept if kept else self._dropped)[row] += 1
        for question in (q for q in self._of(row) if q.takes(self.phase)):
            if not kept:
                question.dropped += 1
            elif question.key.metric in shifts:
                question.record(shifts[question.key.metric])

    def abandon(self, row: str) -> None:
        """Ends the questions of a row that failed, so that the others do not wait for it."""
        for question in self._of(row):
            question.abandon()

    def advance(self, spent: float) -> None:
        """Makes the planned looks that the pairs allow, and enters the next phase. `spent` is the share of the budget,
        0 to 1."""
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

        if spent >= GIVE_UP_AFTER and self.count().dropped > self.count().kept:
            self.gave_up = True
            self.close()

    def close(self) -> None:
        """Ends the run; open questions remain undecided."""
        self.phase = "done"

    def count(self) -> Count:
        return Count(kept=sum(self._kept[row] for row in self._rows), dropped=sum(self._dropped[r] for r in self._rows))

    def _of(self, row: str) -> list[Question]:
        return [q for q in self.questions.values() if q.key.row == row]

    def _waits(self, question: Question) -> bool:
        """Whether the confirmation continues for this question.

        A latency that a look suspected is confirmed to the end. Three kinds of questions get one look per round, so
        that open latencies are screened in between: latencies with a shift that was only likely at the end of the
        screening, controls, and secondary metrics. A secondary metric is not waited for if the latency of its row has
        raised an alarm. Secondary metrics and controls are not waited for once their fresh pairs make a shift unlikely.
        They still use the pairs that other questions need. (One look per round for all latencies detects fewer
        changes.)"""
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
        # In most rows a shift of the start-up or the tail is likely. Confirming it takes time from suspect latencies.
        if not any(q.primary and q.state == "suspect" for q in first):
            for question in self.questions.values():
                question.suspect_if_likely()
        for question in self.questions.values():
            if question.state == "suspect" and question.family is None:
                question.family = self.round
        self.phase = "confirm"

    def _sharing(self, question: Question) -> int:
        """The number of questions that share the test of all pairs: the rows, or the controls."""
        return len(self._rows) if question.primary else sum(q.control for q in self.questions.values())

    def _holm(self, number: int, *, control: bool) -> None:
        """Raises the alarms of one round: Holm's step-down over all of its suspects, including settled ones. Controls
        are a separate family, because their alarm only disarms the gate."""
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
        """Raises the alarms of the test on all pairs, with Bonferroni over all rows (or controls) of the run."""
        for question in self.questions.values():
            p_value = question.pooled_p_value
            if question.state == "suspect" and p_value is not None and p_value <= POOLED_LEVEL:
                question.alarm(f"p = {p_value:.2g} <= {POOLED_LEVEL:g} (both phases)", by_all_pairs=True)

    def _begin_round(self, spent: float) -> None:
        self.round += 1
        self._began = spent
        self.phase = "screen" if self._open() else "done"
