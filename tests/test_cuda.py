"""The CUDA device over autospecs of torch.cuda: order of calls, units, reasons. No GPU."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from harness.devices import cuda, nvml
from harness.measuring import contention
from harness.measuring.repeatability import snapshot
from harness.probes.latency import latency
from harness.probes.memory import memory
from harness.reasons import Reason
from harness.stored_types import State
from harness.timing import Timer
from harness.types import Case, Protocol, Workload

EVENT, STREAM = torch.cuda.Event, torch.cuda.Stream  # the real ones, to make specs of


class Stream:
    """A stream of marks: each event that is recorded reads the simulated clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.log: list[str] = []

    def event(self, enable_timing: bool = False) -> Any:
        assert enable_timing
        event = create_autospec(EVENT, instance=True)
        event.record.side_effect = lambda *_: setattr(event, "at", self.seconds)
        event.elapsed_time.side_effect = lambda end: (end.at - event.at) * 1e3  # milliseconds, as torch gives them
        return event


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    found = Stream()
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: found.log.append("synchronize"))
    return found


def test_events_give_seconds(stream: Stream) -> None:
    watch = cuda.CudaEvents()
    watch.start()
    stream.seconds += 0.25
    watch.stop()
    assert watch.seconds() == pytest.approx(0.25)


def test_a_timer_reads_both_clocks_and_divides_by_the_repeats(stream: Stream) -> None:
    ticks = iter([10.0, 10.8])
    timer = Timer(cuda.Cuda().synchronize, lambda: next(ticks), cuda.CudaEvents())

    def work() -> None:
        stream.seconds += 0.15

    assert timer.seconds(work, repeat=4) == pytest.approx(0.2)
    assert timer.last_device_s == pytest.approx(0.15)
    assert stream.log == ["synchronize", "synchronize"]


def trial(stream: Stream, wall_s: float, device_s: float) -> Any:
    """A trial whose iterations take `wall_s` on the host and `device_s` on the GPU."""
    host = [0.0]

    def step() -> torch.Tensor:
        host[0] += wall_s
        stream.seconds += device_s
        return torch.tensor([[0.0, 1.0], [1.0, 0.0]])

    workload = create_autospec(Workload, instance=True)
    workload.output_shape = (2, 2)
    workload.output_kind = "logits"
    workload.batch = torch.eye(2)
    device = cuda.Cuda()
    return SimpleNamespace(
        case=Case(model="m", batch_size=2),
        replicate=0,
        timer=Timer(device.synchronize, lambda: host[0], cuda.CudaEvents()),
        device=device,
        step=step,
        protocol=Protocol(min_samples=5, min_sample_time_s=0, warmup_min_s=0, target_interval=None),
        workload=workload,
        first_output=torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        batch_before=snapshot(workload.batch),
        turns=None,
        interleaving=None,
    )


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "own_gpu", lambda: Reason("nvml_error", {"error": "Driver Not Loaded"}))


@pytest.mark.usefixtures("no_nvml")
def test_the_gpus_own_time_stands_beside_the_wall_clock(stream: Stream) -> None:
    found = latency(trial(stream, wall_s=0.0102, device_s=0.0100))
    assert len(found.samples["device_time_s"]) == len(found.samples["latency_s"])
    assert found.samples["device_time_s"][0] == pytest.approx(0.0100)
    assert found.samples["latency_s"][0] == pytest.approx(0.0102)
    assert not found.warnings


def test_the_gpu_is_looked_at_right_before_the_samples_and_right_after_them(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then it is warm, and the work of the CPU that follows has not yet let it cool down."""
    gpu = nvml.Gpu(handle=1, whole=1, is_mig=False)
    asked = trial(stream, wall_s=0.010, device_s=0.010)
    looks: list[int] = []
    steps = [0]
    step = asked.step

    def counted() -> torch.Tensor:
        steps[0] += 1
        return step()

    asked.step = counted
    monkeypatch.setattr(cuda, "own_gpu", lambda: gpu)
    monkeypatch.setattr(nvml, "counters", lambda _gpu: looks.append(steps[0]) or {"throttle_reasons": 0x40})

    def state(_gpu: nvml.Gpu, before: dict[str, Any]) -> dict[str, Any]:
        looks.append(steps[0])
        return before

    monkeypatch.setattr(nvml, "state", state)
    found = latency(asked)
    assert looks == [len(found.warmup["latency_s"]), steps[0]]
    seen = found.state["latency_pass"]["gpu"]
    assert seen["throttle_reasons"] == 0x40
    of_gpu: State = {"latency_pass": {"gpu": seen}}  # the CPU's counters depend on other work on this machine
    told = "contended: the GPU was throttled (hardware thermal) during the measurement"
    assert str(contention.contended(of_gpu)) == told


@pytest.mark.usefixtures("no_nvml")
def test_two_clocks_that_disagree_are_flagged(stream: Stream) -> None:
    found = latency(trial(stream, wall_s=0.020, device_s=0.010))
    assert [told.kind for told in found.warnings] == ["clocks"]
    assert str(found.warnings[0]) == "clocks: an iteration took 20.000 ms by the host's clock, 10.000 by CUDA events"


class Memory:
    """torch's allocator: what is live, what is held, and the peaks since the last reset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live, self.peak, self.held = 100, 900, 1000
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: self.peak)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda *_: self.held)

    def reset(self, *_: Any) -> None:
        self.peak = self.live


def test_memory_has_three_figures_and_its_peaks_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch)
    gpu = nvml.Gpu(handle=1, whole=1, is_mig=False)
    monkeypatch.setattr(cuda, "own_gpu", lambda: gpu)
    monkeypatch.setattr(nvml, "memory_used_bytes", lambda found: 5000 if found is gpu else "wrong GPU")
    device = cuda.Cuda()
    device.reset_memory_peaks()
    memory.peak = max(memory.peak, 300)
    samples, missing = device.memory_peaks()
    assert {k: v for k, v in samples.items() if k != "peak_host_bytes"} == {
        "peak_allocated_bytes": [300.0],
        "peak_reserved_bytes": [1000.0],
        "peak_driver_bytes": [5000.0],
    }
    assert missing.keys() <= {"peak_host_bytes"}


def memory_trial(steps: list[Any], now: Any) -> Any:
    """A trial of the memory pass on a device whose driver reports what `now` gives; each step is one of `steps`."""
    left = iter(steps)
    device = SimpleNamespace(
        reset_memory_peaks=lambda: None,
        synchronize=lambda: None,
        memory_peaks=lambda: ({"peak_driver_bytes": [now()]}, {}),
        driver_memory_bytes=now,
    )
    build = SimpleNamespace(replays=False, keeps_modules=True, weights_bytes=1, disk_bytes=lambda: 2)
    return SimpleNamespace(device=device, build=build, step=lambda: next(left)())


def test_the_drivers_peak_is_the_largest_reading_of_the_pass() -> None:
    """The peak includes a workspace that is freed before the pass ends."""
    used, seen = [1000.0], threading.Event()

    def now() -> float:
        if used[0] == 9000.0:
            seen.set()
        return used[0]

    def rise() -> None:
        used[0] = 9000.0
        assert seen.wait(10)
        used[0] = 2000.0

    found = memory(memory_trial([rise, lambda: None], now))
    assert found.samples["peak_driver_bytes"] == [9000.0]
    assert found.facts["driver_memory_readings"] >= 2
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("driver memory")]


def test_a_driver_that_cannot_be_read_during_the_pass_has_no_peak() -> None:
    asked = memory_trial([lambda: None] * 2, lambda: 1000.0)

    def lost() -> float:
        raise OSError("gone")

    asked.device.driver_memory_bytes = lost
    found = memory(asked)
    assert "peak_driver_bytes" not in found.samples
    assert found.missing["peak_driver_bytes"] == Reason("driver_memory_not_read", {"error": "OSError: gone"})


def test_without_nvml_the_reason_stands_where_its_figures_would(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch)
    monkeypatch.setattr(cuda, "own_gpu", lambda: Reason("nvml_error", {"error": "Driver Not Loaded"}))
    device = cuda.Cuda()
    device.reset_memory_peaks()
    _, missing = device.memory_peaks()
    assert str(missing["peak_driver_bytes"]) == "NVML: Driver Not Loaded"
    assert device.energy_meter() == Reason("nvml_error", {"error": "Driver Not Loaded"})
    assert device.span_state(device.start_span())["gpu"] == {"unavailable": "NVML: Driver Not Loaded"}


def test_the_device_is_described_with_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="a GPU", total_memory=80 * 2**30, uuid="stub")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    asked: list[str] = []

    def gpu(uuid: str) -> nvml.Gpu:
        asked.append(uuid)
        return nvml.Gpu(handle=1, whole=1, is_mig=False)

    identity = {"uuid": "GPU-stub", "power_limit_w": 700.0, "mig": False, "driver": "595.10"}
    monkeypatch.setattr(nvml, "gpu", gpu)
    monkeypatch.setattr(nvml, "identity", lambda _gpu: dict(identity))
    found = cuda.Cuda().describe()
    assert asked == ["stub"]
    assert found["driver"] == "595.10"
    assert found["gpus"] == [
        {"name": "a GPU", "memory_bytes": 80 * 2**30, "uuid": "GPU-stub", "power_limit_w": 700.0, "mig": False}
    ]
