"""Iterations with flushed caches: what is flushed, what is timed, and that such runs are compared only with each
other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch

from baselines.stored.fingerprint import protocol_differences
from harness import frames, records, suite
from harness.devices import cpu
from harness.devices.cpu import Cpu
from harness.measuring import cold_cache
from harness.probes.latency import LATENCY
from harness.processes import measure, worker
from harness.reasons import Reason
from harness.timing import Timer
from harness.types import Case, Protocol

COLD = Protocol(
    warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05, cold_cache=True
)
CASE = Case(model="planted_ok", image_size=planted.SIZE)


class Recorded:
    """The surroundings of a timer, which record what happens. The host's clock advances by one second at each
    reading."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._now = 0.0

    def clock(self) -> float:
        self.events.append("clock")
        self._now += 1.0
        return self._now

    def does(self, what: str) -> Any:
        return lambda: self.events.append(what)


class DeviceClock:
    def __init__(self, world: Recorded) -> None:
        self.start, self.stop = world.does("start event"), world.does("stop event")

    def seconds(self) -> float:
        return 0.25


def test_a_sample_of_several_iterations_waits_at_its_end_alone_and_latency_says_what_that_means() -> None:
    world = Recorded()
    assert Timer(world.does("synchronise"), world.clock).seconds(world.does("iteration"), 4) == 0.25
    assert world.events == ["synchronise", "clock", *["iteration"] * 4, "synchronise", "clock"]
    assert "not the latency of a single call" in LATENCY.description


def test_the_flush_is_outside_the_hosts_timed_span() -> None:
    world = Recorded()
    timer = Timer(world.does("synchronise"), world.clock)
    assert timer.cold_seconds(world.does("iteration"), world.does("flush")) == 1.0
    assert timer.last_whole_s == 2.0
    order = ["synchronise", "clock", "flush", "synchronise", "clock", "iteration", "synchronise", "clock"]
    assert world.events == order


def test_on_a_gpu_the_flush_is_queued_before_the_first_event_and_nobody_waits_for_it() -> None:
    world = Recorded()
    timer = Timer(world.does("synchronise"), world.clock, DeviceClock(world))
    assert timer.cold_seconds(world.does("iteration"), world.does("flush")) == 0.25
    order = ["synchronise", "clock", "flush", "start event", "iteration", "stop event", "synchronise", "clock"]
    assert world.events == order


def cpu_with(folder: Path, cpu: int, caches: list[tuple[str, str, str, str]]) -> None:
    """`caches` are (level, type, shared_cpu_list, size)."""
    for index, texts in enumerate(caches):
        place = folder / f"cpu{cpu}/cache/index{index}"
        place.mkdir(parents=True)
        for name, text in zip(("level", "type", "shared_cpu_list", "size"), texts, strict=True):
            (place / name).write_text(f"{text}\n")


def test_the_last_level_caches_of_all_allowed_cpus_count_once_each(tmp_path: Path) -> None:
    own = [("1", "Data", "0", "32K"), ("1", "Instruction", "0", "64K"), ("2", "Unified", "0", "1024K")]
    for number in (0, 1):
        cpu_with(tmp_path, number, [*own, ("3", "Unified", "0-1", "32M")])
    cpu_with(tmp_path, 2, [*own, ("3", "Unified", "2-3", "16384K")])
    assert cpu.last_level_bytes(tmp_path, (0, 1)) == 32 * 2**20
    assert cpu.last_level_bytes(tmp_path, (0, 1, 2)) == 48 * 2**20
    missing = cpu.last_level_bytes(tmp_path, (0, 3))
    assert missing == Reason("caches_not_listed", {"cpu": 3, "folder": f"{tmp_path}/cpu3/cache"})
    assert str(missing) == f"the kernel does not list the caches of CPU 3 ({tmp_path}/cpu3/cache)"
    cpu_with(tmp_path, 4, [("3", "Unified", "4", "unknown")])
    assert "caches of CPU 4" in str(cpu.last_level_bytes(tmp_path, (4,)))


def test_a_gpu_is_asked_for_its_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: SimpleNamespace(L2_cache_size=50 * 2**20))
    assert cold_cache.cache_bytes("cuda") == 50 * 2**20
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: SimpleNamespace(L2_cache_size=0))
    reason = "cold_cache: the driver does not report the size of this GPU's L2 cache"
    assert str(cold_cache.unavailable(COLD, "cuda")) == reason
    assert cold_cache.unavailable(replace(COLD, cold_cache=False), "cuda") is None


def test_the_buffer_of_twice_the_cache_is_written_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_cache, "cache_bytes", lambda _device: 4096)
    freed: list[str] = []
    monkeypatch.setattr(Cpu, "release_memory", lambda self: freed.append(self.name))
    trial: Any = SimpleNamespace(protocol=COLD, device=Cpu())
    with cold_cache.flushed(trial) as flush:
        assert flush is not None
        assert (flush.size, flush._buffer.nbytes) == (8192, 8192)
        flush()
        flush()
        assert bool((flush._buffer == 2).all())
    assert freed == ["cpu"]
    assert not hasattr(flush, "_buffer")
    trial.protocol = replace(COLD, cold_cache=False)
    with cold_cache.flushed(trial) as none:
        assert none is None


def test_a_model_that_leaves_no_room_to_flush_the_caches_is_skipped_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 100.00 MiB.")

    monkeypatch.setattr(cold_cache, "cache_bytes", lambda _device: 50 * 2**20)
    monkeypatch.setattr(cold_cache, "Flush", full)
    monkeypatch.setattr(worker, "measure", lambda *_: flushes())

    def flushes() -> Any:
        trial: Any = SimpleNamespace(protocol=COLD, device=Cpu())
        with cold_cache.flushed(trial):
            pytest.fail("without a buffer")

    found = worker.measure_job(job(tmp_path), lambda _phase: None).measurement
    assert (found.status, str(found.reason)) == (
        "skipped",
        "cold_cache: there is no memory left for the 100 MiB buffer that flushes the caches",
    )


def job(folder: Path, *only: str, protocol: Protocol = COLD) -> measure.Job:
    return measure.Job(
        case=CASE,
        replicate=0,
        protocol=protocol,
        device="cpu",
        folder=folder,
        cache=folder / "cache",
        threads=1,
        only=only,
    )


@pytest.mark.usefixtures("registries")
def test_every_iteration_of_a_cold_row_is_flushed_and_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_cache, "cache_bytes", lambda _device: 4096)
    flushes: list[int] = []
    monkeypatch.setattr(cold_cache.Flush, "__call__", lambda _self: flushes.append(1))
    cold = measure.measure(job(tmp_path, "latency"), Cpu(), lambda _phase: None).measurement
    timed = len(cold.samples["latency_s"]) + len(cold.warmup["latency_s"])
    assert (cold.status, cold.facts["loops"], cold.facts["cold_cache_bytes"]) == ("ok", 1, 8192)
    assert len(flushes) == timed
    flushes.clear()
    staged = measure.measure(job(tmp_path, "stages"), Cpu(), lambda _phase: None).measurement
    assert len(flushes) == len(staged.samples["stage_sum_s"])
    warm = replace(COLD, cold_cache=False)
    found = measure.measure(job(tmp_path, "latency", protocol=warm), Cpu(), lambda _phase: None).measurement
    assert "cold_cache_bytes" not in found.facts


def test_what_the_flush_costs_counts_as_sampling_time() -> None:
    """The sampling of short iterations with long flushes ends at the protocol's time, not after a thousand times as
    long."""
    from harness.measuring import sampling

    asked = replace(COLD, min_samples=2, warmup_max_s=1.0, max_sample_time_s=10.0, target_interval=1e-9)
    found = sampling.sample(lambda _loops: 1e-4, asked, shortest_s=0.0, whole_s=lambda _timed_s: 1.0)
    assert len(found.steady) <= 10
    assert found.loops == 1


@pytest.mark.usefixtures("registries")
def test_caches_that_nobody_knows_are_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "cache_bytes", lambda _self: "the kernel does not tell")
    found = measure.measure(job(tmp_path, "latency"), Cpu(), lambda _phase: None).measurement
    assert (found.status, str(found.reason)) == ("skipped", "cold_cache: the kernel does not tell")


@pytest.mark.usefixtures("registries")
def test_a_cold_run_is_compared_with_no_warm_one_and_says_so() -> None:
    chosen = suite.parse("protocol: {cold_cache: true}\ncases: [{model: planted_ok}]")
    warm = suite.parse("cases: [{model: planted_ok}]").protocol
    assert (chosen.protocol.cold_cache, warm.cold_cache) == (True, False)
    (told,) = protocol_differences(chosen.protocol, warm)
    assert str(told) == "protocol: cold_cache is True here and False in the baseline"
    stored = {"replicates": 3}  # by a version without the field
    assert records.protocol_from_dict(stored).cold_cache is False
    run: Any = SimpleNamespace(environment={}, protocol=chosen.protocol)
    assert frames._conditions(run, [])["protocol"].endswith(", cold caches")
