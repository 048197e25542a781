"""`imgbench selftest`: the gate measured through the whole pipeline, on this machine.

Every trial is a complete `imgbench ab` run: A/A (nothing differs), or a slow-down planted in a row of the head (or in
several), other rows in each trial. What is published is the share of A/A runs that alarm and of planted rows that are
caught, with their 95 % Wilson intervals, and how often a planted slow-down was called unchanged.

    A/A 0/20 runs [0, 16 %]; busy=0.03 5/6 rows caught [44, 97 %], 0 called unchanged; ...

Trials can be kept in a file, a JSON line each, so that hours of them add up: `append`, `stored`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from baselines.verdict import Comparison
from harness.stats import wilson
from harness.storage import UnreadableRun, record
from harness.types import Case

NOTHING: Final = "A/A"
PLANS: Final = (NOTHING, "busy=0.03", "busy=0.05", "busy=0.10", "copy=1", "tail=0.5", "startup=0.3")
METRIC_OF: Final = {"tail": "latency_p95_s", "startup": "startup_s"}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Where and when a trial ran: `elapsed_s` of its `budget_s` seconds were used; `apart` tells that each arm had a
    fork server of its own."""

    created: str
    cpu: str
    cores: int
    threads: int
    suite: str
    commit: str
    budget_s: float
    elapsed_s: float
    apart: bool


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run. `plan` is what was planted, `planted` in which rows (none for A/A), by the id of their case. `alarms`
    are the rows that were called regressed or improved on a timed metric; `caught` the planted ones that were called
    regressed; `missed` those whose metric with the slow-down was called unchanged; `unchanged` counts the rows of
    `rows` whose latency was called so."""

    plan: str
    planted: tuple[str, ...]
    alarms: tuple[str, ...]
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    contaminated: bool
    rows: int
    unchanged: int
    conditions: Conditions


def trial(plan: str, planted: Sequence[str], comparison: Comparison, conditions: Conditions) -> Trial:
    """What a decided run says of the gate."""
    timed = [v for v in comparison.verdicts if v.pairs is not None]
    alarms = {v.case_id for v in timed if v.outcome in {"regressed", "improved"}}
    regressed = {v.case_id for v in timed if v.outcome == "regressed"}
    metric = METRIC_OF.get(plan.partition("=")[0], "latency_s")
    latency = [v for v in timed if v.metric == "latency_s"]
    equal = {v.case_id for v in timed if (v.metric, v.outcome) == (metric, "unchanged")}
    return Trial(
        plan=plan,
        planted=tuple(planted),
        alarms=tuple(sorted(alarms)),
        caught=tuple(row for row in planted if row in regressed),
        missed=tuple(row for row in planted if row in equal),
        contaminated=bool(comparison.contaminated),
        rows=len(latency),
        unchanged=sum(v.outcome == "unchanged" for v in latency),
        conditions=conditions,
    )


def trials(
    plans: Sequence[str],
    count: int,
    cases: Sequence[Case],
    measure: Callable[[str], tuple[Comparison, Conditions]],
    before: Sequence[Trial] = (),
    rows: int = 1,
) -> Iterator[Trial]:
    """`count` runs of each plan, in turns, with the slow-down in `rows` rows, the next ones in every run, on from those
    of `before`. `measure` takes the head's arm."""
    done: Counter[str] = Counter()
    for old in before:
        done[old.plan] += len(old.planted)
    for _ in range(count):
        for plan in plans:
            planted = [cases[(done[plan] + i) % len(cases)].id for i in range(min(rows, len(cases)))]
            planted = [] if plan == NOTHING else planted
            done[plan] += len(planted)
            arm = ",".join(f"inject:{plan}@{case_id}" for case_id in planted)
            yield trial(plan, planted, *measure(arm))


def append(path: Path, found: Trial) -> None:
    """Adds one trial to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")


def stored(path: Path) -> list[Trial]:
    """Every trial of the file, in order; none where there is no file. Raises UnreadableRun."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [_read(path, number, line) for number, line in enumerate(lines, start=1)]


def _read(path: Path, number: int, line: str) -> Trial:
    try:
        entry = json.loads(line)
        conditions = record(Conditions, entry["conditions"])
        lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
        return record(Trial, {**entry, **lists, "conditions": conditions})
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableRun(f"{path} line {number}: {error}") from None


def line(found: Sequence[Trial]) -> str:
    """What the trials showed, in one line; contaminated runs are counted apart, since nothing is decided in them."""
    parts = [_part(plan, [t for t in found if t.plan == plan]) for plan in dict.fromkeys(t.plan for t in found)]
    return "; ".join([*parts, *_where(found)])


def _part(plan: str, mine: Sequence[Trial]) -> str:
    judged = [t for t in mine if not t.contaminated]
    disarmed = f", {len(mine) - len(judged)} disarmed" if len(judged) < len(mine) else ""
    if not judged:
        return f"{plan}: nothing judged{disarmed}"
    if plan == NOTHING:
        alarms = sum(bool(t.alarms) for t in judged)
        rows, unchanged = sum(t.rows for t in judged), sum(t.unchanged for t in judged)
        decided = f", {unchanged} of {rows} rows called unchanged"
        return f"A/A {alarms}/{len(judged)} runs {_interval(alarms, len(judged))}{decided}{disarmed}"
    caught, missed = sum(len(t.caught) for t in judged), sum(len(t.missed) for t in judged)
    planted = sum(len(t.planted) for t in judged)
    elsewhere = sum(bool(set(t.alarms) - set(t.planted)) for t in judged)
    return (
        f"{plan} {caught}/{planted} rows caught {_interval(caught, planted)}, {missed} called unchanged, "
        f"{elsewhere} of {len(judged)} runs with an alarm elsewhere{disarmed}"
    )


def _where(found: Sequence[Trial]) -> list[str]:
    """The machines, and how long a run took, in words."""
    if not found:
        return ["no trial yet"]
    machines = dict.fromkeys(f"{t.conditions.cores} cores of {t.conditions.cpu}" for t in found)
    budgets = sorted({t.conditions.budget_s for t in found})
    hours = sum(t.conditions.elapsed_s for t in found) / 3600
    asked = " or ".join(f"{budget / 60:g}" for budget in budgets)
    return [*machines, f"{asked} min a run, {hours:.1f} h in all"]


def _interval(successes: int, count: int) -> str:
    low, high = wilson(successes, count)
    return f"[{low:.0%}, {high:.0%}]"
