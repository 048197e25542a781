"""`imgbench selftest`: the error rates of the gate on this machine, measured by complete runs.

Each trial is a complete `imgbench ab` run: A/A (nothing differs), or with a slow-down planted in one or more rows of
the head, in other rows each time. The result is the share of A/A runs with an alarm and the share of planted rows that
are caught (called regressed), with their 95 % Wilson intervals, and how often a planted row was called unchanged.

    A/A 0/20 [0 %, 16 %]; +3 % 83 % [44 %, 97 %]; +5 % 100 % [88 %, 100 %]; 2 cores of AMD EPYC (AVX2); 2.1 h
    A/A: 20 runs, 0 with an alarm, 228 of 240 rows called unchanged, 2 disarmed, 6 with a fork server for each arm
    +3 %: 5 of 6 rows caught, 0 called unchanged, 0 of 2 runs with an alarm elsewhere
    ...

A planted row counts as missed if a metric that the slow-down changes by its size is called unchanged: latency and its
p95 for a busy-wait, the p95 for a slow tail, the start-up time for a slow start. `append` and `stored` keep trials in a
file, one JSON line each, so that trials of several commands are counted together.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from baselines.verdict import Comparison, Verdict
from baselines.wording import ReasonKind
from harness.stats import wilson
from harness.storage import UnreadableRun, record
from harness.types import Case

NOTHING: Final = "A/A"
PLANS: Final = (
    NOTHING,
    *(f"busy={share}" for share in ("0.01", "0.02", "0.03", "0.05", "0.10")),
    *("copy=1", "tail=0.5", "startup=0.3"),
)
LARGE: Final = 0.1  # a verdict "did not change by more" excludes a change of this size in the tail or the start-up
MOVED: Final = {
    "busy": {"latency_s", "latency_p95_s"},
    "copy": {"latency_s"},
    "tail": {"latency_p95_s"},
    "startup": {"startup_s"},
}
FORMER_CONTENDED: Final = "contaminated"  # the key of earlier versions, in which the shipped trials are stored


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Where and when a trial ran: `elapsed_s` of its `budget_s` seconds were used; `apart` says that each arm had a
    fork server of its own; `isa` is the CPU's instruction set as torch names it, None in older trials."""

    created: str
    cpu: str
    cores: int
    threads: int
    suite: str
    commit: str
    budget_s: float
    elapsed_s: float
    apart: bool
    isa: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run. `plan` is what was planted, `planted` in which rows (none for A/A), by the id of their case. `alarms`
    are the rows that were called regressed or improved on a timed metric; `caught` the planted ones that were called
    regressed; `missed` those of which a metric that the slow-down moves was called unchanged; `unchanged` counts the
    rows of `rows` whose latency was called so."""

    plan: str
    planted: tuple[str, ...]
    alarms: tuple[str, ...]
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    contended: bool
    rows: int
    unchanged: int
    conditions: Conditions


def trial(plan: str, planted: Sequence[str], comparison: Comparison, conditions: Conditions) -> Trial:
    """The trial that a decided run gives."""
    timed = [v for v in comparison.verdicts if v.pairs is not None]
    alarms = {v.case_id for v in timed if v.outcome in {"regressed", "improved"}}
    regressed = {v.case_id for v in timed if v.outcome == "regressed"}
    kind, _, size = plan.partition("=")
    moved = MOVED.get(kind, set())
    latency = [v for v in timed if v.metric == "latency_s"]
    large = kind in {"tail", "startup"} and float(size) > LARGE
    equal = {v.case_id for v in timed if v.metric in moved and _called_equal(v, large)}
    return Trial(
        plan=plan,
        planted=tuple(planted),
        alarms=tuple(sorted(alarms)),
        caught=tuple(row for row in planted if row in regressed),
        missed=tuple(row for row in planted if row in equal),
        contended=bool(comparison.contended),
        rows=len(latency),
        unchanged=sum(v.outcome == "unchanged" for v in latency),
        conditions=conditions,
    )


def _called_equal(verdict: Verdict, large: bool) -> bool:
    """Whether the verdict is unchanged or, for a slow-down above LARGE (`large`), excludes a change of that size."""
    return verdict.outcome == "unchanged" or (large and verdict.reason.kind == ReasonKind.NO_LARGER)


def trials(
    plans: Sequence[str],
    count: int,
    cases: Sequence[Case],
    measure: Callable[[str], tuple[Comparison, Conditions]],
    before: Sequence[Trial] = (),
    rows: int = 1,
) -> Iterator[Trial]:
    """`count` runs of each plan, in turns, with the slow-down in `rows` rows. Each run plants the next rows, after
    those of `before`. `measure` gets the head's arm."""
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
    """Every trial of the file, in order; none if there is no file. Raises UnreadableRun."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [_read(path, number, line) for number, line in enumerate(lines, start=1)]


def _read(path: Path, number: int, line: str) -> Trial:
    try:
        entry = json.loads(line)
        if FORMER_CONTENDED in entry:
            entry["contended"] = entry.pop(FORMER_CONTENDED)
        conditions = record(Conditions, entry["conditions"])
        lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
        return record(Trial, {**entry, **lists, "conditions": conditions})
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableRun(f"{path} line {number}: {error}") from None


def line(found: Sequence[Trial]) -> str:
    """The result in one line: alarms of A/A runs, then the share of planted rows that were caught.

    Contended runs are counted separately, because they decide nothing.
    """
    if not found:
        return "no trial yet"
    return "; ".join([*(_rate(plan, mine) for plan, mine in _by_plan(found)), *_where(found)])


def details(found: Sequence[Trial]) -> list[str]:
    """One line per plan: the counts of outcomes, and what `line` leaves out."""
    return [f"{in_words(plan)}: {_counted(plan, mine)}" for plan, mine in _by_plan(found)]


def in_words(plan: str) -> str:
    """ "busy=0.05" as "+5 %", the name under which its rate is published; A/A as it is."""
    kind, _, size = plan.partition("=")
    if kind == "busy":
        return f"+{float(size) * 100:g} %"
    if kind == "copy":
        return f"{size} extra cop{'y' if size == '1' else 'ies'} of the weights"
    return {"tail": "every tenth call +{:g} %", "startup": "start-up +{:g} %"}.get(kind, plan).format(
        float(size or 0) * 100
    )


def _by_plan(found: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """A/A first, then the plans by kind and size."""

    def place(plan: str) -> tuple[int, float]:
        kind, _, size = plan.partition("=")
        return [NOTHING, *MOVED].index(kind), float(size or 0)

    plans = sorted({t.plan for t in found}, key=place)
    return [(plan, [t for t in found if t.plan == plan]) for plan in plans]


def _decided(mine: Sequence[Trial]) -> list[Trial]:
    return [t for t in mine if not t.contended]


def _rate(plan: str, mine: Sequence[Trial]) -> str:
    decided = _decided(mine)
    if not decided:
        return f"{in_words(plan)} nothing decided"
    if plan == NOTHING:
        alarms = sum(bool(t.alarms) for t in decided)
        return f"A/A {alarms}/{len(decided)} {_interval(alarms, len(decided))}"
    caught, planted = _caught(decided)
    return f"{in_words(plan)} {_percent(caught / planted)} {_interval(caught, planted)}"


def _counted(plan: str, mine: Sequence[Trial]) -> str:
    decided = _decided(mine)
    if plan == NOTHING:
        alarms = sum(bool(t.alarms) for t in decided)
        rows, unchanged = sum(t.rows for t in decided), sum(t.unchanged for t in decided)
        said = [f"{len(decided)} runs", f"{alarms} with an alarm", f"{unchanged} of {rows} rows called unchanged"]
    else:
        caught, planted = _caught(decided)
        elsewhere = sum(bool(set(t.alarms) - set(t.planted)) for t in decided)
        said = [
            f"{caught} of {planted} rows caught",
            f"{sum(len(t.missed) for t in decided)} called unchanged",
            f"{elsewhere} of {len(decided)} runs with an alarm elsewhere",
        ]
    disarmed, apart = len(mine) - len(decided), sum(t.conditions.apart for t in decided)
    said += [f"{disarmed} disarmed"] if disarmed else []
    return ", ".join([*said, f"{apart} of {len(decided)} runs with a fork server for each arm"])


def _caught(decided: Sequence[Trial]) -> tuple[int, int]:
    """(planted rows that were caught, planted rows)."""
    return sum(len(t.caught) for t in decided), sum(len(t.planted) for t in decided)


def _where(found: Sequence[Trial]) -> list[str]:
    """The machines and the total hours, in words."""
    machines: dict[str, set[str]] = {}
    for conditions in (t.conditions for t in found):
        known = machines.setdefault(f"{conditions.cores} cores of {conditions.cpu}", set())
        known.add(conditions.isa or "instruction set not stored")
    named = [f"{name} ({', '.join(sorted(isas))})" for name, isas in machines.items()]
    return [*named, f"{sum(t.conditions.elapsed_s for t in found) / 3600:.1f} h"]


def _interval(successes: int, count: int) -> str:
    low, high = wilson(successes, count)
    return f"[{_percent(low)}, {_percent(high)}]"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
