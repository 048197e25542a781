"""Error rates of decision rules, as a data frame and as Markdown: alarms on equal code, and power.

    frame = evaluate(source, RULES, runs=1000, ours=Ours())
    print(markdown(frame))

In the A/A runs the arms are equal, so every alarm is false. "Whole runs" is the share of runs with an alarm in any row.
The power is measured with a slowed head. Other tools decide on each row separately, so all rows are slowed together.
imgbench's rule decides on a whole run, so one row per run is slowed. Intervals are Wilson intervals at 95 %. They
assume independent decisions, which is only approximately true for the rows of one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from baselines.detector.drawn import Source
from baselines.detector.rules import Rule
from harness.stats import wilson

OursRule = Callable[[Source, Mapping[str, float], np.random.Generator], dict[str, str]]
Counts = dict[tuple[str, str, float], Counter[str]]

SHIFTS: Final = (0.0, 0.03, 0.05)
CALLS: Final = ("worse", "better", "same", "inconclusive")
CALL_OF: Final = {"regressed": "worse", "improved": "better", "unchanged": "same", "inconclusive": "inconclusive"}
WHOLE_RUNS: Final = "whole runs"
ROWS_ALARMED: Final = "A/A: rows called changed"
RUNS_ALARMED: Final = "A/A: runs with an alarm"
OURS: Final = "imgbench ab"
OURS_PROCESSES: Final = "8+ pairs"


def evaluate(
    source: Source,
    rules: Mapping[str, Rule],
    *,
    runs: int,
    shifts: Sequence[float] = SHIFTS,
    ours: OursRule | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """A line for each rule, row and shift, with the number of decisions of each kind.

    Columns: rule, processes, row, shift, decisions, worse, better, same, inconclusive. The row "whole runs" counts a
    run as worse if any row is worse, and as better if any row is better and none is worse.
    """
    counts: Counts = {}
    generators = [np.random.default_rng((seed, number)) for number in range(runs)]
    for number, generator in enumerate(generators):
        _other_tools(source, rules, shifts, generator, counts)
        if ours is not None:
            _our_rule(source, ours, shifts, number, generator, counts)
    processes = {name: f"{rule.base_processes} + {rule.head_processes}" for name, rule in rules.items()}
    lines = [
        {"rule": rule, "processes": processes.get(rule, OURS_PROCESSES), "row": row, "shift": shift}
        | {"decisions": found.total()}
        | {call: found[call] for call in CALLS}
        for (rule, row, shift), found in counts.items()
    ]
    return pd.DataFrame(lines).sort_values(["rule", "row", "shift"], kind="stable").reset_index(drop=True)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for each rule over all rows, with shares and their intervals as (share, low, high).

    Columns: rule, processes, A/A alarms by rows and by whole runs, then for each shift its power (called worse) and the
    share that was called the same.
    """
    found = []
    for (rule, processes), lines in frame.groupby(["rule", "processes"], sort=False):
        rows, whole = lines[lines["row"] != WHOLE_RUNS], lines[lines["row"] == WHOLE_RUNS]
        line: dict[str, object] = {"rule": rule, "processes": processes}
        line[ROWS_ALARMED] = share(rows[rows["shift"] == 0], "worse", "better")
        line[RUNS_ALARMED] = share(whole[whole["shift"] == 0], "worse", "better")
        for shift in sorted(set(rows["shift"]) - {0.0}):
            line[f"{shift * 100:+.0f} % caught"] = share(rows[rows["shift"] == shift], "worse")
            line[f"{shift * 100:+.0f} % called the same"] = share(rows[rows["shift"] == shift], "same")
        found.append(line)
    return pd.DataFrame(found)


def by_row(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for each rule and row: A/A alarms, and power at each shift, as (share, low, high)."""
    found = []
    for (rule, row), lines in frame[frame["row"] != WHOLE_RUNS].groupby(["rule", "row"], sort=False):
        line: dict[str, object] = {"rule": rule, "row": row}
        line[ROWS_ALARMED] = share(lines[lines["shift"] == 0], "worse", "better")
        for shift in sorted(set(lines["shift"]) - {0.0}):
            line[f"{shift * 100:+.0f} % caught"] = share(lines[lines["shift"] == shift], "worse")
        found.append(line)
    return pd.DataFrame(found)


def markdown(table: pd.DataFrame) -> str:
    """A table of `summary` or `by_row` as Markdown. Shares are in percent, with their 95 % interval."""
    header = "| " + " | ".join(map(str, table.columns)) + " |"
    ruler = "|" + "---|" * len(table.columns)
    lines = ["| " + " | ".join(_cell(value) for value in line) + " |" for line in table.itertuples(index=False)]
    return "\n".join([header, ruler, *lines]) + "\n"


def share(lines: pd.DataFrame, *calls: str) -> tuple[float, float, float] | None:
    """(share, low, high) of the decisions that are one of `calls`; None if there are no decisions."""
    count = int(lines["decisions"].sum())
    if count == 0:
        return None
    hits = int(lines[list(calls)].to_numpy().sum())
    low, high = wilson(hits, count)
    return hits / count, low, high


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, tuple):
        return str(value)
    middle, low, high = (_percent(100 * part) for part in value)
    return f"{middle} % [{low}, {high}]"


def _percent(value: float) -> str:
    if value < 0.005 or value > 99.95:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}"


def _other_tools(
    source: Source, rules: Mapping[str, Rule], shifts: Sequence[float], generator: np.random.Generator, counts: Counts
) -> None:
    """Counts the decisions of each rule on one run, which is the same for every shift."""
    if not rules:
        return
    longest = max(rule.base_processes + rule.head_processes for rule in rules.values())
    run = source.draw(generator, longest)
    for shift in shifts:
        slower = run.slowed(dict.fromkeys(run.rows, shift))
        for rule in rules.values():
            calls = {
                row: rule.decide(*slower.processes(row, rule.base_processes, rule.head_processes))
                for row in slower.rows
            }
            _count(counts, rule.name, calls, shift)


def _our_rule(
    source: Source, ours: OursRule, shifts: Sequence[float], number: int, generator: np.random.Generator, counts: Counts
) -> None:
    """Counts the decisions on one run for each shift. If a row is slowed, only that row counts."""
    rows = source.draw(generator, 2).rows
    for shift in shifts:
        row = rows[number % len(rows)]
        outcomes = ours(source, {row: shift} if shift else {}, generator)
        if shift:
            counts.setdefault((OURS, row, shift), Counter()).update([CALL_OF[outcomes[row]]])
        else:
            _count(counts, OURS, {row: CALL_OF[outcome] for row, outcome in outcomes.items()}, shift)


def _count(counts: Counts, rule: str, calls: Mapping[str, str], shift: float) -> None:
    for row, call in calls.items():
        counts.setdefault((rule, row, shift), Counter()).update([call])
    whole = next((call for call in ("worse", "better", "inconclusive") if call in calls.values()), "same")
    counts.setdefault((rule, WHOLE_RUNS, shift), Counter()).update([whole])
