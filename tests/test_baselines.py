"""Baselines: what is stored, what is refused, and each rule with numbers small enough to check by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import store
from baselines.compare import compare, compare_stored
from baselines.fingerprint import (
    differences,
    fingerprint,
    machine_key,
    protocol_differences,
    soft_differences,
    software_differences,
)
from baselines.noisy import FULL_SESSIONS, SHARED_MACHINE_SD, discoveries, shift_of
from baselines.rows import rows_of
from baselines.rules import mcnemar
from baselines.store import BaselineRefused, Session
from baselines.verdict import Comparison, Verdict, exit_code
from harness.types import IDENTICAL, Case, Kind, Measurement, Metric, Protocol, Run

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


# ---- fingerprint


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("versions", "torch"), "2.14.1", "torch 2.14.1 here, 2.13.0 in the baseline"),
        (("versions", "onnxruntime"), None, "onnxruntime absent here, 1.31.1 in the baseline"),
        (("versions", "tensorrt"), "10.9", "TensorRT 10.9 here, absent in the baseline"),
        (("python",), "3.12.1", "Python 3.12 here, 3.11 in the baseline"),
        (("threads",), 1, "threads 1 here, 2 in the baseline"),
        (("driver",), "580.1", "driver major 580 here, 570 in the baseline"),
        (("cuda",), "12.8", "CUDA 12.8 here, 13.0 in the baseline"),
        (("cpu", "model"), "AMD EPYC", "CPU model AMD EPYC here, Intel(R) Xeon(R) 8481C in the baseline"),
        (("cpu", "cores_allowed"), 4, "CPU cores 4 here, 2 in the baseline"),
        (("cpu", "isa"), "AVX2", "CPU instruction set AVX2 here, AVX512 in the baseline"),
        (("cpu", "quota"), 1.5, "CPU quota 1.5 here, absent in the baseline"),
        (("flags", "OMP_NUM_THREADS"), "1", "flag OMP_NUM_THREADS 1 here, absent in the baseline"),
    ],
)
def test_hard_field_differs_in_words(path: tuple[str, ...], value: Any, words: str) -> None:
    assert differences(changed(GPU_ENVIRONMENT, path, value), GPU_ENVIRONMENT) == [words]
    assert fingerprint(changed(GPU_ENVIRONMENT, path, value)) != fingerprint(GPU_ENVIRONMENT)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "A100", "GPU model A100 here, H100 in the baseline"),
        ("memory_bytes", 5, "GPU memory 5 here, 80000000000 in the baseline"),
        ("power_limit_w", 400.0, "GPU power limit 400 here, 700 in the baseline"),
        ("mig", True, "GPU MIG True here, False in the baseline"),
    ],
)
def test_gpu_differs(field: str, value: Any, words: str) -> None:
    other = {**GPU_ENVIRONMENT, "gpus": [{**GPU_ENVIRONMENT["gpus"][0], field: value}]}
    assert differences(other, GPU_ENVIRONMENT) == [words]


def test_gpu_count_differs() -> None:
    two = {**GPU_ENVIRONMENT, "gpus": GPU_ENVIRONMENT["gpus"] * 2}
    assert "GPU count 2 here, 1 in the baseline" in differences(two, GPU_ENVIRONMENT)


def test_gpu_does_not_matter_to_a_cpu_run() -> None:
    assert differences({**GPU_ENVIRONMENT, "device": "cpu"}, ENVIRONMENT) == []


def changed(environment: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**environment, path[0]: value}
    return {**environment, path[0]: {**environment[path[0]], path[1]: value}}


def test_patch_versions_and_soft_fields_do_not_refuse() -> None:
    other = {**GPU_ENVIRONMENT, "python": "3.11.9", "driver": "570.99", "host_hash": "host-b", "kernel": "6.2.0"}
    other = changed(
        {**other, "gpus": [{**GPU_ENVIRONMENT["gpus"][0], "uuid": "GPU-2"}]}, ("versions", "diffusers"), "1"
    )
    assert differences(other, GPU_ENVIRONMENT) == []
    assert fingerprint(other) == fingerprint(GPU_ENVIRONMENT)
    assert soft_differences(other, GPU_ENVIRONMENT) == [
        "host host-b here, host-a in the baseline",
        "kernel 6.2.0 here, 6.1.0 in the baseline",
        "GPU UUID GPU-2 here, GPU-1 in the baseline",
    ]
    assert software_differences(other, GPU_ENVIRONMENT) == ["diffusers 1 here, 0.42.1 in the baseline"]


def test_unknown_machine_matches_only_its_own_host() -> None:
    unknown = changed(ENVIRONMENT, ("cpu", "model"), None)
    elsewhere = {**unknown, "host_hash": "host-b"}
    assert differences(unknown, unknown) == []
    assert differences(unknown, ENVIRONMENT) == []
    assert differences(elsewhere, unknown) == [
        "CPU model unknown here and in the baseline: an unknown machine matches no other host"
    ]
    assert len(differences(elsewhere, ENVIRONMENT)) == 1
    assert len(differences({**unknown, "host_hash": None}, {**unknown, "host_hash": None})) == 1
    assert fingerprint(unknown) != fingerprint(elsewhere)
    assert machine_key(unknown) != machine_key(elsewhere)


def test_machine_key_names_the_hardware_and_not_the_versions() -> None:
    assert machine_key(ENVIRONMENT).startswith("intel-r-xeon-r-8481c-2-cores-")
    assert machine_key(GPU_ENVIRONMENT).startswith("h100-2-cores-")
    assert machine_key(changed(ENVIRONMENT, ("versions", "torch"), "3")) == machine_key(ENVIRONMENT)
    assert machine_key({**ENVIRONMENT, "host_hash": "host-b"}) == machine_key(ENVIRONMENT)


def test_protocol_is_part_of_the_key_but_patience_is_not() -> None:
    assert protocol_differences(replace(PROTOCOL, min_samples=20), PROTOCOL) == [
        "protocol: min_samples 20 here, 10 in the baseline"
    ]
    assert protocol_differences(replace(PROTOCOL, timeout_s=1.0, quality=False), PROTOCOL) == []


# ---- store


def good_run(run_id: str = "good") -> Run:
    samples = {**latency(0.010, 0.011, 0.012), "parameters": [5.0], "top1": [1.0, 0.0]}
    return run_of([*measured(samples), *broken("skipped", "no TensorRT", case=B)], run_id)


def test_save_then_find_and_load_equal(tmp_path: Path) -> None:
    session = store.save(good_run(), " first ", tmp_path)
    assert session.path == tmp_path / machine_key(ENVIRONMENT) / "digits" / "good.json"
    assert store.find(good_run("other"), tmp_path) == [session] == [store.load(session.path)]
    assert session.run == good_run()
    assert session.reason == "first"
    assert [p.name for p in session.path.parent.iterdir()] == ["good.json"]


@pytest.mark.parametrize("reason", ["", "  "])
def test_save_wants_a_reason(reason: str, tmp_path: Path) -> None:
    with pytest.raises(BaselineRefused, match="accepted with a reason"):
        store.save(good_run(), reason, tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


def test_save_refuses_a_duplicate(tmp_path: Path) -> None:
    store.save(good_run(), "first", tmp_path)
    with pytest.raises(BaselineRefused, match="already stored"):
        store.save(good_run(), "again", tmp_path)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (run_of(broken("skipped")), "no row is ok"),
        (run_of([]), "no row is ok"),
        (run_of(measured(latency(1, 1, 1)), finished=None), "not finished"),
        (run_of(measured(latency(1, 1, 1)), cases=(A, B)), "not measured: b-eager"),
        (run_of(measured(latency(1, 1, 1))[:2]), r"fewer processes .* \(2 of 3\)"),
        (run_of(measured(latency(1, 1, 1)), problems=("line 3 was cut off",)), "line 3 was cut off"),
        (run_of(measured(latency(1, 0, 1))), "latency_s holds the value 0"),
        (run_of(measured(latency(1, -1, 1))), "latency_s holds the value -1"),
        (run_of(measured(latency(1, math.nan, 1))), "latency_s holds the value nan"),
        (run_of(measured({"fid": [math.inf]})), "fid holds the value inf"),
        (run_of(measured({"unheard": [1.0]})), "unheard is not described"),
        (run_of(measured({})), "ok, but without any value"),
        (run_of(measured(latency(1, 1, 1)), suite="../etc"), "cannot name a file"),
        (run_of(measured(latency(1, 1, 1)), run_id="a/b"), "cannot name a file"),
    ],
)
def test_save_refuses_even_with_force(run: Run, words: str, tmp_path: Path) -> None:
    with pytest.raises(BaselineRefused, match=words):
        store.save(run, "why", tmp_path, force=True)


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "invalid"])
def test_save_takes_broken_rows_only_by_force(status: str, tmp_path: Path) -> None:
    run = run_of([*measured(latency(1, 1, 1)), *broken(status, case=B)])
    with pytest.raises(BaselineRefused, match=f"not ok .*{status}: boom"):
        store.save(run, "why", tmp_path)
    assert store.save(run, "known", tmp_path, force=True).run == run


def test_save_refuses_to_drop_a_row_silently(tmp_path: Path) -> None:
    store.save(run_of([*measured(latency(1, 1, 1)), *measured(latency(1, 1, 1), case=B)], "both"), "first", tmp_path)
    with pytest.raises(BaselineRefused, match="measured in the newest baseline and not here"):
        store.save(run_of(measured(latency(1, 1, 1)), "half"), "second", tmp_path)
    store.save(run_of(measured(latency(1, 1, 1)), "half"), "second", tmp_path, force=True)


def test_an_edited_file_is_refused_everywhere(tmp_path: Path) -> None:
    path = store.save(good_run(), "first", tmp_path).path
    assert path
    path.write_text(path.read_text().replace("0.012", "0.022"))
    with pytest.raises(BaselineRefused, match="edited after it was saved") as caught:
        store.load(path)
    assert str(path) in str(caught.value)
    comparison = compare_stored(good_run("now"), tmp_path)
    assert "edited" in comparison.refused[0]
    assert exit_code(comparison) == 12
    assert [(e.run_id, "edited" in (e.problem or "")) for e in store.listing(tmp_path)] == [("good", True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "Expecting value"), ("[]", "not a stored session"), ('{"schema": 2}', "schema 2; this version reads 1")],
)
def test_load_refuses_other_files(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BaselineRefused, match=words):
        store.load(tmp_path / "x.json")


def test_load_refuses_a_sealed_file_without_its_run(tmp_path: Path) -> None:
    document = {"schema": 1, "reason": "r", "saved": "s", "run": {"schema": 1}}
    (tmp_path / "x.json").write_text(json.dumps({**document, "hash": store.seal(document)}))
    with pytest.raises(BaselineRefused, match=r"x\.json: UnreadableRun: KeyError"):
        store.load(tmp_path / "x.json")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaselineRefused, match="No such file"):
        store.load(tmp_path / "absent.json")


def test_reference_is_replaced_and_listed_first(tmp_path: Path) -> None:
    assert store.reference(tmp_path, "digits") is None
    store.save(good_run(), "mine", tmp_path)
    store.save_reference(good_run("old"), "shipped", tmp_path)
    store.save_reference(good_run("new"), "shipped again", tmp_path)
    found = store.reference(tmp_path, "digits")
    assert found
    assert found.run.id == "new"
    assert [(e.machine, e.run_id, e.rows) for e in store.listing(tmp_path)] == [
        ("reference", "new", 2),
        (machine_key(ENVIRONMENT), "good", 2),
    ]
    assert json.loads(json.dumps(store.listing_rows(tmp_path)))[0]["suite"] == "digits"


# ---- which baseline, which scope


def test_no_baseline(tmp_path: Path) -> None:
    comparison = compare_stored(good_run(), tmp_path)
    assert comparison.refused == (f"no baseline of suite 'digits' for this machine ({machine_key(ENVIRONMENT)})",)
    assert exit_code(comparison) == 12


def test_other_versions_refuse_with_what_differs(tmp_path: Path) -> None:
    store.save(good_run(), "before the upgrade", tmp_path)
    upgraded = replace(good_run("now"), environment=changed(ENVIRONMENT, ("versions", "torch"), "2.14.1"))
    comparison = compare_stored(upgraded, tmp_path)
    assert comparison.refused == comparison.differences == ("torch 2.14.1 here, 2.13.0 in the baseline",)
    assert exit_code(comparison) == 12


def test_other_machine_refuses_with_what_differs(tmp_path: Path) -> None:
    store.save(good_run(), "here", tmp_path)
    elsewhere = replace(good_run("now"), environment=changed(ENVIRONMENT, ("cpu", "model"), "AMD EPYC"))
    comparison = compare_stored(elsewhere, tmp_path)
    assert comparison.refused[0].startswith("no baseline of suite 'digits' for this machine (amd-epyc")
    assert comparison.differences == ("CPU model AMD EPYC here, Intel(R) Xeon(R) 8481C in the baseline",)


def test_other_protocol_refuses(tmp_path: Path) -> None:
    store.save(good_run(), "here", tmp_path)
    comparison = compare_stored(replace(good_run("now"), protocol=replace(PROTOCOL, min_samples=99)), tmp_path)
    assert comparison.refused == ("protocol: min_samples 99 here, 10 in the baseline",)


def test_reference_of_another_machine_leaves_speed_out(tmp_path: Path) -> None:
    samples = {"parameters": [5.0], "fid": [10.0], "psnr_db": [30.0], "load_s": [1.0], "peak_allocated_bytes": [1e9]}
    store.save_reference(run_of(measured({**samples, **latency(1, 1, 1)}), "shipped"), "shipped", tmp_path)
    other = changed(ENVIRONMENT, ("cpu", "model"), "AMD EPYC")
    now = run_of(measured({**samples, **latency(9, 9, 9), "fid": [20.0], "psnr_db": [20.0]}), environment=other)
    comparison = compare_stored(now, tmp_path)
    assert comparison.scope == "machine-independent"
    assert comparison.differences == ("CPU model AMD EPYC here, Intel(R) Xeon(R) 8481C in the baseline",)
    assert [(v.metric, v.outcome, v.gating) for v in comparison.verdicts] == [
        ("parameters", "unchanged", True),
        ("fid", "regressed", True),
        ("psnr_db", "regressed", False),
    ]
    assert exit_code(comparison) == 15


def test_reference_of_this_machine_compares_speed(tmp_path: Path) -> None:
    store.save_reference(run_of(measured(latency(1, 1, 1)), "shipped"), "shipped", tmp_path)
    comparison = compare_stored(run_of(measured(latency(1, 1, 1.01))), tmp_path)
    assert comparison.scope == "all"
    assert only(comparison).metric == "latency_s"


def test_unlike_own_baseline_falls_back_to_the_reference(tmp_path: Path) -> None:
    old = replace(good_run(), environment=changed(ENVIRONMENT, ("versions", "torch"), "2.12.0"))
    store.save(old, "before", tmp_path)
    store.save_reference(replace(old, id="shipped"), "shipped", tmp_path)
    comparison = compare_stored(good_run("now"), tmp_path)
    assert comparison.scope == "machine-independent"
    assert comparison.notes == ("this machine's own baseline is unlike: torch 2.13.0 here, 2.12.0 in the baseline",)


@pytest.mark.parametrize(("status", "outcome", "gating"), [("failed", "regressed", True), ("oom", "missing", False)])
def test_health_on_another_machine(status: str, outcome: str, gating: bool) -> None:
    comparison = compare(run_of(broken(status)), sessions_of(1.0), scope="machine-independent")
    assert (only(comparison).outcome, only(comparison).gating) == (outcome, gating)


def test_another_host_is_advisory() -> None:
    sessions = sessions_of(1.0, 1.0, 1.0, 1.01)
    run = run_of(measured(latency(2, 2, 2)), environment={**ENVIRONMENT, "host_hash": "host-b"})
    comparison = compare(run, sessions)
    assert only(comparison).outcome == "regressed"
    assert only(comparison).gating is False
    assert "speed is advisory: host host-b here, host-a in the baseline" in comparison.notes
    assert exit_code(comparison) == 0


def test_only_matching_sessions_count() -> None:
    sessions = sessions_of(1.0, 1.0, 5.0)
    unlike = replace(sessions[2].run, environment=changed(ENVIRONMENT, ("versions", "torch"), "2.12.0"))
    comparison = compare(run_of(measured(latency(1, 1, 1))), [*sessions[:2], replace(sessions[2], run=unlike)])
    assert comparison.sessions == 2
    assert comparison.baseline == "s1"


def test_a_run_is_not_compared_with_itself_where_there_is_another() -> None:
    sessions = sessions_of(1.0, 1.5)
    run = replace(run_of(measured(latency(1.5, 1.5, 1.5))), id="s1")
    assert compare(run, sessions).baseline == "s0"
    alone = compare(run, sessions[1:])
    assert only(alone).outcome == "unchanged"
    assert alone.notes == ("this run is the only stored session: it is compared with itself",)


# ---- noisy


def test_four_sessions_by_hand() -> None:
    # centres in log: 0, 0.02, 0, 0.02 -> mean 0.01, s = 0.011547; error = s * sqrt(1 + 1/4) = 0.012910
    # threshold = 0.01 + t(0.99, 3) * error = 0.01 + 4.540703 * 0.012910 = 0.068620
    sessions = [[[math.exp(v)]] for v in (0.0, 0.02, 0.0, 0.02)]
    shift = shift_of(METRICS["latency_s"], sessions, [[math.exp(0.11)]])
    assert shift.harm == pytest.approx(0.10)
    assert shift.error == pytest.approx(0.0129099, rel=1e-5)
    assert shift.threshold == pytest.approx(0.0686200, rel=1e-5)
    # + t(0.95, 3) * error = 2.353363 * 0.012910
    assert shift.detectable == pytest.approx(0.0686200 + 0.0303818, rel=1e-5)
    # t = (0.10 - 0.01) / 0.01291 = 6.971 on 3 degrees of freedom
    assert shift.p_value(+1) == pytest.approx(0.00303, rel=0.01)
    assert shift.gating


def test_four_sessions_gate() -> None:
    sessions = sessions_of(1.0, 1.01, 1.0, 1.01)
    slower = compare(run_of(measured(latency(1.3, 1.3, 1.3))), sessions)
    verdict = only(slower)
    assert (verdict.outcome, verdict.gating, slower.sessions) == ("regressed", True, 4)
    assert verdict.ratio == pytest.approx(1.3 / math.sqrt(1.01))
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < verdict.ratio < verdict.high
    assert verdict.minimum_detectable == pytest.approx(0.0564, rel=0.02)
    assert exit_code(slower) == 10
    faster = compare(run_of(measured(latency(0.7, 0.7, 0.7))), sessions)
    assert only(faster).outcome == "improved"
    assert exit_code(faster) == 0
    same = compare(run_of(measured(latency(1.0, 1.0, 1.02))), sessions)
    assert only(same).outcome == "unchanged"


def test_one_session_is_advisory() -> None:
    comparison = compare(run_of(measured(latency(2, 2, 2))), sessions_of(1.0))
    verdict = only(comparison)
    assert (verdict.outcome, verdict.gating) == ("regressed", False)
    assert verdict.reason.startswith("advisory: 1 of 4 sessions; +100.0 %, beyond the noise of 1 session")
    assert exit_code(comparison, strict=True) == 0
    error = SHARED_MACHINE_SD * math.sqrt(2)
    assert verdict.minimum_detectable == pytest.approx(math.expm1(0.01 + (2.326348 + 1.644854) * error), rel=1e-5)


def test_higher_is_better_turns_the_sign() -> None:
    sessions = stored(*(run_of(measured({"rate": [[v]] * 3})) for v in (100.0, 101.0, 100.0, 101.0)))
    assert only(compare(run_of(measured({"rate": [[70.0]] * 3})), sessions)).outcome == "regressed"
    verdict = only(compare(run_of(measured({"rate": [[140.0]] * 3})), sessions))
    assert verdict.outcome == "improved"
    assert verdict.ratio
    assert verdict.low
    assert verdict.low < verdict.ratio


def test_one_disturbed_process_does_not_alarm() -> None:
    verdict = only(compare(run_of(measured(latency(1.0, 2.0, 2.0))), sessions_of(1.0, 1.01, 1.0, 1.01)))
    assert verdict.outcome == "inconclusive"
    assert "the processes of this run disagree" in verdict.reason


def test_a_comparison_that_cannot_see_is_inconclusive() -> None:
    verdict = only(compare(run_of(measured(latency(1, 1, 1))), sessions_of(1.0, 1.5, 0.7, 1.2)))
    assert verdict.outcome == "inconclusive"
    assert verdict.minimum_detectable
    assert verdict.minimum_detectable > 0.5
    comparison = Comparison(run_id="r", suite="s", baseline="b", scope="all", verdicts=(verdict,))
    assert (exit_code(comparison), exit_code(comparison, strict=True)) == (0, 11)


def test_constant_samples_and_unequal_counts_have_verdicts() -> None:
    sessions = stored(*(run_of(measured({"latency_s": [[1.0] * 5] * 3})) for _ in range(4)))
    assert only(compare(run_of(measured({"latency_s": [[1.0] * 3] * 3})), sessions)).outcome == "unchanged"
    assert only(compare(run_of(measured({"latency_s": [[1.005] * 3] * 3})), sessions)).outcome == "unchanged"
    assert only(compare(run_of(measured({"latency_s": [[1.02] * 3] * 3})), sessions)).outcome == "regressed"
    assert against(latency(1, 1, 1), {"latency_s": [[1.0, 1.0]] * 3}).outcome == "inconclusive"


def test_a_lone_alarm_among_many_rows_is_a_suspect() -> None:
    assert discoveries([0.001, 0.5, 0.02], 0.03) == [True, False, True]
    assert discoveries([0.004] + [0.5] * 9, 0.01) == [False] * 10
    assert discoveries([0.009] * 10, 0.01) == [True] * 10
    assert discoveries([], 0.01) == []
    cases = [Case(model=f"m{i}") for i in range(20)]
    sessions = stored(*(run_of([m for c in cases for m in measured(latency(v, v, v), c)]) for v in (1, 1.02, 1, 1.02)))
    now = run_of([m for i, c in enumerate(cases) for m in measured(latency(*[1.12 if i == 0 else 1.0] * 3), c)])
    first, *rest = compare(now, sessions).verdicts
    assert first.outcome == "inconclusive"
    assert "suspect (regressed), but among 20 comparisons" in first.reason
    assert {v.outcome for v in rest} == {"unchanged"}


def simulate(rng: np.random.Generator, sessions: int, slower: float, rows: int = 24) -> list[list[Any]]:
    """Samples of each row, by session (this run last) and process; the three levels each have their noise."""
    noise = rng.normal(0, 0.015, (sessions + 1, 1, 1)) + rng.normal(0, 0.01, (sessions + 1, rows, 1))
    seconds = np.exp(noise + rng.normal(0, 0.02, (sessions + 1, rows, 3)))
    seconds[-1] *= slower
    return [[[[v] for v in seconds[s, r]] for s in range(sessions + 1)] for r in range(rows)]


def alarms(rng: np.random.Generator, sessions: int, slower: float) -> int:
    shifts = [shift_of(METRICS["latency_s"], row[:-1], row[-1]) for row in simulate(rng, sessions, slower)]
    confirmed = discoveries([s.p_value(+1) for s in shifts], 0.01)
    return sum(c and s.harm > s.threshold for c, s in zip(confirmed, shifts, strict=True))


@pytest.mark.parametrize(("sessions", "least_power"), [(FULL_SESSIONS, 0.6), (10, 0.99)])
def test_simulated_false_alarms_and_power(sessions: int, least_power: float) -> None:
    rng = np.random.default_rng(7)
    quiet = [alarms(rng, sessions, 1.0) for _ in range(100)]
    slower = [alarms(rng, sessions, 1.2) for _ in range(30)]
    assert sum(count > 0 for count in quiet) <= 2, "runs with any alarm where nothing changed"
    assert np.mean(slower) / 24 >= least_power, "share of the rows found where all are 20 % slower"


# ---- exact, near-exact, energy, advisory


def test_exact_values() -> None:
    assert against({"parameters": [5.0]}, {"parameters": [5.0]}).outcome == "unchanged"
    other = against({"parameters": [5.0]}, {"parameters": [6.0]})
    assert (other.outcome, other.reason) == ("not_comparable", "changed from 5 to 6: not the same work")
    assert against({"weights_bytes": [100.0]}, {"weights_bytes": [101.0]}).outcome == "regressed"
    assert against({"weights_bytes": [100.0]}, {"weights_bytes": [99.0]}).outcome == "improved"
    varying = against({"parameters": [5.0]}, {"parameters": [[5.0], [6.0], [5.0]]})
    assert (varying.outcome, varying.reason) == ("not_comparable", "an exact value varies within one run: 5, 6")


@pytest.mark.parametrize(
    ("then", "now", "outcome"),
    [
        (100 * MIB, 102 * MIB, "unchanged"),  # 2 MiB is more than 0.5 %
        (100 * MIB, 102 * MIB + 1, "regressed"),
        (1000 * MIB, 1005 * MIB, "unchanged"),  # 0.5 % is more than 2 MiB
        (1000 * MIB, 1005 * MIB + 1, "regressed"),
        (1000 * MIB, 990 * MIB, "improved"),
    ],
)
def test_near_exact(then: float, now: float, outcome: str) -> None:
    assert against({"peak_allocated_bytes": [then]}, {"peak_allocated_bytes": [now]}).outcome == outcome


def test_near_exact_is_no_finer_than_its_own_sessions() -> None:
    runs = [run_of(measured({"peak_allocated_bytes": [v * MIB]})) for v in (100.0, 110.0, 104.0)]
    now = run_of(measured({"peak_allocated_bytes": [113.0 * MIB]}))
    assert only(compare(now, stored(*runs))).outcome == "unchanged"


@pytest.mark.parametrize(("now", "outcome"), [(10.9, "unchanged"), (11.2, "regressed"), (8.0, "improved")])
def test_energy(now: float, outcome: str) -> None:
    verdict = against({"energy_per_image_j": [10.0]}, {"energy_per_image_j": [now]})
    assert (verdict.outcome, verdict.gating) == (outcome, True)


def test_advisory_metrics_are_not_judged() -> None:
    """Noise of which nothing is known is never sold as a regression."""
    both = {"load_s": [1.0], "parameters": [1.0]}
    found = compare(run_of(measured({**both, "load_s": [5.0]})), stored(run_of(measured(both))))
    assert [v.metric for v in found.verdicts] == ["parameters"]
    assert exit_code(found) == 0


def test_a_run_with_nothing_to_judge_measured_nothing() -> None:
    assert exit_code(compare(run_of(measured({"load_s": [5.0]})), stored(run_of(measured({"load_s": [1.0]}))))) == 13


# ---- quality


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 0) == 1.0
    assert mcnemar(8, 0) == 2 / 2**8
    assert mcnemar(9, 1) == mcnemar(1, 9) == 2 * (1 + 10) / 2**10
    assert mcnemar(5, 5) == 1.0


@pytest.mark.parametrize(
    ("lost", "won", "outcome"),
    [(7, 0, "unchanged"), (8, 0, "regressed"), (0, 8, "improved"), (9, 1, "unchanged"), (12, 1, "regressed")],
)
def test_items(lost: int, won: int, outcome: str) -> None:
    then = [1.0] * lost + [0.0] * won + [1.0] * (100 - lost - won)
    now = [0.0] * lost + [1.0] * won + [1.0] * (100 - lost - won)
    verdict = against({"top1": then}, {"top1": now})
    assert verdict.outcome == outcome
    assert verdict.reason.startswith(f"{lost + won} of 100 items flipped ({lost + won}.0 %): {lost} lost, {won} won; ")
    assert verdict.baseline == (100 - won) / 100


def test_items_in_equal_number_on_both_sides_still_show_their_flips() -> None:
    verdict = against({"top1": [1.0, 0.0] * 5}, {"top1": [0.0, 1.0] * 5})
    assert (verdict.outcome, verdict.ratio) == ("unchanged", 1.0)
    assert "10 of 10 items flipped (100.0 %)" in verdict.reason


def test_items_that_cannot_be_paired() -> None:
    other_count = against({"top1": [1.0] * 10}, {"top1": [1.0] * 9})
    assert (other_count.outcome, other_count.reason) == ("not_comparable", "9 items here, 10 in the baseline")
    assert against({"top1": [1.0, 0.5]}, {"top1": [1.0, 0.0]}).outcome == "not_comparable"
    assert against({"top1": [1.0] * 7}, {"top1": [0.0] * 7}).outcome == "inconclusive", "7 items can never reach 1 %"


@pytest.mark.parametrize(
    ("then", "now", "outcome"),
    [(50.0, 55.0, "unchanged"), (50.0, 56.0, "regressed"), (50.0, 40.0, "improved"), (-0.001, 0.003, "unchanged")],
)
def test_sets(then: float, now: float, outcome: str) -> None:
    assert against({"fid": [then]}, {"fid": [now]}).outcome == outcome


@pytest.mark.parametrize(
    "conditions", [{"items": 20, "reference_hash": "r1"}, {"items": 10, "reference_hash": "r2"}, None]
)
@pytest.mark.parametrize("name", ["fid", "top1"])
def test_quality_of_other_conditions(conditions: Any, name: str) -> None:
    now = run_of(measured({name: [1.0]}, quality_conditions=conditions))
    verdict = only(compare(now, stored(run_of(measured({name: [1.0]})))))
    assert verdict.outcome == "not_comparable"
    assert "conditions" in verdict.reason


@pytest.mark.parametrize(
    ("name", "then", "now", "outcome"),
    [
        ("psnr_db", 30.0, 29.5, "unchanged"),
        ("psnr_db", 30.0, 29.4, "regressed"),
        ("psnr_db", 90.0, 62.0, "unchanged"),
        ("psnr_db", 90.0, 59.0, "regressed"),
        ("cosine_similarity", 0.999, 0.990, "unchanged"),
        ("cosine_similarity", 0.999, 0.980, "regressed"),
        ("cosine_similarity", 0.980, 0.999, "improved"),
    ],
)
def test_continuous(name: str, then: float, now: float, outcome: str) -> None:
    assert against({name: [then]}, {name: [now]}).outcome == outcome


def test_identical_pictures_have_no_psnr_and_are_not_missing() -> None:
    number = run_of(measured({"psnr_db": [30.0]}))
    identical = run_of(measured({"parameters": [1.0]}, missing={"psnr_db": IDENTICAL}))
    outcomes = {}
    for words, then, now in [("then", identical, number), ("now", number, identical), ("both", identical, identical)]:
        verdicts = compare(now, stored(then)).verdicts
        outcomes[words] = next(v.outcome for v in verdicts if v.metric == "psnr_db")
    assert outcomes == {"then": "regressed", "now": "improved", "both": "unchanged"}


# ---- fail closed


def test_bit_identical_ends_the_matter() -> None:
    same = {**latency(1, 3, 9), "top1": [1.0, 0.0], "fid": [3.0], "parameters": [5.0]}
    comparison = compare(run_of(measured(same)), stored(run_of(measured(same))))
    assert {v.outcome for v in comparison.verdicts} == {"unchanged"}
    assert exit_code(comparison, strict=True) == 0


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("side", ["then", "now"])
def test_zero_and_non_finite_are_never_a_pass(value: float, side: str) -> None:
    good, bad = latency(1, 1, 1), latency(1, value, 1)
    then, now = (bad, good) if side == "then" else (good, bad)
    comparison = compare(run_of(measured(now)), stored(run_of(measured(then))))
    assert only(comparison).outcome == "not_comparable"
    assert f"latency_s holds the value {value:g}" in only(comparison).reason
    assert exit_code(comparison) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "ms"}, "unit ms here, s in the baseline"),
        ({"better": "higher"}, "better higher here, lower in the baseline"),
        ({"kind": "advisory"}, "kind advisory here, noisy in the baseline"),
    ],
)
def test_another_meaning_of_a_metric(change: dict[str, Any], words: str) -> None:
    metrics = {**METRICS, "latency_s": replace(METRICS["latency_s"], **change)}
    comparison = compare(run_of(measured(latency(1, 1, 1)), metrics=metrics), sessions_of(1.0))
    assert (only(comparison).outcome, only(comparison).reason, only(comparison).gating) == (
        "not_comparable",
        words,
        True,
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"work_hash": "w2", "identity": {"steps": 10}}, "other work: steps 10 here, 20 in the baseline"),
        ({"work_hash": "w2"}, "other work: work identity w2 here, w1 in the baseline"),
        ({"work_hash": None}, "no work identity recorded here"),
    ],
)
def test_other_work(facts: dict[str, Any], words: str) -> None:
    comparison = compare(run_of(measured(latency(1, 1, 1), **facts)), sessions_of(1.0))
    assert (only(comparison).metric, only(comparison).outcome) == ("row", "not_comparable")
    assert only(comparison).reason == words
    assert exit_code(comparison) == 12


def test_a_metric_that_is_gone_is_missing_with_its_reason() -> None:
    then = run_of(measured({**latency(1, 1, 1), "energy_per_image_j": [1.0]}))
    now = run_of(measured(latency(1, 1, 1), missing={"energy_per_image_j": "no RAPL"}))
    gone = compare(now, stored(then)).verdicts[1]
    assert (gone.metric, gone.outcome, gone.reason, gone.gating) == ("energy_per_image_j", "missing", "no RAPL", True)
    back = compare(then, stored(now)).verdicts[1]
    assert (back.outcome, back.reason, back.gating) == ("new", "not in the baseline (no RAPL)", False)


def test_a_removed_row_is_missing_unless_it_was_not_asked_for() -> None:
    both = run_of([*measured(latency(1, 1, 1)), *measured(latency(1, 1, 1), case=B)])
    now = run_of(measured(latency(1, 1, 1)))
    comparison = compare(now, stored(both))
    assert [(v.metric, v.outcome) for v in comparison.verdicts] == [("latency_s", "unchanged"), ("row", "missing")]
    assert exit_code(comparison) == 12
    filtered = compare(now, stored(both), planned=[A.id])
    assert exit_code(filtered) == 0
    assert filtered.notes == ("rows of the baseline that were not asked for in this run: 1",)


def test_a_renamed_row_is_missing_and_new() -> None:
    comparison = compare(run_of(measured(latency(1, 1, 1), case=B)), sessions_of(1.0))
    assert [(v.case_id, v.outcome) for v in comparison.verdicts] == [(A.id, "missing"), (B.id, "new")]
    assert exit_code(comparison) == 12


def test_a_new_row_counts_only_when_strict() -> None:
    now = run_of([*measured(latency(1, 1, 1)), *measured(latency(1, 1, 1), case=B)])
    comparison = compare(now, sessions_of(1.0))
    assert (exit_code(comparison), exit_code(comparison, strict=True)) == (0, 12)


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "invalid"])
def test_a_new_failure_is_a_regression(status: str) -> None:
    comparison = compare(run_of(broken(status)), sessions_of(1.0))
    verdict = only(comparison)
    assert (verdict.outcome, verdict.gating) == ("regressed", True)
    assert verdict.reason == f"health: {status}: boom; in the baseline ok"
    assert exit_code(comparison) == 10


def test_one_failed_process_breaks_its_row() -> None:
    two = measured(latency(1, 1, 1))[:2]
    failed = Measurement(case=A, replicate=2, status="failed", reason="boom")
    run = run_of([*two, failed])
    assert rows_of(run)[A.id].status == "failed"
    assert only(compare(run, sessions_of(1.0))).outcome == "regressed"


@pytest.mark.parametrize(
    ("then", "now", "outcome", "gating"),
    [
        (measured(latency(1, 1, 1)), broken("skipped", "gone"), "missing", True),
        (broken("skipped", "x"), broken("skipped", "x"), "unchanged", False),
        (broken("skipped", "x"), broken("skipped", "y"), "missing", False),
        (broken("skipped", "x"), broken("failed"), "regressed", True),
        (broken("oom"), broken("failed"), "unchanged", False),
        (broken("failed"), measured(latency(1, 1, 1)), "improved", False),
    ],
)
def test_health(then: list[Measurement], now: list[Measurement], outcome: str, gating: bool) -> None:
    verdict = only(compare(run_of(now), stored(run_of(then))))
    assert (verdict.metric, verdict.outcome, verdict.gating) == ("row", outcome, gating)


def test_nothing_measured() -> None:
    comparison = compare(run_of([], cases=(A,)), sessions_of(1.0))
    assert only(comparison).outcome == "missing"
    assert exit_code(comparison) == 13


# ---- exit codes


def said(outcome: Any, kind: str = "noisy", gating: bool = True) -> Verdict:
    value = None if outcome == "missing" else 1.0
    return Verdict(
        case_id="c",
        label="c",
        metric="m",
        kind=kind,
        unit="s",
        outcome=outcome,
        reason="r",
        candidate=value,
        gating=gating,
    )


@pytest.mark.parametrize(
    ("verdicts", "code", "strict_code"),
    [
        ([], 13, 13),
        ([said("unchanged")], 0, 0),
        ([said("improved")], 0, 0),
        ([said("unchanged"), said("inconclusive")], 0, 11),
        ([said("unchanged"), said("inconclusive", gating=False)], 0, 0),
        ([said("unchanged"), said("new")], 0, 12),
        ([said("unchanged"), said("missing")], 12, 12),
        ([said("unchanged"), said("missing", gating=False)], 0, 0),
        ([said("missing")], 13, 13),
        ([said("not_comparable")], 12, 12),
        ([said("not_comparable"), said("inconclusive")], 12, 12),
        ([said("not_comparable"), said("regressed")], 10, 10),
        ([said("regressed", gating=False), said("unchanged")], 0, 0),
        ([said("regressed"), said("regressed", "quality_item")], 15, 15),
        ([said("regressed", "quality_set")], 15, 15),
        ([said("regressed", "health")], 10, 10),
    ],
)
def test_exit_codes(verdicts: list[Verdict], code: int, strict_code: int) -> None:
    comparison = Comparison(run_id="r", suite="s", baseline="b", scope="all", verdicts=tuple(verdicts))
    assert (exit_code(comparison), exit_code(comparison, strict=True)) == (code, strict_code)


def test_exit_code_of_a_refusal() -> None:
    comparison = Comparison(run_id="r", suite="s", baseline="", scope="all", refused=("no baseline",))
    assert exit_code(comparison) == 12


def test_baselines_import_with_torch_absent() -> None:
    code = "import sys; sys.modules['torch'] = None; import baselines.compare, baselines.store; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_a_run_of_contended_rows_is_no_baseline_unless_forced(tmp_path: Path) -> None:
    run = run_of(measured({"latency_s": [0.1, 0.1]}))
    busy = replace(
        run, measurements=tuple(replace(m, warnings=("contended: other processes used 90%",)) for m in run.measurements)
    )
    with pytest.raises(BaselineRefused, match="contended: 1 of 1 rows met a busy machine"):
        store.save(busy, "a reason", tmp_path)
    assert store.save(busy, "a reason", tmp_path, force=True).path is not None
