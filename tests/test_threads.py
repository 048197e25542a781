"""How many threads a run takes by cores, affinity, CPU quota, variables and --threads, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from baseline_fixture import ENVIRONMENT, latency, measured, run_of

from benches.cli import main
from harness import frames
from harness.devices import cgroup
from harness.processes import environment, threads, worker
from harness.processes.measure import Job, Outcome
from harness.processes.threads import Allowed, Source, Threads, ThreadsRefused
from harness.types import Case, Measurement, Protocol

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
SAID = {"OMP_NUM_THREADS": "4"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def machine(monkeypatch: pytest.MonkeyPatch, *, cores: int, affinity: int, quota: float | None) -> None:
    """What the machine of this test has, whatever it runs on."""
    monkeypatch.setattr(threads.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _pid: set(range(affinity)), raising=False)
    monkeypatch.setattr(cgroup, "allowed_cores", lambda: quota)


@pytest.mark.parametrize(
    ("cores", "affinity", "quota", "count", "source"),
    [
        (8, 8, None, 8, Source.CORES),
        (8, 8, 8.0, 8, Source.CORES),
        (8, 8, 16.0, 8, Source.CORES),
        (8, 4, None, 4, Source.AFFINITY),
        (8, 4, 4.0, 4, Source.AFFINITY),
        (8, 4, 1.0, 1, Source.QUOTA),
        (8, 8, 1.5, 1, Source.QUOTA),
        (8, 8, 2.99, 2, Source.QUOTA),
        (8, 8, 0.25, 1, Source.QUOTA),
        (1, 1, 0.5, 1, Source.CORES),
    ],
)
def test_the_default_is_the_tightest_bound(
    cores: int, affinity: int, quota: float | None, count: int, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cores=cores, affinity=affinity, quota=quota)
    assert threads.chosen(None) == Threads(count=count, source=source)
    assert threads.chosen(None, spare=1) == Threads(count=max(1, count - 1), source=source)
    assert threads.chosen(7, spare=1) == Threads(count=7, source=Source.ASKED)
    found = environment.collect(("cpu", None))
    assert (found["threads"], found["threads_from"], found["cpu"]["quota"]) == (count, source.value, quota)


@pytest.mark.parametrize(
    ("variables", "count", "source"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3, Source.OMP_NUM_THREADS),
        ({"OMP_NUM_THREADS": " 3,2 "}, 3, Source.OMP_NUM_THREADS),
        ({"OMP_NUM_THREADS": ""}, 4, Source.CORES),
        ({"OMP_NUM_THREADS": "9"}, 9, Source.OMP_NUM_THREADS),
        ({"MKL_NUM_THREADS": "2"}, 2, Source.MKL_NUM_THREADS),
        ({"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, 1, Source.OMP_NUM_THREADS),
        ({"OMP_THREAD_LIMIT": "2"}, 2, Source.OMP_THREAD_LIMIT),
        ({"OPENBLAS_NUM_THREADS": "1"}, 4, Source.CORES),
    ],
)
def test_a_variable_is_obeyed(
    variables: dict[str, str], count: int, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cores=4, affinity=4, quota=None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert threads.chosen(None) == Threads(count=count, source=source)
    assert threads.chosen(2) == Threads(count=2, source=Source.ASKED)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²"])
def test_a_variable_without_a_number_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ThreadsRefused, match=f"{name}='{value}' must be a whole number of at least 1"):
        threads.chosen(None)
    assert main(["doctor"]) == 64
    assert capsys.readouterr().err.count(f"{name}='{value}'") == 1


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"threads": 2}, "2"),
        ({"threads": 2, "threads_from": "cores", "cpu": {"logical_cores": 2}}, "2 (the cores of the machine)"),
        (
            {"threads": 3, "threads_from": "affinity", "cpu": {"logical_cores": 8, "cores_allowed": 4}},
            "3 (the cores that the process may use; 1 is left free)",
        ),
        ({"threads": 1, "threads_from": "quota", "cpu": {"quota": 1.0}}, "1 (the CPU quota of 1 core)"),
        ({"threads": 1, "threads_from": "quota", "cpu": {"quota": 0.5}}, "1 (the CPU quota of 0.5 cores)"),
        ({"threads": 4, "threads_from": "OMP_NUM_THREADS", "flags": SAID}, "4 (OMP_NUM_THREADS)"),
        ({"threads": 4, "threads_from": "--threads", "flags": SAID}, "4 (--threads)"),
        (
            {"threads": 2, "threads_from": "--threads", "flags": SAID},
            "2 (--threads, which overrides OMP_NUM_THREADS=4)",
        ),
        ({}, None),
    ],
)
def test_the_rule_in_words(stored: dict[str, Any], words: str | None) -> None:
    assert threads.in_words(stored) == words


@pytest.mark.parametrize(
    ("count", "may_use", "words"),
    [
        (2, Allowed(cores=2, affinity=2, quota=2.0), None),
        (1, Allowed(cores=2, affinity=2, quota=0.5), None),
        (2, Allowed(cores=2, affinity=2, quota=1.5), "2 threads, but the CPU quota allows 1.5 cores"),
        (3, Allowed(cores=8, affinity=2), "3 threads, but the process may use 2 cores"),
        (3, Allowed(cores=8, affinity=8, limit=2), "3 threads, but OMP_THREAD_LIMIT is 2"),
    ],
)
def test_more_threads_than_may_run_at_once_are_warned_of(count: int, may_use: Allowed, words: str | None) -> None:
    found = threads.warnings(count, may_use)
    assert len(found) == (words is not None)
    assert all(str(told).startswith(f"oversubscribed: the row ran {words}") for told in found)


@pytest.mark.parametrize(("count", "warned"), [(1, False), (2, True)])
def test_a_row_says_so(count: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cores=2, affinity=2, quota=1.0)
    monkeypatch.setattr(worker, "measure", lambda job, *_rest: Outcome(measurement=_ok(job.case)))
    torch_threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", torch_threads.append)
    job = Job(
        case=Case(model="m"),
        replicate=0,
        protocol=Protocol(),
        device="cpu",
        folder=tmp_path,
        cache=tmp_path,
        threads=count,
    )
    found = worker.measure_job(job, lambda _phase: None).measurement
    assert torch_threads == [count]
    assert [told.kind for told in found.warnings] == (["oversubscribed"] if warned else [])


def _ok(case: Case) -> Measurement:
    return Measurement(case=case, replicate=0, status="ok", samples={"latency_s": [1.0]})


def test_the_frame_and_the_doctor_say_where_the_number_is_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = {"threads": 1, "threads_from": "quota", "cpu": {"quota": 1.5}}
    run = run_of(measured(latency(1.0, 1.0, 1.0)), environment={**ENVIRONMENT, **limited})
    assert set(frames.cases_frame(run)["threads"]) == {"1 (the CPU quota of 1.5 cores)"}
    machine(monkeypatch, cores=2, affinity=2, quota=1.5)
    assert _doctors_row(capsys) == ("yes", "1 (the CPU quota of 1.5 cores)")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    status, detail = _doctors_row(capsys)
    assert (status, detail.startswith("2 (OMP_NUM_THREADS); oversubscribed: ")) == ("no", True)


def _doctors_row(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main(["doctor", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["what"] == "threads")
    return row["status"], row["detail"]


def test_the_quota_of_a_hybrid_tree_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 is mounted beside the groups of version 1 there, at unified."""
    group = tmp_path / "cgroup/unified/pod"
    group.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("1:cpuset:/\n0::/pod/inner\n")
    (group / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    assert cgroup.allowed_cores() == 1.0
