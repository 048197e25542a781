"""Two tidy pandas frames of a run: a row a case, and a row a raw sample. Pure: a Run in, new frames out.

    from harness import storage, frames
    run = storage.load("runs/digits-...")
    frames.cases_frame(run).sort_values("latency_s")[["label", "latency_s", "throughput", "recognised"]]

Values are in base units (seconds, bytes, joules); NaN is missing, with the reason in the column `missing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from harness.derived import DERIVED, Estimate, summarise
from harness.types import AXES, Case, Measurement, Metric, Run

NOT_RUN = "not_run"
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
    "missing",
    "images",
)
_SEVERITY = ("invalid", "failed", "oom", "timeout", "skipped", "ok")  # the worst first
CONDITIONS = ("device", "fingerprint", "protocol", "work_hash", "weights_hash", "output_hash", "machine_state")


def metrics_of(run: Run) -> dict[str, Metric]:
    """Every metric that the run's rows can have, the derived ones beside their source."""
    found: dict[str, Metric] = {}
    for name, metric in run.metrics.items():
        found[name] = metric
        found.update({d.metric.name: d.metric for d in DERIVED if d.source == name})
    return found


def cases_frame(run: Run) -> pd.DataFrame:
    """One row a planned case: id, axes, status, reason, then each metric with `_low` and `_high`, then conditions.

    A row's status is the worst of its processes: invalid, failed, oom, timeout, skipped, ok; not_run where nothing
    is stored. Metrics are given for ok rows, and for invalid ones left out, since a wrong answer has no speed.
    """
    by_case: dict[str, list[Measurement]] = {}
    for measurement in run.measurements:
        by_case.setdefault(measurement.case.id, []).append(measurement)
    rows = [_row(run, case, by_case.get(case.id, [])) for case in run.cases]
    metrics = metrics_of(run)
    present = {key for row in rows for key in row}
    columns = [*LEADING]
    for name in metrics:
        columns += [c for c in (name, f"{name}_low", f"{name}_high") if c == name or c in present]
    return pd.DataFrame(rows, columns=[*columns, *CONDITIONS])


def samples_frame(run: Run) -> pd.DataFrame:
    """One row a raw sample: case, process, metric, phase (warmup or steady), index in its process, value, unit."""
    units = {name: metric.unit for name, metric in run.metrics.items()}
    rows: list[tuple[Any, ...]] = []
    for m in run.measurements:
        case_id = m.case.id
        for phase, samples in (("warmup", m.warmup), ("steady", m.samples)):
            for name, values in samples.items():
                shared = (run.id, case_id, m.replicate, name, phase)
                rows += [(*shared, index, value, units.get(name)) for index, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["run_id", "case_id", "replicate", "metric", "phase", "index", "value", "unit"])


def _row(run: Run, case: Case, measurements: list[Measurement]) -> dict[str, Any]:
    status, reason = _status(measurements)
    row: dict[str, Any] = {
        "run_id": run.id,
        "case_id": case.id,
        "label": case.label,
        "family": run.models.get(case.model, {}).get("family"),
        **case.axes(),
        "status": status,
        "reason": reason,
        "replicates": sum(m.status == "ok" for m in measurements),
        "warnings": "; ".join(_unique(w for m in measurements for w in m.warnings)),
        "images": list(_unique(i for m in measurements for i in m.images)),
    }
    missing: dict[str, str] = {}
    if status == "ok":
        good = [m for m in measurements if m.status == "ok"]
        for m in good:
            missing.update(m.missing)
        for name, estimate in _estimates(run, case, good):
            if estimate.value is None:
                missing[name] = estimate.reason or "not measured"
                continue
            missing.pop(name, None)
            row[name] = estimate.value
            if estimate.low is not None:
                row |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row | {"missing": missing} | _conditions(run, measurements)


def _estimates(run: Run, case: Case, good: list[Measurement]) -> Iterable[tuple[str, Estimate]]:
    for name, metric in run.metrics.items():
        groups = [m.samples[name] for m in good if m.samples.get(name)]
        if not groups:
            continue
        yield name, summarise(metric, groups)
        yield from ((d.metric.name, d.estimate(groups, case.batch_size)) for d in DERIVED if d.source == name)


def _status(measurements: list[Measurement]) -> tuple[str, str | None]:
    if not measurements:
        return NOT_RUN, "not measured yet"
    worst = min(measurements, key=lambda m: _SEVERITY.index(m.status))
    count = sum(m.status == worst.status for m in measurements)
    if worst.status == "ok" or count == len(measurements):
        return worst.status, worst.reason
    return worst.status, f"{worst.reason} (in {count} of {len(measurements)} processes)"


def _conditions(run: Run, measurements: list[Measurement]) -> dict[str, Any]:
    facts = next((m.facts for m in measurements if m.facts), {})
    return {
        "device": run.environment.get("device_name"),
        "fingerprint": run.environment.get("fingerprint"),
        "protocol": f"{run.protocol.replicates} processes, at least {run.protocol.min_samples} samples and "
        f"{run.protocol.min_sample_time_s:g} s each",
        "work_hash": facts.get("work_hash"),
        "weights_hash": facts.get("weights_hash"),
        "output_hash": facts.get("output_hash"),
        "machine_state": [m.state for m in measurements],
    }


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with lists and mappings as JSON text, for formats of plain cells (CSV, Parquet)."""
    nested = [c for c in frame.columns if frame[c].map(lambda v: isinstance(v, list | dict)).any()]
    return frame.assign(**{c: frame[c].map(lambda v: json.dumps(v, ensure_ascii=False)) for c in nested})


def to_json(frame: pd.DataFrame) -> str:
    """The frame's rows as a JSON list of mappings; a missing value is null."""
    rows = [{key: _plain(value) for key, value in row.items()} for row in frame.to_dict(orient="records")]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, list | dict):
        return value
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
