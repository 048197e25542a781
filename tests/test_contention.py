"""Whose work counts as a neighbour's, and during which part of a measurement: fake counters, and one real busy loop."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from benches.cli import doctor
from harness import probes
from harness.attempts import contended
from harness.devices import cpu
from harness.measuring import contention, control_workload, turns
from harness.measuring.repeatability import snapshot
from harness.measuring.trial import Findings
from harness.measuring.turns import Interleaving, _Players
from harness.probes.latency import latency
from harness.processes.measure import Job, _found, measure
from harness.reasons import Reason
from harness.timing import Timer, perf_counter
from harness.types import Case, Protocol, Workload

BUSY = {"elapsed_s": 0.9, "own_cpu_s": 0.9, "other_cpu_s": 0.6}
QUIET = {"elapsed_s": 16.0, "own_cpu_s": 16.0, "other_cpu_s": 1.5}


def test_what_happened_to_the_samples_counts_and_not_to_the_whole_block() -> None:
    assert contention.contended(QUIET) is None
    assert str(contention.contended({**QUIET, "latency_pass": BUSY})).startswith("contended: other processes used 67 %")
    busy_while_it_loaded = {"elapsed_s": 16.0, "own_cpu_s": 16.0, "other_cpu_s": 9.0}
    assert contention.contended(busy_while_it_loaded) is not None
    assert contention.contended({**busy_while_it_loaded, "latency_pass": {**BUSY, "other_cpu_s": 0.0}}) is None


def test_energy_that_met_a_busy_machine_says_so() -> None:
    quiet = {**BUSY, "other_cpu_s": 0.0}
    gpu = {"foreign_processes": 1}
    reason = contention.contended({"latency_pass": quiet, "energy_pass": {**quiet, "gpu": gpu}})
    assert reason == Reason("contended_gpu_processes", {"count": 1, "energy": True})
    assert str(reason) == "contended: 1 other process computed on the GPU while energy was measured"
    assert contention.contended({"latency_pass": quiet, "energy_pass": quiet}) is None


def test_many_cores_of_our_own_blur_the_kernels_ticks() -> None:
    """Timer interrupts come on all cores at once: one more or less of them is a tick on each core in use."""
    pass_ = {"elapsed_s": 0.5, "own_cpu_s": 32.0, "other_cpu_s": 0.2}
    assert contention.contended(pass_) is None
    assert contention.contended({**pass_, "own_cpu_s": 1.0}) is not None
    assert contention.contended({**pass_, "other_cpu_s": 0.5}) is not None


def test_beside_a_gpu_others_may_use_a_tenth_of_the_cores_that_are_left() -> None:
    pass_ = {"elapsed_s": 2.0, "own_cpu_s": 2.4, "cores": 64, "steal_s": 0.0}  # it keeps 1.2 of 64 cores busy

    def judged(other_cores: float, **more: Any) -> str | None:
        found = contention.contended({"latency_pass": {**pass_, "other_cpu_s": 2.0 * other_cores, **more}})
        return None if found is None else found.detail

    gpu = {"foreign_processes": 0}
    assert judged(6.2, gpu=gpu) is None
    assert judged(6.4, gpu=gpu) == (
        "other processes used 640 % of a core (10 % of the 62.8 cores left to them) during the measurement"
    )
    assert judged(0.2) == "other processes used 20 % of a core during the measurement", "a CPU is measured"
    assert judged(0.2, gpu=gpu, cores=2) == "other processes used 20 % of a core during the measurement"
    assert judged(0.2, gpu=gpu, cores=None) is not None, "a state that does not tell how many there are"
    assert judged(0.0, gpu=gpu, steal_s=0.2) == "the hypervisor took 10 % of a core during the measurement"


def test_a_state_tells_how_many_cores_were_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "ALLOWED_CPUS", tuple(range(64)))
    assert cpu.host_state(cpu.host_counters())["cores"] == 64


def stat(root: Path, *rows: tuple[str, int, int]) -> None:
    """A /proc/stat with the busy and stolen ticks of each row."""
    root.mkdir(exist_ok=True)
    (root / "stat").write_text("".join(f"{name} {busy} 0 0 99 0 0 0 {steal} 0 0\n" for name, busy, steal in rows))


def moved(monkeypatch: pytest.MonkeyPatch, root: Path, own_s: float, *rows: tuple[str, int, int]) -> dict[str, Any]:
    """The state after the ticks of `rows` and `own_s` of our own CPU time."""
    monkeypatch.setattr(cpu, "PROC", root)
    monkeypatch.setattr(cpu.os, "sysconf", lambda _name: 100)
    stat(root, *[(name, 1000, 10) for name, *_ in rows])
    before = cpu.host_counters()
    stat(root, *[(name, 1000 + busy, 10 + steal) for name, busy, steal in rows])
    return cpu.host_difference({**before, "own_cpu_s": 0.0}, {**cpu.host_counters(), "own_cpu_s": own_s})


def test_neighbours_on_cpus_that_this_process_may_not_use_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "ALLOWED_CPUS", (2, 3))
    rows = [("cpu", 6500, 90), ("cpu0", 3000, 40), ("cpu1", 3250, 40), ("cpu2", 150, 4), ("cpu3", 100, 6)]
    state = moved(monkeypatch, tmp_path, 2.0, *rows)
    assert (state["other_cpu_s"], state["steal_s"]) == (pytest.approx(0.5), pytest.approx(0.1))


def test_where_a_container_numbers_its_cpus_anew_all_of_its_cpus_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "ALLOWED_CPUS", (12, 13))
    state = moved(monkeypatch, tmp_path, 2.0, ("cpu", 250, 10), ("cpu0", 150, 4), ("cpu1", 100, 6))
    assert (state["other_cpu_s"], state["steal_s"]) == (pytest.approx(0.5), pytest.approx(0.1))


def test_the_cpus_are_those_from_before_a_worker_was_bound_to_fewer() -> None:
    allowed = os.sched_getaffinity(0)
    assert set(cpu.ALLOWED_CPUS) >= allowed
    try:
        os.sched_setaffinity(0, {min(allowed)})
        busy, _ = cpu._cpu_ticks()
        lines = (cpu.PROC / "stat").read_text().splitlines()
    finally:
        os.sched_setaffinity(0, allowed)
    mine = [line.split() for line in lines if line.split()[0] in {f"cpu{n}" for n in cpu.ALLOWED_CPUS}]
    assert busy == pytest.approx(sum(int(v) for row in mine for v in row[1:9]) - _idle(mine), abs=50)


def _idle(rows: list[list[str]]) -> int:
    return sum(int(row[column]) for row in rows for column in (4, 5, 8))


def test_a_kernel_that_does_not_count_knows_no_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor's /proc/stat is all zeros: 0 s of other processes would read as a quiet machine."""
    monkeypatch.setattr(cpu, "ALLOWED_CPUS", (0,))
    still = moved(monkeypatch, tmp_path, 2.0, ("cpu", 0, 0), ("cpu0", 0, 0))
    assert (still["other_cpu_s"], still["steal_s"]) == (None, None)
    counted = moved(monkeypatch, tmp_path, 2.0, ("cpu", 198, 0), ("cpu0", 198, 0))
    assert (counted["other_cpu_s"], counted["steal_s"]) == (0, 0)
    stolen = moved(monkeypatch, tmp_path, 2.0, ("cpu", 50, 150), ("cpu0", 50, 150))
    assert stolen["steal_s"] == pytest.approx(1.5)
    idle = moved(monkeypatch, tmp_path, 0.01, ("cpu", 0, 0), ("cpu0", 0, 0))
    assert idle["other_cpu_s"] == 0


@dataclass
class Neighbour:
    """A device whose CPU counters say that somebody else took all of a core from `begin` to `end` of its clock."""

    begin: float
    end: float
    now: float = 0.0
    name: str = "cpu"
    torch_device: str = "cpu"

    def synchronize(self) -> None: ...
    def stopwatch(self) -> str:
        return "a CPU"

    def sensors(self) -> None: ...
    def start_span(self) -> dict[str, Any]:
        return {"at": self.now}

    def span_state(self, before: dict[str, Any]) -> dict[str, Any]:
        other = max(0.0, min(self.now, self.end) - max(before["at"], self.begin))
        return {"elapsed_s": self.now - before["at"], "own_cpu_s": 0.0, "other_cpu_s": other}


def trial(device: Neighbour, sample_s: float = 0.05) -> Any:
    """A trial whose iterations take `sample_s` of the device's clock: 3 of warm-up, then 10 samples."""

    def step() -> torch.Tensor:
        device.now += sample_s
        return torch.eye(2)

    workload = create_autospec(Workload, instance=True)
    workload.output_shape = (2, 2)
    workload.output_kind = "logits"
    workload.batch = torch.eye(2)
    return SimpleNamespace(
        case=Case(model="m", batch_size=2),
        replicate=0,
        timer=Timer(device.synchronize, lambda: device.now),
        device=device,
        step=step,
        protocol=Protocol(
            warmup_min_iterations=6, min_samples=10, min_sample_time_s=0, warmup_min_s=0, target_interval=None
        ),
        workload=workload,
        first_output=torch.eye(2),
        batch_before=snapshot(workload.batch),
        turns=None,
        interleaving=None,
    )


@pytest.mark.parametrize(
    ("begin", "end", "busy"),
    [
        (-10.0, 0.3, False),  # while it was loaded and warmed up
        (0.4, 0.7, True),
        (0.4, 0.43, False),  # 30 ms of 500
        (0.9, 10.0, False),  # while the quality was judged
        (-10.0, 10.0, True),
    ],
)
def test_only_what_met_the_samples_is_contended(begin: float, end: float, busy: bool) -> None:
    device = Neighbour(begin, end)
    found = latency(trial(device))
    assert len(found.warmup["latency_s"]) == 6
    device.now += 10.0  # the quality
    whole = device.span_state({"at": -10.0})
    assert (contention.contended({**whole, **found.state}) is not None) == busy


def test_where_arms_take_turns_the_worker_says_nothing_of_the_cpu() -> None:
    """The other arm's turns would be a stranger's work."""
    asked = trial(Neighbour(-10.0, 10.0))
    asked.turns = SimpleNamespace(pass_on=lambda: None)
    asked.interleaving = Interleaving(warmups=3, turns=2, samples=2, discarded=0)
    assert latency(asked).state == {}


def test_energy_is_watched_over_its_whole_pass_where_it_was_measured() -> None:
    device = Neighbour(2.0, 5.0)

    def entry(samples: dict[str, list[float]]) -> probes.Probe:
        def collect(_trial: Any) -> Findings:
            device.now += 10.0
            return Findings(samples=samples)

        return probes.Probe(
            name="x", order=1, metrics=(), first_process_only=True, collect=collect, state=contention.ENERGY_PASS
        )

    asked = trial(device)
    found = _found(entry({"energy_per_image_j": [1.0]}), asked)
    assert "while energy was measured" in str(contention.contended(found.state))
    assert _found(entry({}), asked).state == {}
    assert probes.PROBES["energy"].state == contention.ENERGY_PASS


def test_the_referee_counts_the_timed_turns_and_not_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pairs: 16 s of build, then 0.9 s of turns with a neighbour in all of them."""
    clock = [0.0]

    def counters() -> dict[str, Any]:
        return {"elapsed_s": clock[0], "other": max(0.0, clock[0] - 16.0), "own_cpu_s": 0.0}

    monkeypatch.setattr(turns, "host_counters", counters)
    monkeypatch.setattr(turns, "host_difference", lambda a, b: {k: b[k] - a[k] for k in a})
    players = _Players(("base", "head"))
    players.connected = {
        side: SimpleNamespace(send=lambda _granted: None, close=lambda: None) for side in players.names
    }  # type: ignore[misc]

    def ask(at: float, row: int, turn: int) -> None:
        clock[0] = at
        players.asking = dict.fromkeys(players.names, (row, turn))
        players.holder = None
        players.grant(everybody_here=True)

    for at, row, turn in ((0.0, 0, 0), (16.0, 0, 1), (16.5, 0, 2), (16.9, 1, 0)):
        ask(at, row, turn)
    clock[0] = 17.0
    found = players.states()
    assert found[0] == {"elapsed_s": pytest.approx(0.9), "other": pytest.approx(0.9), "own_cpu_s": 0.0}
    assert found[1]["elapsed_s"] == pytest.approx(0.1)  # it never came to its timed turns


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Other processes that use a core each, as much as the machine lets them."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def worked(seconds: float) -> dict[str, Any]:
    before, until = cpu.host_counters(), perf_counter() + seconds
    while perf_counter() < until:
        pass
    return cpu.host_state(before)


def test_a_real_busy_loop_is_seen() -> None:
    with busy_loops(1):
        until = perf_counter() + 30.0
        while not (reason := contention.contended(worked(0.3))) and perf_counter() < until:
            time.sleep(0.05)  # the loop's interpreter is still starting
    assert reason is not None
    assert contention.is_contention(reason)


def test_a_control_workload_that_met_a_busy_machine_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu.Cpu, "span_state", lambda _self, _before: {**BUSY})
    monkeypatch.setattr(control_workload, "measure", lambda *_: {"gemm": [0.01]})
    job = Job(
        case=Case(model="planted_ok", image_size=8),
        replicate=1,
        protocol=Protocol(warmup_min_s=0.0, min_sample_time_s=0.0, max_sample_time_s=0.01, target_interval=None),
        device="cpu",
        folder=tmp_path,
        cache=tmp_path / "cache",
        threads=1,
    )
    found = measure(job, cpu.Cpu(), lambda _phase: None).measurement
    assert found.state["control_workload"] == {"gemm": [0.01]}
    assert found.state["control_workload_contended"].kind == "contended_cpu"
    assert found.state["latency_pass"] == BUSY
    assert str(contended(found)).startswith("contended: other processes used 67 %")


def test_doctor_says_where_a_neighbour_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WORK_S", 0.0)
    device = cpu.Cpu()
    monkeypatch.setattr(device, "span_state", lambda _before: {"other_cpu_s": None, "pressure_cpu_us": 5})
    rows = {row["what"]: row for row in doctor._contention(device)}
    assert rows["contention (CPU)"]["status"] == "no"
    assert "other processes are not detected" in rows["contention (CPU)"]["detail"]
    assert rows["contention (PSI)"]["status"] == "yes"
    told = {"other_cpu_s": 0.0, "pressure_cpu_us": 5}
    gpu = {"foreign_processes": None, "throttle_reasons": 0, "thermal_throttled_s": 0.0}
    for state, status, words in (
        (gpu, "no", "other processes"),
        ({**gpu, "foreign_processes": 0}, "yes", "NVML"),
        ({"unavailable": "NVML: Driver Not Loaded"}, "no", "NVML: Driver Not Loaded"),
    ):
        monkeypatch.setattr(device, "span_state", lambda _before, gpu=state: {**told, "gpu": gpu})
        row = {row["what"]: row for row in doctor._contention(device)}["contention (GPU)"]
        assert row["status"] == status
        assert words in row["detail"]
