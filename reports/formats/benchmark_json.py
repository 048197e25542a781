"""A run as the JSON document of pytest-benchmark, for its `compare` and for tools that read its files.

    benchmarks[].stats       statistics over the raw samples of `latency_s`, all processes in order
    benchmarks[].extra_info  the other data of the row: metrics, reasons, hashes, machine state

pytest-benchmark does not distinguish processes: `stats.median` is the median of the pooled samples, so a process with
more samples has more weight. imgbench's p50 (`extra_info.metrics.latency_s`) gives every process equal weight.
`extra_info.pooled_median` has both and their difference, and `pooled_medians_apart` summarises it in one line.

The factors in the table of `pytest-benchmark compare` divide pooled samples of processes that ran at different times.
`extra_info.speedup` is the paired ratio of a row to its reference, with its interval.

`pytest benches --benchmark-only` writes the same document while it measures. Names, groups and facts are the same in
both, so that they can be compared. A row that is not ok is listed in `imgbench.not_measured`, with its reason.
"""

from __future__ import annotations

import re
import statistics as standard
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from harness import frames
from harness.speedups import SPEEDUP
from harness.stored_types import Facts
from harness.types import Case, Measurement, Protocol, Run
from harness.units import percent

TEST = "benches/pytest_plugin/bench_suite.py::test_latency"
TIMER = "imgbench"  # instead of the name of a clock: another process took the samples
EXTRA = "pip install 'imgbench[pytest-benchmark]'"
METRIC = "latency_s"
_PRIVATE_CONDITIONS = ("git", "plugins", "sources")  # of the code, not of the machine; git is in commit_info
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
WORTH_SAYING = 0.001  # a relative difference between the two medians that shows in three digits


class NotInstalled(RuntimeError):
    """pytest-benchmark, which computes the statistics, is not installed; `str()` is one line for the user."""


OWN_PLACE = frozenset({"work_hash", "weights_hash", "output_hash", "picture_set"})


def document(run: Run) -> dict[str, Any]:
    """The whole document of a run. Raises NotInstalled."""
    version = _version()
    rows = records(run)
    return {
        "machine_info": machine_info(run.environment),
        "commit_info": commit_info(run.environment),
        "benchmarks": [_benchmark(run, case, rows[case.id]) for case in run.cases if samples(run, case)],
        "datetime": run.finished or run.created,
        "version": version,
        "imgbench": provenance(run, rows),
    }


def records(run: Run) -> dict[str, dict[str, Any]]:
    """The run's table by case id."""
    rows = frames.cases_frame(run).to_dict(orient="records")
    return {str(row["case_id"]): {str(column): value for column, value in row.items()} for row in rows}


def samples(run: Run, case: Case) -> list[float]:
    """Seconds per iteration in the steady state, process after process; empty where the row is not ok."""
    measurements = _measurements(run, case)
    if any(m.status != "ok" for m in measurements):
        return []
    return [value for m in measurements for value in m.samples.get(METRIC, ())]


def name(case: Case) -> str:
    """The case in ASCII characters for a command line: "digits_vit-eager-fp32-batch_8-32_px".

    If the case has free text (a prompt, a folder of weights), a hash of the case makes the name unique.
    """
    parts = [re.sub(r"[^A-Za-z0-9_.]+", "_", part).strip("_")[:60] for part in case.label.split(" · ")]
    free_text = case.prompt is not None or not _PLAIN_NAME.fullmatch(case.weights)
    return "-".join([*parts, case.id[-8:]] if free_text else parts)


def group(case: Case) -> str:
    """The rows that a table compares: they differ only in backend or precision, so that all do the same work."""
    return case.label.replace(f" · {case.backend} · {case.precision}", "", 1).replace(" · ", ", ")


def options(protocol: Protocol) -> dict[str, Any]:
    """The protocol as pytest-benchmark's options of a benchmark, which its marker accepts."""
    return {
        "disable_gc": True,
        "min_rounds": protocol.min_samples,
        "max_time": protocol.max_sample_time_s,
        "min_time": 0.0,
        "warmup": False,  # of pytest-benchmark; imgbench has warmed up before, and the run folder has those samples
    }


def extra_info(run: Run, case: Case, row: Mapping[str, Any]) -> dict[str, Any]:
    """The data of the row besides its latency samples, as JSON types; `row` is its entry in `records`."""
    measurements = _measurements(run, case)
    facts = next((m.facts for m in measurements if m.facts), Facts())
    return {
        "case_id": case.id,
        "label": case.label,
        "suite": run.suite,
        "run_id": run.id,
        "status": row["status"],
        "metrics": _metrics(run, row),
        "speedup": _speedup(row),
        "pooled_median": _pooled_median(measurements, row),
        "missing": row["missing"],
        "warnings": list(dict.fromkeys(str(w) for m in measurements for w in m.warnings)),
        "precision": case.precision,
        "work_hash": facts.get("work_hash"),
        "weights_hash": facts.get("weights_hash"),
        "output_hash": facts.get("output_hash"),
        "facts": {k: v for k, v in facts.items() if k not in OWN_PLACE},
        "versions": run.environment.get("versions"),
        "fingerprint": run.environment.get("fingerprint"),
        "protocol": row["protocol"],
        "processes": [_process(m) for m in measurements],
    }


def provenance(run: Run, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The entry `imgbench` of the document: the run, and every planned row without a benchmark, with its reason."""
    missing = [case for case in run.cases if not samples(run, case)]
    return {
        "run_id": run.id,
        "suite": run.suite,
        "created": run.created,
        "not_measured": [
            {
                "name": f"{TEST.partition('::')[2]}[{name(case)}]",
                "label": case.label,
                "status": rows[case.id]["status"],
                "reason": rows[case.id]["reason"] or rows[case.id]["missing"].get(METRIC) or f"no {METRIC}",
            }
            for case in missing
        ],
    }


def machine_info(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The machine under pytest-benchmark's names, and under "imgbench" as the run stores it. None is unknown.

    Unlike pytest-benchmark's own record, it has no current clock rate. So it is equal for all runs of one machine, and
    "machine_info is different" indicates another machine.
    """
    system, _, machine = str(environment.get("platform") or "").partition("-")
    cpu = environment.get("cpu") or {}
    return {
        "node": environment.get("host_hash"),
        "processor": cpu.get("model"),
        "machine": machine or None,
        "python_implementation": None,
        "python_version": environment.get("python"),
        "release": environment.get("kernel"),
        "system": system or None,
        "cpu": {"brand_raw": cpu.get("model"), "count": cpu.get("logical_cores"), "arch_string_raw": machine or None},
        "imgbench": {k: v for k, v in environment.items() if k not in _PRIVATE_CONDITIONS},
    }


def commit_info(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The commit of the measuring code in pytest-benchmark's form. A run stores neither its time nor its branch."""
    git = environment.get("git") or {}
    return {
        "id": git.get("commit") or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": bool(git.get("dirty")),
        "project": "imgbench",
        "branch": "(unknown)",
        **({"reason": git["reason"]} if git.get("reason") else {}),
    }


def _benchmark(run: Run, case: Case, row: Mapping[str, Any]) -> dict[str, Any]:
    file, _, function = TEST.partition("::")
    full = f"{function}[{name(case)}]"
    return {
        "group": group(case),
        "name": full,
        "fullname": f"{file}::{full}",
        "params": case.axes(),
        "param": name(case),
        "extra_info": extra_info(run, case, row),
        "options": {**options(run.protocol), "timer": TIMER, "precision": None, "confidence": None},
        "stats": statistics(samples(run, case)),
    }


def statistics(values: list[float]) -> dict[str, Any]:
    """Every field of pytest-benchmark's `stats`, computed by its code. Raises NotInstalled."""
    _version()
    from pytest_benchmark.stats import Stats

    stats = Stats()
    for value in values:
        stats.update(value)
    return {**stats.as_dict(), "data": stats.data, "iterations": 1}


def _version() -> str:
    try:
        import pytest_benchmark
    except ImportError:
        raise NotInstalled(f"this format needs the package pytest-benchmark: {EXTRA}") from None
    return str(pytest_benchmark.__version__)


def _metrics(run: Run, row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metric -> its value with unit, and the bounds of its 95 % interval if it has one."""
    found = {}
    for metric in frames.metrics_of(run).values():
        bounds = {"value": metric.name, "low": f"{metric.name}_low", "high": f"{metric.name}_high"}
        values = {key: float(row[column]) for key, column in bounds.items() if not _absent(row.get(column))}
        if "value" in values:
            found[metric.name] = {**values, "unit": metric.unit, "better": metric.better}
    return found


def _speedup(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The speed relative to the reference row, from the rounds in which both took turns; None without one."""
    if _absent(row.get(SPEEDUP)):
        return None
    names = {
        "value": SPEEDUP,
        "low": "speedup_low",
        "high": "speedup_high",
        "reference": "speedup_reference",
        "rounds": "speedup_rounds",
        "reached": "speedup_reached",
        "simultaneous": "speedup_simultaneous",
    }
    found = {key: row.get(column) for key, column in names.items()}
    told = {key: None if _absent(value) else value for key, value in found.items()}
    return told | {"rounds": None if told["rounds"] is None else int(told["rounds"])}


def _pooled_median(measurements: Iterable[Measurement], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pooled median (`stats.median`) and the p50, which gives processes equal weight, both in seconds, and their
    ratio minus 1; None if the row has no latency."""
    counts = [values for m in measurements if (values := m.samples.get(METRIC))]
    if not counts or _absent(row.get(METRIC)):
        return None
    pooled, p50 = standard.median(value for values in counts for value in values), float(row[METRIC])
    return {
        "median_s": pooled,
        "p50_s": p50,
        "difference": pooled / p50 - 1 if p50 else None,
        "rounds": [len(values) for values in counts],
    }


def pooled_medians_apart(benchmarks: Iterable[Mapping[str, Any]]) -> str | None:
    """One line: in how many benchmarks `stats.median` differs from the p50, and by how much at most; None if no
    difference matters."""
    told = [(b["extra_info"]["pooled_median"], b["name"]) for b in benchmarks if b["extra_info"].get("pooled_median")]
    apart = [(t["difference"], name) for t, name in told if t["difference"] and abs(t["difference"]) >= WORTH_SAYING]
    if not apart:
        return None
    most, name = max(apart, key=lambda found: abs(found[0]))
    return (
        f"stats.median differs from the p50 of imgbench in {len(apart)} of {len(told)} benchmarks, by "
        f"{percent(most)} at most ({name}): it pools the samples of all processes, so that a process with more samples "
        "has more weight; extra_info.metrics.latency_s gives all processes equal weight"
    )


def _absent(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _process(measurement: Measurement) -> dict[str, Any]:
    """One process of the row: the number of its samples in `stats.data`, and the state of the machine."""
    return {
        "replicate": measurement.replicate,
        "rounds": len(measurement.samples.get(METRIC, ())),
        "started": measurement.started,
        "duration_s": measurement.duration_s,
        "machine_state": frames.state_in_words(measurement.state),
    }


def _measurements(run: Run, case: Case) -> list[Measurement]:
    return sorted(run.by_case.get(case.id, ()), key=lambda m: m.replicate)
