"""The fp32 reference has a time limit of its own. One that is slow, or whose process dies, is missing, and the row is
kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from reports_fixture import make_run
from trial_fixture import trial_of

from baselines.stored import admission
from harness.measuring import reference, reference_output, reference_process
from harness.probes.fidelity import fidelity
from harness.probes.quality import quality
from harness.processes import worker
from harness.processes.endings import Reply
from harness.reasons import Reason
from harness.registry import PROBES
from harness.types import Case, Protocol, Quality
from reports import conclusions
from reports.data import report_data

pytestmark = pytest.mark.usefixtures("registries")
CASE = Case(model="planted_ok", image_size=planted.SIZE, precision="bf16", batch_size=2)
SLOW = reference_process.Result(missing=Reason("cpu_reference_too_slow", {"limit_s": 5.0}))


def no_room(*_arguments: Any) -> Any:
    raise torch.OutOfMemoryError


@pytest.fixture
def slow_cpu(monkeypatch: pytest.MonkeyPatch) -> list[reference_process.Request]:
    """A GPU without room, and a CPU that is too slow. Returns the requests that the CPU gets."""
    requests: list[reference_process.Request] = []
    monkeypatch.setattr(reference, "computed_on", no_room)
    monkeypatch.setattr(reference_process, "computed", lambda request, _limit_s: requests.append(request) or SLOW)
    return requests


def test_a_slow_reference_is_a_missing_closeness_with_its_reason(
    slow_cpu: list[reference_process.Request], tmp_path: Path
) -> None:
    phases: list[str] = []
    found = fidelity(trial_of(CASE, tmp_path, "cuda", phases))
    assert phases == [reference.BEGUN, reference.ENDED]
    assert (found.samples, found.invalid) == ({}, None)
    assert set(found.missing) == {m.name for m in PROBES["fidelity"].metrics}
    reason = (
        "the GPU had too little memory for the reference beside the timed model, and the CPU did not compute it "
        "within 5 s (timeout_s)"
    )
    assert set(map(str, found.missing.values())) == {f"there is no fp32 reference: {reason}"}
    assert [told.kind for told in found.warnings] == ["unchecked"]
    assert str(found.warnings[0]) == f"unchecked: the output was not compared with fp32 eager: {reason}"
    assert "cosine_floor" not in found.facts, "the output was held to nothing"


def test_a_set_without_a_reference_is_judged_all_the_same(
    slow_cpu: list[reference_process.Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library's own words for the lack of room are known in the quality pass, too."""

    def no_handle(*_arguments: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(reference, "computed_on", no_handle)
    trial = trial_of(CASE, tmp_path, "cuda")
    trial.step = lambda *_batch: torch.eye(3)
    trial.workload.quality = Quality(
        batches=lambda: [torch.zeros(1)], score=lambda _: {"top1": [1.0]}, metrics=(), conditions={"items": 3}
    )
    found = quality(trial)
    assert [request.what for request in slow_cpu] == ["quality set"]
    assert found.samples == {"top1": [1.0]}
    assert str(found.missing["top1_agreement"]).startswith(
        "there is no fp32 reference of the quality set: the GPU had too little memory"
    )


def test_no_other_row_tries_again_and_the_reference_row_itself_gives_it(
    slow_cpu: list[reference_process.Request], tmp_path: Path
) -> None:
    for precision in ("bf16", "fp16", "bf16"):
        with pytest.raises(reference_output.NoReference, match="did not compute it within 5 s"):
            reference.output(trial_of(CASE.with_(precision=precision), tmp_path, "cuda"), "timed batch", torch.Tensor)
    assert len(slow_cpu) == 1
    eager = trial_of(CASE.with_(precision="fp32"), tmp_path, "cuda")
    assert reference.output(eager, "timed batch", lambda: torch.ones(1)) == torch.ones(1)
    later = trial_of(CASE, tmp_path, "cuda")
    assert reference.output(later, "timed batch", torch.Tensor) == torch.ones(1)


def test_a_reference_on_the_rows_own_device_ends_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 6.0])
    calls: list[int] = []

    def twice(forwards: Any, batch: torch.Tensor) -> torch.Tensor:
        for number in range(2):
            found = forwards["classifier"](batch)
            calls.append(number)
        return found

    monkeypatch.setattr("harness.measuring.loading.built", lambda case: planted.workload(case, twice))
    monkeypatch.setattr(reference_output, "perf_counter", lambda: next(clock))
    with pytest.raises(reference_output.NoReference, match="on the row's device took more than 5 s"):
        reference_output.computed_on("cpu", CASE, "timed batch", 5.0)
    assert calls == [0]


def test_the_process_computes_what_the_row_would() -> None:
    request = reference_process.Request(case=CASE, what="timed batch", plugins=("planted",), threads=1)
    before = torch.get_num_threads()
    try:
        result = reference_process._result(request)
    finally:
        torch.set_num_threads(before)
    wanted, weights_hash = reference_output.computed_on("cpu", CASE, "timed batch")
    assert (result.missing, result.mismatch, result.weights_hash) == (None, None, weights_hash)
    assert torch.allclose(torch.from_numpy(result.output), wanted, atol=1e-6)
    broken = reference_process._result(dataclasses.replace(request, plugins=("no_such",)))
    assert str(broken.missing).startswith("computing it on the CPU failed: ModuleNotFoundError")


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("import time; time.sleep(60)", "the CPU did not compute it within 1 s (timeout_s)"),
        ("import os; os.kill(os.getpid(), 9)", "the process that computed it on the CPU was killed by SIGKILL"),
        ("raise SystemExit(3)", "the process that computed it on the CPU ended with exit code 3"),
    ],
)
def test_a_process_that_hangs_or_dies_is_a_reason(does: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_process, "START", does)
    request = reference_process.Request(case=CASE, what="timed batch", plugins=(), threads=1)
    assert str(reference_process.computed(request, 1.0 if "sleep" in does else 30.0).missing) == reason


def test_the_result_comes_back_from_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = "; ".join(
        [
            "import pickle, sys",
            "from harness.measuring.reference_process import Result",
            "given = pickle.load(sys.stdin.buffer)",
            "open(sys.argv[1], 'wb').write(pickle.dumps(Result(weights_hash=given.case.model, mismatch=given.what)))",
        ]
    )
    monkeypatch.setattr(reference_process, "START", stub)
    request = reference_process.Request(case=CASE, what="quality set", plugins=(), threads=1)
    found = reference_process.computed(request, 30.0)
    assert (found.weights_hash, found.mismatch) == ("planted_ok", "quality set")


def test_a_rows_own_time_stands_still_while_its_reference_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(worker, "perf_counter", lambda: now[0])
    time_limit = worker.TimeLimit(100.0)
    for stamp, phase, left_s in [
        (30.0, "latency", 70.0),
        (40.0, reference.BEGUN, 100.0 + worker.REFERENCE_GRACE_S),
        (140.0, reference.ENDED, 60.0),
        (150.0, "quality", 50.0),
        (160.0, reference.BEGUN, 100.0 + worker.REFERENCE_GRACE_S),
        (260.0, reference.ENDED, 40.0),
    ]:
        now[0] = stamp
        time_limit.enter(phase)
        assert time_limit.left_s == pytest.approx(left_s), (stamp, phase)


def told(messages: list[tuple[float, str | None]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The end of a worker's pipe: (seconds on the clock, phase) of each message, None for the outcome."""
    now, left = [0.0], iter(messages)
    monkeypatch.setattr(worker, "perf_counter", lambda: now[0])

    class Receiver:
        def poll(self, _left: float) -> bool:
            return True

        def recv(self) -> tuple[str, Any]:
            now[0], phase = next(left)
            return ("phase", phase) if phase else ("done", "the outcome")

    return Receiver()


def test_a_worker_is_given_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reference takes longer than all of the row's time."""
    receiver = told([(0.0, "latency"), (4.0, reference.BEGUN), (8.5, reference.ENDED), (9.0, None)], monkeypatch)
    assert worker._receive(receiver, 5.0, lambda _phase: None) == Reply(value="the outcome")


@pytest.mark.parametrize(("extends", "status"), [(True, "ok"), (False, "timeout")])
def test_a_reference_without_time_of_its_own_takes_the_rows(
    extends: bool, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = told([(4.0, reference.BEGUN), (8.5, reference.ENDED), (9.0, None)], monkeypatch)
    found = worker._receive(receiver, 5.0, lambda _phase: None, reference_extends=extends)
    assert found is not None
    assert found.status == status


@pytest.mark.parametrize(("until", "limit_s"), [(float("inf"), 5.0), (102.5, 2.5)])
def test_a_reference_has_what_is_left_of_the_rows_time(
    until: float, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def computed(_device: str, _case: Case, _what: str, limit_s: float) -> tuple[torch.Tensor, str]:
        given.append(limit_s)
        return torch.zeros(1), "w"

    monkeypatch.setattr(reference, "perf_counter", lambda: 100.0)
    monkeypatch.setattr(reference, "computed_on", computed)
    trial: Any = SimpleNamespace(
        device=SimpleNamespace(torch_device="cpu", is_gpu=False),
        protocol=Protocol(timeout_s=5.0),
        reference_until=until,
        case=CASE,
    )
    reference._compute(trial, "timed batch")
    assert given == [limit_s]
    trial.reference_until = 99.0
    with pytest.raises(reference_output.NoReference, match="no time left"):
        reference._compute(trial, "timed batch")


def test_an_unchecked_row_ranks_nowhere_first_and_becomes_no_baseline(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = report_data([run])
    race = next(r for f in conclusions.model_findings(data) if f.model == "digits_vit" for r in f.races)
    fastest = race.winner["case_id"]
    told = tuple(
        dataclasses.replace(m, warnings=(Reason("unchecked", {"reason": "too slow"}),)) if m.case.id == fastest else m
        for m in run.measurements
    )
    slower = report_data([dataclasses.replace(run, measurements=told)])
    race = next(r for f in conclusions.model_findings(slower) if f.model == "digits_vit" for r in f.races)
    assert race.winner["case_id"] != fastest
    assert [r["case_id"] for r in race.unchecked] == [fastest]
    assert any("was not compared with fp32 eager" in s for s in conclusions.race_sentences(race, slower))
    objections = admission.objections(slower.runs[0], None, force=False)
    assert any(o.startswith("not compared with fp32 eager") and fastest in o for o in objections)
    assert not any(o.startswith("not compared") for o in admission.objections(slower.runs[0], None, force=True))


def test_versions_of_imgbench_read_one_another_s_references(tmp_path: Path) -> None:
    """The arms of `ab` share them, and one may be older or newer than the other."""
    case = Case(model="planted_ok")
    path = reference._path(tmp_path, case, "timed batch")
    reference._store(path, reference.Origin(weights_hash="ab"), torch.zeros(2))
    told = json.loads(path.with_suffix(".json").read_text())
    assert told == {"weights_hash": "ab", "on_cpu": False}, "all that versions before `missing` know"
    path.with_suffix(".json").write_text(json.dumps(told | {"of_a_later_version": 1}))
    trial: Any = SimpleNamespace(folder=tmp_path, case=case)
    assert reference._origin(trial, "timed batch") == reference.Origin(weights_hash="ab")
