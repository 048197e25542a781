"""Baselines: what makes two machines alike, what is stored, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baseline_fixture import (
    ENVIRONMENT,
    GPU_ENVIRONMENT,
    PROTOCOL,
    A,
    B,
    broken,
    changed,
    good_run,
    latency,
    measured,
    run_of,
    stored,
    texts,
)

from baselines.stored import store
from baselines.stored.compare import compare, compare_stored
from baselines.stored.fingerprint import (
    UNRECORDED,
    UNRECORDED_ON_GPU,
    differences,
    fingerprint,
    hard_fields,
    machine_key,
    protocol_differences,
    soft_differences,
    soft_fields,
    software_differences,
)
from baselines.stored.store import BaselineRefused, find, save
from baselines.verdict import NOT_COMPARABLE, exit_code
from harness import backends
from harness.types import Run


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("versions", "torch"), "2.14.1", "torch is 2.14.1 here and 2.13.0 in the baseline"),
        (("versions", "onnxruntime"), None, "onnxruntime is absent here and 1.31.1 in the baseline"),
        (("versions", "tensorrt"), "10.9", "TensorRT is 10.9 here and absent in the baseline"),
        (("versions", "tensorrt-cu13"), "11.4", "TensorRT for CUDA 13 is 11.4 here and absent in the baseline"),
        (("versions", "openvino"), "2026.4", "OpenVINO is 2026.4 here and absent in the baseline"),
        (("python",), "3.12.1", "Python is 3.12 here and 3.11 in the baseline"),
        (("threads",), 1, "threads is 1 here and 2 in the baseline"),
        (("driver",), "580.1", "driver major is 580 here and 570 in the baseline"),
        (("cuda",), "12.8", "CUDA is 12.8 here and 13.0 in the baseline"),
        (("cpu", "model"), "AMD EPYC", "CPU model is AMD EPYC here and Intel(R) Xeon(R) 8481C in the baseline"),
        (("cpu", "cores_allowed"), 4, "CPU cores is 4 here and 2 in the baseline"),
        (("cpu", "isa"), "AVX2", "CPU instruction set is AVX2 here and AVX512 in the baseline"),
        (("cpu", "quota"), 1.5, "CPU quota is 1.5 here and absent in the baseline"),
        (("flags", "OMP_NUM_THREADS"), "1", "flag OMP_NUM_THREADS is 1 here and absent in the baseline"),
    ],
)
def test_hard_field_differs_in_words(path: tuple[str, ...], value: Any, words: str) -> None:
    assert texts(differences(changed(GPU_ENVIRONMENT, path, value), GPU_ENVIRONMENT)) == [words]
    assert fingerprint(changed(GPU_ENVIRONMENT, path, value)) != fingerprint(GPU_ENVIRONMENT)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "A100", "GPU model is A100 here and H100 in the baseline"),
        ("memory_bytes", 5, "GPU memory is 5 here and 80000000000 in the baseline"),
        ("power_limit_w", 400.0, "GPU power limit is 400 here and 700 in the baseline"),
        ("mig", True, "GPU MIG is True here and False in the baseline"),
    ],
)
def test_gpu_differs(field: str, value: Any, words: str) -> None:
    other = {**GPU_ENVIRONMENT, "gpus": [{**GPU_ENVIRONMENT["gpus"][0], field: value}]}
    assert texts(differences(other, GPU_ENVIRONMENT)) == [words]


def test_gpu_count_differs() -> None:
    two = {**GPU_ENVIRONMENT, "gpus": GPU_ENVIRONMENT["gpus"] * 2}
    assert "GPU count is 2 here and 1 in the baseline" in texts(differences(two, GPU_ENVIRONMENT))


SETTINGS = {"bf16_reduced_precision_reduction": True, "cudnn_benchmark": False, "deterministic_algorithms": False}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "bf16_reduced_precision_reduction",
            False,
            "bf16_reduced_precision_reduction is False here and True in the baseline",
        ),
        ("cudnn_benchmark", True, "cudnn_benchmark is True here and False in the baseline"),
        ("deterministic_algorithms", True, "deterministic_algorithms is True here and False in the baseline"),
    ],
)
def test_settings_of_torch_differ_on_a_gpu(name: str, value: bool, words: str) -> None:
    before = {**GPU_ENVIRONMENT, "torch_settings": SETTINGS}
    other = changed(before, ("torch_settings", name), value)
    assert texts(differences(other, before)) == [f"torch setting {words}"]
    assert fingerprint(other) != fingerprint(before)
    assert differences(other, GPU_ENVIRONMENT) == [], "a session from before they were recorded"
    assert differences(GPU_ENVIRONMENT, other) == []


def test_settings_of_torch_on_a_cpu_are_deterministic_algorithms_alone() -> None:
    before = {**ENVIRONMENT, "torch_settings": SETTINGS}
    assert fingerprint(before) == fingerprint(ENVIRONMENT)
    assert differences(changed(before, ("torch_settings", "cudnn_benchmark"), True), before) == []
    slow = changed(before, ("torch_settings", "deterministic_algorithms"), True)
    words = "torch setting deterministic_algorithms is True here and absent in the baseline"
    assert texts(differences(slow, before)) == [words]


def test_which_of_equal_gpus_is_visible_is_a_soft_difference_on_a_gpu_alone() -> None:
    def seen(devices: str, environment: dict[str, Any] = GPU_ENVIRONMENT) -> dict[str, Any]:
        return changed({**environment, "torch_settings": SETTINGS}, ("flags", "CUDA_VISIBLE_DEVICES"), devices)

    assert differences(seen("1"), seen("0")) == []
    assert fingerprint(seen("1")) == fingerprint(seen("0"))
    assert texts(soft_differences(seen("1"), seen("0"))) == [
        "flag CUDA_VISIBLE_DEVICES is 1 here and 0 in the baseline"
    ]
    assert soft_differences(seen("", ENVIRONMENT), ENVIRONMENT) == [], "a CPU was measured"
    assert fingerprint(seen("", ENVIRONMENT)) == fingerprint(ENVIRONMENT)


def test_variables_of_a_gpu_are_not_held_against_a_session_from_before_they_were_recorded() -> None:
    now = changed({**GPU_ENVIRONMENT, "torch_settings": SETTINGS}, ("flags", "CUBLAS_WORKSPACE_CONFIG"), ":4096:8")
    now = changed(now, ("flags", "CUDA_VISIBLE_DEVICES"), "1")
    assert differences(now, GPU_ENVIRONMENT) == differences(GPU_ENVIRONMENT, now) == []
    assert soft_differences(now, GPU_ENVIRONMENT) == soft_differences(GPU_ENVIRONMENT, now) == []
    known = {**GPU_ENVIRONMENT, "torch_settings": SETTINGS}
    assert texts(differences(now, known)) == ["flag CUBLAS_WORKSPACE_CONFIG is :4096:8 here and absent in the baseline"]
    threads = changed(now, ("flags", "OMP_NUM_THREADS"), "1")
    told = texts(differences(threads, GPU_ENVIRONMENT))
    assert told == ["flag OMP_NUM_THREADS is 1 here and absent in the baseline"], "that one was recorded before, too"


def test_the_length_of_a_sample_is_a_soft_difference_and_0_2_ms_where_it_was_not_recorded() -> None:
    longer = {**GPU_ENVIRONMENT, "shortest_sample_s": 4e-3}
    assert differences(longer, GPU_ENVIRONMENT) == []
    assert fingerprint(longer) == fingerprint(GPU_ENVIRONMENT)
    assert texts(soft_differences(longer, GPU_ENVIRONMENT)) == [
        "shortest sample is 4 ms here and 0.2 ms in the baseline"
    ]
    assert soft_differences({**ENVIRONMENT, "shortest_sample_s": 2e-4}, ENVIRONMENT) == []


def test_gpu_does_not_matter_to_a_cpu_run() -> None:
    assert differences({**GPU_ENVIRONMENT, "device": "cpu"}, ENVIRONMENT) == []


def test_patch_versions_and_soft_fields_do_not_refuse() -> None:
    other = {**GPU_ENVIRONMENT, "python": "3.11.9", "driver": "570.99", "host_hash": "host-b", "kernel": "6.2.0"}
    other = changed(
        {**other, "gpus": [{**GPU_ENVIRONMENT["gpus"][0], "uuid": "GPU-2"}]}, ("versions", "diffusers"), "1"
    )
    assert differences(other, GPU_ENVIRONMENT) == []
    assert fingerprint(other) == fingerprint(GPU_ENVIRONMENT)
    assert texts(soft_differences(other, GPU_ENVIRONMENT)) == [
        "host is host-b here and host-a in the baseline",
        "kernel is 6.2.0 here and 6.1.0 in the baseline",
        "GPU UUID is GPU-2 here and GPU-1 in the baseline",
    ]
    assert texts(software_differences(other, GPU_ENVIRONMENT)) == ["diffusers is 1 here and 0.42.1 in the baseline"]


def test_unknown_machine_matches_only_its_own_host() -> None:
    unknown = changed(ENVIRONMENT, ("cpu", "model"), None)
    elsewhere = {**unknown, "host_hash": "host-b"}
    assert differences(unknown, unknown) == []
    assert differences(unknown, ENVIRONMENT) == []
    assert texts(differences(elsewhere, unknown)) == [
        "CPU model is unknown here and in the baseline, and an unknown machine matches no other host"
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
    assert texts(protocol_differences(replace(PROTOCOL, min_samples=20), PROTOCOL)) == [
        "protocol: min_samples is 20 here and 10 in the baseline"
    ]
    assert protocol_differences(replace(PROTOCOL, timeout_s=1.0, quality=False), PROTOCOL) == []


def test_save_then_find_and_load_equal(tmp_path: Path) -> None:
    session = store.save(good_run(), " first ", tmp_path)
    assert session.path == tmp_path / machine_key(ENVIRONMENT) / "digits" / "good.json"
    assert store.find(good_run("other"), tmp_path) == [session] == [store.load(session.path)]
    assert session.run == good_run()
    assert session.reason == "first"
    assert [p.name for p in session.path.parent.iterdir()] == ["good.json"]


@pytest.mark.parametrize("reason", ["", "  "])
def test_save_wants_a_reason(reason: str, tmp_path: Path) -> None:
    with pytest.raises(BaselineRefused, match="a baseline needs a reason"):
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
        (run_of(measured(latency(1, 0, 1))), "latency_s has the invalid value 0"),
        (run_of(measured(latency(1, -1, 1))), "latency_s has the invalid value -1"),
        (run_of(measured(latency(1, math.nan, 1))), "latency_s has the invalid value nan"),
        (run_of(measured({"fid": [math.inf]})), "fid has the invalid value inf"),
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
    assert "edited" in str(comparison.refused[0])
    assert exit_code(comparison) == 12
    assert [(e.run_id, "edited" in (e.problem or "")) for e in store.listing(tmp_path)] == [("good", True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", r"x\.json: empty"), ("[]", "not a stored session"), ('{"schema": 2}', "schema 2; this version reads 1")],
)
def test_load_refuses_other_files(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BaselineRefused, match=words):
        store.load(tmp_path / "x.json")


def test_load_refuses_a_sealed_file_without_its_run(tmp_path: Path) -> None:
    document = {"schema": 1, "reason": "r", "saved": "s", "run": {"schema": 1}}
    (tmp_path / "x.json").write_text(json.dumps({**document, "hash": store.seal(document)}))
    with pytest.raises(BaselineRefused, match=r"x\.json: the field 'id' is missing"):
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


def test_save_refuses_to_drop_a_judged_metric_silently(tmp_path: Path) -> None:
    """As a run without its quality would: top-1 could then fall to nothing and be called new."""
    save(good_run("first"), "first", tmp_path)
    without = run_of(
        [*measured({**latency(0.010, 0.011, 0.012), "parameters": [5.0]}), *broken("skipped", "no TensorRT", case=B)],
        "second",
    )
    with pytest.raises(BaselineRefused, match=r"measured in the newest baseline and not here.*top1 of a-"):
        save(without, "no quality today", tmp_path)
    save(without, "no quality today", tmp_path, force=True)
    worse = run_of(measured({**latency(0.010, 0.011, 0.012), "top1": [0.0] * 2}), "worse")
    verdict = next(v for v in compare(worse, find(worse, tmp_path)).verdicts if v.metric == "top1")
    assert (verdict.outcome, verdict.gating, verdict.baseline) == ("inconclusive", True, 0.5)


def test_a_copy_of_a_session_is_no_further_session(tmp_path: Path) -> None:
    kept = save(good_run("first"), "first", tmp_path).path
    assert kept is not None
    (kept.parent / "second.json").write_text(kept.read_text())
    with pytest.raises(BaselineRefused, match="holds the run first; a copy under another name is no further session"):
        find(good_run(), tmp_path)


def test_a_row_with_fewer_processes_than_planned_is_no_pass() -> None:
    """An interrupted run, or a damaged line of its file: the process that is not there may be the one that failed."""
    short = run_of(measured(latency(0.010, 0.011, 0.012))[:2])
    found = compare(short, stored(run_of(measured(latency(0.010, 0.011, 0.012)))))
    told = [v for v in found.verdicts if v.metric == "row"]
    assert [(v.outcome, str(v.reason)) for v in told] == [("missing", "2 of 3 planned processes were measured")]
    assert exit_code(found) == NOT_COMPARABLE


def packages(environment: dict[str, Any], *names: str, **versions: str) -> dict[str, Any]:
    """The environment of a run whose backends declared these packages, with these further versions."""
    return {**environment, "backend_packages": [*names], "versions": {**environment["versions"], **versions}}


def test_the_packages_of_a_plugins_backend_are_compared() -> None:
    here = packages(ENVIRONMENT, "torch", "mine", mine="2.0")
    there = packages(ENVIRONMENT, "torch", "mine", mine="1.0")
    assert texts(differences(here, there)) == ["mine is 2.0 here and 1.0 in the baseline"]
    assert fingerprint(here) != fingerprint(there)
    assert software_differences(here, there) == []
    assert differences(here, here) == []


def test_a_package_that_one_of_two_runs_declares_counts_where_both_recorded_it() -> None:
    """A run of before the packages were recorded, or one without the plugin."""
    here = packages(ENVIRONMENT, "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "mine", mine="2.0")
    assert differences(here, ENVIRONMENT) == []
    assert differences(ENVIRONMENT, here) == []
    before = changed(ENVIRONMENT, ("versions", "mine"), "1.0")
    assert texts(differences(here, before)) == ["mine is 2.0 here and 1.0 in the baseline"]


def test_every_backend_declares_the_packages_that_decide_about_speed() -> None:
    before = {*UNRECORDED}
    assert before <= {*backends.speed_packages(on_gpu=False)}
    assert {*UNRECORDED_ON_GPU} <= {*backends.speed_packages(on_gpu=True)}
    assert not {*UNRECORDED_ON_GPU} & {*backends.speed_packages(on_gpu=False)}


def test_the_record_of_the_device_says_whether_it_is_a_gpu() -> None:
    """An accelerator that is no GPU, and a GPU of another name."""
    other = {**ENVIRONMENT, "device": "npu", "is_gpu": False}
    assert not any(name.startswith(("GPU", "driver", "CUDA")) for name in hard_fields(other))
    assert "GPU UUID" not in soft_fields(other)
    named = {**GPU_ENVIRONMENT, "device": "cpu", "is_gpu": True}
    assert hard_fields(named)["GPU model"] == ["H100"]
    assert soft_fields(named)["GPU UUID"] == ["GPU-1"]
    assert hard_fields({**GPU_ENVIRONMENT, "is_gpu": True}) == hard_fields(GPU_ENVIRONMENT)
