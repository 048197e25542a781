"""Runs, sessions and metrics with numbers small enough to check by hand, for the tests of baselines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from baselines.stored.compare import compare
from baselines.stored.store import Session
from baselines.verdict import Comparison, Verdict
from harness.types import Case, Kind, Measurement, Metric, Protocol, Run

MIB = 1024**2


def metric(name: str, kind: Kind, unit: str = "1", better: Any = "higher", summary: Any = "median") -> Metric:
    return Metric(name=name, unit=unit, label=name, better=better, kind=kind, description=name, summary=summary)


METRICS = {
    m.name: m
    for m in (
        metric("latency_s", "noisy", "s", "lower"),
        metric("rate", "noisy", "image/s", "higher"),
        metric("load_s", "advisory", "s", "lower"),
        metric("parameters", "exact", "count", None),
        metric("weights_bytes", "exact", "B", "lower"),
        metric("peak_allocated_bytes", "near_exact", "B", "lower", "max"),
        metric("energy_per_image_j", "energy", "J", "lower"),
        metric("top1", "quality_item", "share", "higher", "mean"),
        metric("fid", "quality_set", "1", "lower"),
        metric("psnr_db", "quality_continuous", "dB", "higher"),
        metric("cosine_similarity", "quality_continuous", "1", "higher"),
    )
}
A, B = Case(model="a"), Case(model="b")
ENVIRONMENT: dict[str, Any] = {
    "device": "cpu",
    "device_name": "Intel(R) Xeon(R) 8481C",
    "cpu": {"model": "Intel(R) Xeon(R) 8481C", "logical_cores": 4, "cores_allowed": 2, "isa": "AVX512", "quota": None},
    "gpus": [],
    "driver": None,
    "cuda": None,
    "threads": 2,
    "python": "3.11.7",
    "kernel": "6.1.0",
    "host_hash": "host-a",
    "versions": {"torch": "2.13.0", "onnxruntime": "1.31.1", "diffusers": "0.42.1"},
    "flags": {},
    "git": {"commit": "c0ffee", "dirty": False},
    "imgbench": "0.1.0",
}
GPU_ENVIRONMENT: dict[str, Any] = {
    **ENVIRONMENT,
    "device": "cuda",
    "gpus": [{"name": "H100", "memory_bytes": 80 * 10**9, "uuid": "GPU-1", "power_limit_w": 700.0, "mig": False}],
    "driver": "570.12",
    "cuda": "13.0",
}
PROTOCOL = Protocol(replicates=3)
FACTS = {"work_hash": "w1", "identity": {"steps": 20}, "quality_conditions": {"items": 10, "reference_hash": "r1"}}


def measured(
    samples: dict[str, list[Any]], case: Case = A, missing: dict[str, str] | None = None, **facts: Any
) -> list[Measurement]:
    """Three ok processes. A list of lists is one list a process; a flat list belongs to the first process."""
    return [
        Measurement(
            case=case,
            replicate=i,
            status="ok",
            samples={
                name: values[i] if isinstance(values[0], list) else values
                for name, values in samples.items()
                if isinstance(values[0], list) or i == 0
            },
            missing=missing or {},
            facts={**FACTS, **facts},
        )
        for i in range(3)
    ]


def latency(*processes: float) -> dict[str, list[Any]]:
    return {"latency_s": [[p] for p in processes]}


def broken(status: Any, reason: str = "boom", case: Case = A) -> list[Measurement]:
    return [Measurement(case=case, replicate=0, status=status, reason=reason)]


def run_of(measurements: list[Measurement], run_id: str = "now", **changes: Any) -> Run:
    cases = tuple(dict.fromkeys(m.case for m in measurements))
    whole = Run(
        id=run_id,
        suite="digits",
        protocol=PROTOCOL,
        environment=ENVIRONMENT,
        metrics=METRICS,
        cases=cases,
        measurements=tuple(measurements),
        created="2026-01-02",
        finished="2026-01-02",
    )
    return replace(whole, **changes)


def stored(*runs: Run) -> list[Session]:
    return [
        Session(run=replace(run, id=f"s{i}"), reason="test", saved=f"2026-01-0{i + 1}") for i, run in enumerate(runs)
    ]


def sessions_of(*latencies: float) -> list[Session]:
    return stored(*(run_of(measured(latency(v, v, v))) for v in latencies))


def only(comparison: Comparison) -> Verdict:
    assert not comparison.refused
    assert len(comparison.verdicts) == 1, comparison.verdicts
    return comparison.verdicts[0]


def against(then: dict[str, list[Any]], now: dict[str, list[Any]], **keywords: Any) -> Verdict:
    return only(compare(run_of(measured(now)), stored(run_of(measured(then))), **keywords))


def changed(environment: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**environment, path[0]: value}
    return {**environment, path[0]: {**environment[path[0]], path[1]: value}}


def good_run(run_id: str = "good") -> Run:
    samples = {**latency(0.010, 0.011, 0.012), "parameters": [5.0], "top1": [1.0, 0.0]}
    return run_of([*measured(samples), *broken("skipped", "no TensorRT", case=B)], run_id)
