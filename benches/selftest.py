"""`imgbench selftest`: the gate measured through the whole pipeline, on this machine.

Every trial is a complete `imgbench ab` run: A/A (nothing differs), or a slow-down planted in one row of the head, a new
one in each trial. What is published is the share of trials that alarm, with its 95 % Wilson interval, and how often a
planted slow-down was called unchanged.

    A/A 0/20 runs [0, 16 %]; busy 3 % 5/6 [44, 97 %] caught, 0 called unchanged; ...; 2 cores; 180 s a run
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from baselines.verdict import Comparison
from harness.stats import wilson
from harness.types import Case

NOTHING: Final = "A/A"
PLANS: Final = (NOTHING, "busy=0.03", "busy=0.05", "busy=0.10", "copy=1", "tail=0.5", "startup=0.3")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run. `plan` is what was planted, `case_id` in which row (empty for A/A)."""

    plan: str
    case_id: str
    comparison: Comparison

    @property
    def alarms(self) -> set[str]:
        """Rows that were called regressed or improved on a timed metric."""
        timed = (v for v in self.comparison.verdicts if v.pairs is not None)
        return {v.case_id for v in timed if v.outcome in {"regressed", "improved"}}

    @property
    def caught(self) -> bool:
        return any(
            v.case_id == self.case_id and v.outcome == "regressed" and v.pairs is not None
            for v in self.comparison.verdicts
        )

    @property
    def missed(self) -> bool:
        """The metric that the slow-down is in was called unchanged."""
        metric = {"tail": "latency_p95_s", "startup": "startup_s"}.get(self.plan.partition("=")[0], "latency_s")
        return any(
            (v.case_id, v.metric, v.outcome) == (self.case_id, metric, "unchanged") for v in self.comparison.verdicts
        )


def trials(
    plans: Sequence[str], count: int, cases: Sequence[Case], measure: Callable[[str], Comparison]
) -> list[Trial]:
    """`count` runs of each plan, in turns, the planted row changing from run to run. `measure` takes the head's arm."""
    found = []
    for number in range(count):
        for plan in plans:
            case_id = "" if plan == NOTHING else cases[number % len(cases)].id
            arm = "" if plan == NOTHING else f"inject:{plan}@{case_id}"
            found.append(Trial(plan=plan, case_id=case_id, comparison=measure(arm)))
    return found


def line(found: Sequence[Trial]) -> str:
    """What the trials showed, in one line; contaminated runs are counted apart, since nothing is decided in them."""
    parts = []
    for plan in dict.fromkeys(trial.plan for trial in found):
        mine = [t for t in found if t.plan == plan]
        judged = [t for t in mine if not t.comparison.contaminated]
        disarmed = f", {len(mine) - len(judged)} disarmed" if len(judged) < len(mine) else ""
        if not judged:
            parts.append(f"{plan}: nothing judged{disarmed}")
        elif plan == NOTHING:
            alarms = sum(bool(t.alarms) for t in judged)
            parts.append(f"A/A {alarms}/{len(judged)} runs {_interval(alarms, len(judged))}{disarmed}")
        else:
            caught, missed = sum(t.caught for t in judged), sum(t.missed for t in judged)
            elsewhere = sum(bool(t.alarms - {t.case_id}) for t in judged)
            parts.append(
                f"{plan} {caught}/{len(judged)} caught {_interval(caught, len(judged))}, {missed} called unchanged, "
                f"{elsewhere} with an alarm elsewhere{disarmed}"
            )
    return "; ".join(parts)


def _interval(successes: int, count: int) -> str:
    low, high = wilson(successes, count)
    return f"[{low:.0%}, {high:.0%}]"
