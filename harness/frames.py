"""Two tidy pandas frames of a run: one row per case, and one row per raw sample. Pure functions of a Run.

    from harness import storage, frames
    run = storage.load("runs/digits-...")
    frames.cases_frame(run).sort_values("latency_s")[["label", "latency_s", "throughput", "recognised"]]

Values are in base units (seconds, bytes, joules); NaN is missing, with the reason in the column `missing` (metric ->
sentence) and its kind in `missing_kinds`. `warnings` lists the short names of a row's warnings ("contended",
"partly quantised"), `warning_texts` their sentences in the same order:

    frame[frame["warnings"].map(lambda names: "contended" in names)]

`speedup` is the speed relative to the row `speedup_reference` (a case id), from the rounds in which both took turns
(`harness.speedups`). It is no metric: it says how two rows of one run differ, and no run is compared by it here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from harness import overhead, stats
from harness.attempts import timed
from harness.derived import DERIVED, Estimate, summarise
from harness.identical_outputs import identical_outputs
from harness.measuring.contention import is_contention
from harness.processes import threads
from harness.reasons import Reason
from harness.speed_levels import SpeedLevels, speed_levels
from harness.speedups import COLUMNS as SPEEDUP_COLUMNS
from harness.speedups import SPEEDUP, speedups
from harness.stored_types import Facts, State
from harness.types import AXES, Case, Measurement, Metric, Protocol, Run
from harness.units import counted as plural

T = TypeVar("T")
NOT_RUN = "not_run"
LATENCY = "latency_s"
# Warnings about the times of a process. Where its time does not count for the row, neither do they, nor
# do those about contention.
OF_TIMES = frozenset({"unsteady", "imprecise"})
LEADING = (
    "run_id",
    "case_id",
    "label",
    "family",
    *AXES,
    "status",
    "reason",
    "replicates",
    "warnings",
    "warning_texts",
    "missing",
    "missing_kinds",
    "images",
)
SAMPLE_COLUMNS = ("run_id", "case_id", "replicate", "metric", "phase", "index", "value", "unit", "round")
_SEVERITY = ("invalid", "failed", "oom", "timeout", "skipped", "ok")  # the worst first
# Whole numbers, though a column with gaps holds floats.
INTEGERS = ("image_size", "num_steps", "speedup_rounds", "round")
TOLERANCES = ("cosine_floor", "error_ceiling", "item_error_ceiling")  # of harness.probes.fidelity
HASHES = ("work_hash", "weights_hash", "weights_source", "output_hash")
CONDITIONS = (
    *("device", "threads", "fingerprint", "protocol", overhead.OVERHEAD, "quantised_share", *HASHES, *TOLERANCES),
    "machine_state",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms


def metrics_of(run: Run) -> dict[str, Metric]:
    """Every metric that the run's rows can have; derived metrics follow their source."""
    found: dict[str, Metric] = {}
    for name, metric in run.metrics.items():
        found[name] = metric
        found.update({d.metric.name: d.metric for d in DERIVED if d.source == name})
    return found


def cases_frame(run: Run, shown: Collection[str] | None = None) -> pd.DataFrame:
    """One row per planned case: id, axes, status, reason, then each metric with `_low` and `_high`, then the speedup,
    then conditions.

    A row's status is the worst of its processes: invalid, failed, oom, timeout, skipped, ok; not_run where nothing
    is stored. Only ok rows have metrics: the speed of a wrong output means nothing.
    `shown` limits the metrics and the speedup: the others are not computed and have no columns.
    """
    spread = {name: _spread(run, name) for name, metric in run.metrics.items() if metric.kind == "noisy"}
    metrics = [name for name in metrics_of(run) if shown is None or name in shown]
    of_run = _warnings_of_run(run)
    costs = overhead.by_backend(run)
    rows = [
        _with_overhead(_row(run, case, measured, spread, metrics, of_run.get(case.id, ())), measured, costs)
        for case in run.cases
        for measured in (run.by_case.get(case.id, ()),)
    ]
    with_speedup = shown is None or SPEEDUP in shown
    if with_speedup:
        _add_speedups(rows, run)
    present = {key for row in rows for key in row}
    columns = [*LEADING]
    for name in metrics:
        columns += [c for c in (name, f"{name}_low", f"{name}_high") if c == name or c in present]
    return pd.DataFrame(rows, columns=[*columns, *(SPEEDUP_COLUMNS if with_speedup else ()), *CONDITIONS])


def _add_speedups(rows: Iterable[dict[str, Any]], run: Run) -> None:
    """Adds the speed of each ok row relative to its reference, or the reason why it has none."""
    found = speedups(run)
    for row in rows:
        if row["status"] == "ok":
            cells, why = found[row["case_id"]]
            row.update(cells)
            if why is not None:
                row["missing"][SPEEDUP] = str(why)
                row["missing_kinds"][SPEEDUP] = why.kind


def samples_frame(run: Run) -> pd.DataFrame:
    """One row per raw sample: case, process, metric, phase (warmup or steady), index in its process, value, unit, and
    the number of the round of its process, NaN if it was measured alone."""
    units = {name: metric.unit for name, metric in run.metrics.items()}
    rows: list[tuple[Any, ...]] = []
    for m in run.measurements:
        case_id = m.case.id
        for phase, samples in (("warmup", m.warmup), ("steady", m.samples)):
            for name, values in samples.items():
                shared = (run.id, case_id, m.replicate, name, phase)
                rows += [(*shared, index, value, units.get(name), m.round) for index, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=[*SAMPLE_COLUMNS])
    return frame.astype({"round": float})


def counted(measurements: Iterable[Measurement], metric: str) -> tuple[Measurement, ...]:
    """The ok processes of a row that count for a metric; for the latency those of `harness.attempts.timed`."""
    return timed(measurements) if metric == LATENCY else tuple(m for m in measurements if m.status == "ok")


def _warnings_of_run(run: Run) -> dict[str, list[Reason]]:
    """Case id -> the warnings about its row that only all rows of the run together show."""
    found: dict[str, list[Reason]] = {}
    for case_id, same in identical_outputs(run).items():
        found.setdefault(case_id, []).append(same.warning)
    for case_id, levels in speed_levels(run).items():
        found.setdefault(case_id, []).append(_two_speeds(levels))
    return found


def _two_speeds(levels: SpeedLevels) -> Reason:
    low, high = levels.share_interval
    return Reason(
        "speed_levels",
        {
            "slow": levels.slow,
            "total": levels.processes,
            "low": low,
            "high": high,
            "fast_s": levels.fast_s,
            "slow_s": levels.slow_s,
        },
    )


def _spread(run: Run, name: str) -> stats.Spread | None:
    """How far the processes of one row lie apart in a metric, pooled over all rows of the run."""
    rows = [
        [m.samples[name] for m in counted(measurements, name) if m.samples.get(name)]
        for measurements in run.by_case.values()
    ]
    return stats.between_processes(rows)


def _row(
    run: Run,
    case: Case,
    measurements: Sequence[Measurement],
    spread: Mapping[str, stats.Spread | None],
    metrics: Collection[str],
    of_run: Sequence[Reason],
) -> dict[str, Any]:
    status, reason = _status(measurements)
    counting = timed(measurements)
    uncounted = {id(m) for m in measurements if m.status == "ok"} - {id(m) for m in counting}
    warnings = [
        w
        for m in measurements
        for w in m.warnings
        if not (id(m) in uncounted and (is_contention(w) or w.kind in OF_TIMES))
    ] + [*of_run]
    told = _unique((w.name, str(w)) for w in warnings)
    row: dict[str, Any] = {
        "run_id": run.id,
        "case_id": case.id,
        "label": case.label,
        "family": run.models.get(case.model, {}).get("family"),
        **case.axes(),
        "status": status,
        "reason": reason,
        "replicates": sum(m.status == "ok" for m in measurements),
        "warnings": [name for name, _ in told],
        "warning_texts": [text for _, text in told],
        "images": list(_unique(i for m in measurements for i in m.images)),
    }
    missing: dict[str, Reason] = {}
    if status == "ok":
        good = [m for m in measurements if m.status == "ok"]
        for m in good:
            missing.update(m.missing)
        for name, estimate in _estimates(run, case, good, spread, metrics):
            if estimate.value is None:
                missing[name] = estimate.reason or Reason("not_measured")
                continue
            missing.pop(name, None)
            row[name] = estimate.value
            if estimate.low is not None:
                row |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        for name in (n for n in metrics if n not in row and n not in missing):
            missing[name] = Reason("no_such_metric")
    row["missing"] = {name: str(why) for name, why in missing.items()}
    row["missing_kinds"] = {name: why.kind for name, why in missing.items()}
    return row | _conditions(run, measurements)


def _with_overhead(
    row: dict[str, Any], measurements: Sequence[Measurement], costs: Mapping[str, float | Reason]
) -> dict[str, Any]:
    """An ok row with what imgbench itself costs an iteration in its backend, and the warning that this is much."""
    if row["status"] != "ok":
        return row
    cost = overhead.of_row(costs, row["backend"])
    if isinstance(cost, Reason):
        return row | {
            "missing": row["missing"] | {overhead.OVERHEAD: str(cost)},
            "missing_kinds": row["missing_kinds"] | {overhead.OVERHEAD: cost.kind},
        }
    told = overhead.warning(cost, measurements)
    return row | {
        overhead.OVERHEAD: cost,
        "warnings": [*row["warnings"], *([told.name] if told else ())],
        "warning_texts": [*row["warning_texts"], *([str(told)] if told else ())],
    }


def _estimates(
    run: Run,
    case: Case,
    good: list[Measurement],
    spread: Mapping[str, stats.Spread | None],
    metrics: Collection[str],
) -> Iterable[tuple[str, Estimate]]:
    for name, metric in run.metrics.items():
        derived = [d for d in DERIVED if d.source == name and d.metric.name in metrics]
        if name not in metrics and not derived:
            continue
        groups = stats.Processes(m.samples.get(name, ()) for m in counted(good, name))
        if not groups:
            continue
        found = [(name, summarise(metric, groups))] if name in metrics else []
        found += [(d.metric.name, d.estimate(groups, case.batch_size)) for d in derived]
        yield from ((n, _widened(estimate, spread.get(name), len(groups))) for n, estimate in found)


def _widened(estimate: Estimate, spread: stats.Spread | None, processes: int) -> Estimate:
    if spread is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    low, high = stats.widened(estimate.value, (estimate.low, estimate.high), spread, processes)
    return replace(estimate, low=low, high=high)


def _status(measurements: Sequence[Measurement]) -> tuple[str, str | None]:
    if not measurements:
        return NOT_RUN, str(Reason("not_measured_yet"))
    worst = min(measurements, key=lambda m: _SEVERITY.index(m.status))
    count = sum(m.status == worst.status for m in measurements)
    if worst.status == "ok" or count == len(measurements):
        return worst.status, None if worst.reason is None else str(worst.reason)
    return worst.status, f"{worst.reason} (in {count} of {plural(len(measurements), 'process')})"


def _conditions(run: Run, measurements: Sequence[Measurement]) -> dict[str, Any]:
    facts: Mapping[str, Any] = next((m.facts for m in measurements if m.facts), Facts())
    return {
        "device": run.environment.get("device_name"),
        "threads": threads.in_words(run.environment),
        "fingerprint": run.environment.get("fingerprint"),
        "protocol": _protocol_in_words(run.protocol),
        **{name: facts.get(name) for name in ("quantised_share", *HASHES, *TOLERANCES)},
        "machine_state": [state_in_words(m.state) for m in measurements],
    }


def _protocol_in_words(protocol: Protocol) -> str:
    cold = ", cold caches" if protocol.cold_cache else ""
    if not protocol.rounds or protocol.replicates == 1:
        return (
            f"{protocol.replicates} processes, at least {protocol.min_samples} samples and "
            f"{protocol.min_sample_time_s:g} s each{cold}"
        )
    least = protocol.replicates - 1
    target = protocol.ratio_interval
    until = "" if target is None else f", then until each ratio is within ±{100 * target:g} %"
    return f"1 process alone, at least {least} {'round' if least == 1 else 'rounds'}{until}{cold}"


def state_in_words(state: State) -> dict[str, Any]:
    """A measurement's machine state in JSON values: a reason in it is its sentence."""
    return {name: str(value) if isinstance(value, Reason) else value for name, value in state.items()}


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with lists and mappings as JSON text, for formats of plain cells (CSV, Parquet)."""
    nested = [c for c in frame.columns if frame[c].map(lambda v: isinstance(v, list | dict)).any()]
    whole = {c: frame[c].astype("Int64") for c in INTEGERS if c in frame}
    return frame.assign(**whole, **{c: frame[c].map(lambda v: json.dumps(v, ensure_ascii=False)) for c in nested})


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV that is safe to open in a spreadsheet: a text that would be read as a formula (it begins with
    = + - @, a tab or a line break) gets a leading apostrophe, as OWASP advises against CSV injection, because prompts,
    reasons and labels are untrusted text. A text that begins with apostrophes and then such a character gets one more,
    so that `unescaped` restores every text exactly. Numbers stay numbers."""
    plain = flat(frame)
    texts = [name for name in plain.columns if plain[name].map(lambda value: isinstance(value, str)).any()]
    # Many readers end a row at a bare carriage return, and pandas quotes one only if it quotes all texts.
    returns = any(plain[name].astype(str).str.contains("\r", regex=False).any() for name in texts)
    quoting: Any = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    return str(plain.assign(**{n: plain[n].map(_escaped) for n in texts}).to_csv(index=False, quoting=quoting))


def _escaped(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(FORMULA) else value


def unescaped(text: str) -> str:
    """The text of a CSV cell without the apostrophe that `to_csv` added."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def to_json(frame: pd.DataFrame) -> str:
    """The frame's rows as a JSON list of mappings; a missing value is null."""
    rows = [{key: _plain(value, key) for key, value in row.items()} for row in frame.to_dict(orient="records")]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)


def _plain(value: Any, key: Hashable) -> Any:
    if isinstance(value, list | dict):
        return value
    if pd.isna(value):
        return None
    if key in INTEGERS:
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
