"""Which stored session a run is compared with, and what of it may be compared."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baseline_fixture import (
    ENVIRONMENT,
    GPU_ENVIRONMENT,
    PROTOCOL,
    broken,
    changed,
    good_run,
    latency,
    measured,
    only,
    run_of,
    sessions_of,
    stored,
    texts,
)

from baselines.stored import store
from baselines.stored.compare import compare, compare_stored
from baselines.stored.fingerprint import machine_key
from baselines.stored.store import BaselineRefused, Session
from baselines.verdict import Comparison, Verdict, exit_code
from harness.reasons import Reason, stated


def test_no_baseline(tmp_path: Path) -> None:
    comparison = compare_stored(good_run(), tmp_path)
    assert texts(comparison.refused) == [
        f"no baseline of suite 'digits' exists for this machine ({machine_key(ENVIRONMENT)})"
    ]
    assert exit_code(comparison) == 12


def test_other_versions_refuse_with_what_differs(tmp_path: Path) -> None:
    store.save(good_run(), "before the upgrade", tmp_path)
    upgraded = replace(good_run("now"), environment=changed(ENVIRONMENT, ("versions", "torch"), "2.14.1"))
    comparison = compare_stored(upgraded, tmp_path)
    assert comparison.refused == comparison.differences
    assert texts(comparison.refused) == ["torch is 2.14.1 here and 2.13.0 in the baseline"]
    assert exit_code(comparison) == 12


def test_other_machine_refuses_with_what_differs(tmp_path: Path) -> None:
    store.save(good_run(), "here", tmp_path)
    elsewhere = replace(good_run("now"), environment=changed(ENVIRONMENT, ("cpu", "model"), "AMD EPYC"))
    comparison = compare_stored(elsewhere, tmp_path)
    assert str(comparison.refused[0]).startswith("no baseline of suite 'digits' exists for this machine (amd-epyc")
    assert texts(comparison.differences) == ["CPU model is AMD EPYC here and Intel(R) Xeon(R) 8481C in the baseline"]


def test_other_protocol_refuses(tmp_path: Path) -> None:
    store.save(good_run(), "here", tmp_path)
    comparison = compare_stored(replace(good_run("now"), protocol=replace(PROTOCOL, min_samples=99)), tmp_path)
    assert texts(comparison.refused) == ["protocol: min_samples is 99 here and 10 in the baseline"]


def test_reference_of_another_machine_leaves_speed_out(tmp_path: Path) -> None:
    samples = {"parameters": [5.0], "fid": [10.0], "psnr_db": [30.0], "load_s": [1.0], "peak_allocated_bytes": [1e9]}
    store.save_reference(run_of(measured({**samples, **latency(1, 1, 1)}), "shipped"), "shipped", tmp_path)
    other = changed(ENVIRONMENT, ("cpu", "model"), "AMD EPYC")
    now = run_of(measured({**samples, **latency(9, 9, 9), "fid": [20.0], "psnr_db": [20.0]}), environment=other)
    comparison = compare_stored(now, tmp_path)
    assert comparison.scope == "machine-independent"
    assert texts(comparison.differences) == ["CPU model is AMD EPYC here and Intel(R) Xeon(R) 8481C in the baseline"]
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
    assert texts(comparison.notes) == [
        "the baseline of this machine does not match: torch is 2.13.0 here and 2.12.0 in the baseline"
    ]


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
    assert "speed is advisory: host is host-b here and host-a in the baseline" in texts(comparison.notes)
    assert exit_code(comparison) == 0


NOW_ON_A_GPU = {**GPU_ENVIRONMENT, "torch_settings": {"cudnn": True}, "shortest_sample_s": 4e-3}


def on_a_gpu(environment: dict[str, Any], *latencies: float) -> list[Session]:
    runs = [replace(s.run, environment=environment) for s in sessions_of(*latencies)]
    return stored(*runs)


def test_times_of_a_gpu_are_advisory_against_samples_of_another_length() -> None:
    """A row of 0.1 ms is 5 to 10 % faster in samples of 4 ms: the synchronisation is a smaller part of them."""
    old, new = on_a_gpu(GPU_ENVIRONMENT, 1.0, 1.0, 1.0, 1.01), on_a_gpu(NOW_ON_A_GPU, 1.0, 1.0, 1.0, 1.01)
    for sessions, environment in ((old, NOW_ON_A_GPU), (new, GPU_ENVIRONMENT)):
        comparison = compare(run_of(measured(latency(2, 2, 2)), environment=environment), sessions)
        assert (only(comparison).outcome, only(comparison).gating) == ("regressed", False)
        assert str(only(comparison).reason).startswith("advisory: shortest sample ")
        assert exit_code(comparison) == 0
    alike = compare(run_of(measured(latency(2, 2, 2)), environment=GPU_ENVIRONMENT), old)
    assert exit_code(alike) == 10, "two runs from before are judged as they were"
    quality = {"top1": [1.0] * 100}
    lost = run_of(measured({"top1": [0.0] * 100}), environment=NOW_ON_A_GPU)
    there = stored(run_of(measured(quality), environment=GPU_ENVIRONMENT))
    assert exit_code(compare(lost, there)) == 15, "quality does not depend on the length of a sample"


def test_sessions_whose_samples_have_another_length_give_no_time_where_others_have_the_same() -> None:
    old, new = on_a_gpu(GPU_ENVIRONMENT, *[1.2] * 4), on_a_gpu(NOW_ON_A_GPU, 1.0, 1.0, 1.0, 1.01)
    for runs in ([*old, *new], [*new, *old]):
        sessions = stored(*(s.run for s in runs))
        slow = compare(run_of(measured(latency(1.2, 1.2, 1.2)), environment=NOW_ON_A_GPU), sessions)
        assert (only(slow).outcome, exit_code(slow)) == ("regressed", 10)
        assert only(slow).baseline == pytest.approx(1.0025, rel=1e-3)
        good = compare(run_of(measured(latency(1, 1, 1)), environment=NOW_ON_A_GPU), sessions)
        assert (only(good).outcome, exit_code(good)) == ("unchanged", 0)


def test_a_time_that_only_sessions_of_another_length_have_is_new() -> None:
    with_energy = {**latency(1, 1, 1), "energy_per_image_j": [1.0]}
    old = run_of(measured(with_energy), environment=GPU_ENVIRONMENT)
    new = run_of(measured(latency(1, 1, 1)), environment=NOW_ON_A_GPU)
    found = compare(
        run_of(measured({**with_energy, "energy_per_image_j": [2.0]}), environment=NOW_ON_A_GPU), stored(old, new)
    )
    (energy,) = [v for v in found.verdicts if v.metric == "energy_per_image_j"]
    assert (energy.outcome, energy.gating) == ("new", False)


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
    assert texts(alone.notes) == ["this run is the only stored session, so it is compared with itself"]


def said(outcome: Any, kind: str = "noisy", gating: bool = True) -> Verdict:
    value = None if outcome == "missing" else 1.0
    return Verdict(
        case_id="c",
        label="c",
        metric="m",
        kind=kind,
        unit="s",
        outcome=outcome,
        reason=stated("r"),
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
        ([said("unchanged"), said("new")], 12, 12),
        ([said("unchanged"), said("new", gating=False)], 0, 12),
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
    comparison = Comparison(run_id="r", suite="s", baseline="", scope="all", refused=(stated("no baseline"),))
    assert exit_code(comparison) == 12


def test_baselines_import_with_torch_absent() -> None:
    imports = "import baselines.stored.compare, baselines.stored.store"
    code = f"import sys; sys.modules['torch'] = None; {imports}; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_a_run_of_contended_rows_is_no_baseline_unless_forced(tmp_path: Path) -> None:
    run = run_of(measured({"latency_s": [0.1, 0.1]}))
    told = (Reason("contended_cpu", {"used": 0.9}),)
    busy = replace(run, measurements=tuple(replace(m, warnings=told) for m in run.measurements))
    with pytest.raises(BaselineRefused, match="1 of 1 rows were contended"):
        store.save(busy, "a reason", tmp_path)
    assert store.save(busy, "a reason", tmp_path, force=True).path is not None
