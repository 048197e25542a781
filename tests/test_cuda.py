"""The CUDA device and the CUDA graphs backend over autospecs of torch.cuda: order of calls, units, reasons. No GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
from build_request_fixture import build_request

from harness import contention
from harness.backends.cuda_graphs import CudaGraphs
from harness.backends.torch_compile import MaxAutotune, ReduceOverhead, TorchCompile, recorded_graphs
from harness.devices import cuda, nvml
from harness.probes.latency import latency
from harness.probes.memory import memory
from harness.timing import Timer
from harness.types import Case, Component, Protocol, Workload

EVENT, STREAM, GRAPH = torch.cuda.Event, torch.cuda.Stream, torch.cuda.CUDAGraph  # the real ones, to make specs of


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
    device = cuda.Cuda()
    return SimpleNamespace(
        case=Case(model="m", batch_size=2),
        timer=Timer(device.synchronize, lambda: host[0], cuda.CudaEvents()),
        device=device,
        step=step,
        protocol=Protocol(min_samples=5, min_sample_time_s=0, warmup_min_s=0, target_interval=None),
        workload=workload,
        turns=None,
        interleaving=None,
    )


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "own_gpu", lambda: "NVML: Driver Not Loaded")


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
    assert contention.contended(found.state) == "the GPU slowed down (hardware thermal)"


@pytest.mark.usefixtures("no_nvml")
def test_two_clocks_that_disagree_are_flagged(stream: Stream) -> None:
    found = latency(trial(stream, wall_s=0.020, device_s=0.010))
    assert found.warnings == ("clocks: 20.000 ms by the wall clock, 10.000 ms by the GPU's events",)


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


def test_without_nvml_the_reason_stands_where_its_figures_would(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch)
    monkeypatch.setattr(cuda, "own_gpu", lambda: "NVML: Driver Not Loaded")
    device = cuda.Cuda()
    device.reset_memory_peaks()
    _, missing = device.memory_peaks()
    assert missing["peak_driver_bytes"] == "NVML: Driver Not Loaded"
    assert device.energy_meter() == "NVML: Driver Not Loaded"
    assert device.block_state(device.start_block())["gpu"] == {"unavailable": "NVML: Driver Not Loaded"}


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


class Graph:
    """`torch.cuda.CUDAGraph` over an autospec: a replay recomputes the captured output from the captured inputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graph = create_autospec(GRAPH, instance=True)
        self.stream = create_autospec(STREAM, instance=True)
        self.capturing = False
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self.graph)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self.stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: create_autospec(STREAM, instance=True))
        monkeypatch.setattr(torch.cuda, "stream", lambda _stream: self._nothing())
        monkeypatch.setattr(torch.cuda, "graph", lambda _graph: self._capture())

    @contextmanager
    def _nothing(self) -> Iterator[None]:
        yield

    @contextmanager
    def _capture(self) -> Iterator[None]:
        self.capturing = True
        yield
        self.capturing = False


class Doubling(torch.nn.Module):
    """Keeps its input and output of the capture, so that a replay can write the output anew."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self._graph = graph
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        output = x * self.weight
        if self._graph.capturing:
            self._graph.graph.replay.side_effect = lambda: output.copy_(x * self.weight)
        return output


def test_a_graph_is_captured_once_and_replayed_on_the_new_inputs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph = Graph(monkeypatch)
    module = Doubling(graph)
    component = Component(name="net", module=module, inputs=(torch.ones(2, 3),))
    build = CudaGraphs().build([component], build_request(tmp_path))
    captured_after = module.calls
    first = build.forwards["net"](torch.full((2, 3), 3.0))
    second = build.forwards["net"](torch.full((2, 3), 5.0))
    assert module.calls == captured_after
    assert graph.graph.replay.call_count == 3  # the first over a wiped output, as the proof of the capture
    assert first.tolist() == [[6.0] * 3] * 2  # a copy: the second replay did not overwrite it
    assert second.tolist() == [[10.0] * 3] * 2
    assert build.facts["captured_graphs"] == 1
    assert build.verify() is None
    with pytest.raises(ValueError, match=r"captured for \(2, 3\), called with \(4, 3\)"):
        build.forwards["net"](torch.ones(4, 3))
    assert build.verify() == "net: 2 replays of its CUDA graph in 3 calls"


def test_a_replay_that_writes_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = Graph(monkeypatch)
    component = Component(name="net", module=torch.nn.Linear(3, 3).eval(), inputs=(torch.ones(2, 3),))
    with pytest.raises(RuntimeError, match="net: a replay of the captured graph does not write its whole output"):
        CudaGraphs().build([component], build_request(tmp_path))
    assert graph.graph.replay.call_count == 1


@pytest.mark.parametrize("backend", [ReduceOverhead(), MaxAutotune()])
def test_a_graph_that_inductor_did_not_capture_is_invalid(
    backend: TorchCompile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.backends.torch_compile.counted", lambda _group, name: int(name == "cudagraph_skips"))
    reason = backend._not_captured("cuda", 1)
    assert reason == f"mode {backend.mode}: inductor did not capture 1 graph(s) as CUDA graphs"
    assert backend._not_captured("cpu", 1) is None
    assert TorchCompile()._not_captured("cuda", 1) is None


def test_inductors_tree_must_hold_a_recording_of_every_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cudagraph_trees

    trees: list[object] = [SimpleNamespace(roots={1: ["a recording"], 2: []}), None, SimpleNamespace()]
    monkeypatch.setattr("harness.backends.torch_compile.counted", lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cudagraph_trees, "get_manager", lambda _device, create_if_none_exists: trees[0])
    assert ReduceOverhead()._not_captured("cuda", 1) is None
    reason = "mode reduce-overhead: inductor recorded {} of 2 graph(s) as CUDA graphs"
    assert ReduceOverhead()._not_captured("cuda", 2) == reason.format(1)
    trees.pop(0)
    assert ReduceOverhead()._not_captured("cuda", 2) == reason.format(0)
    trees.pop(0)
    assert recorded_graphs() is None  # another version's tree: nothing is known
    assert ReduceOverhead()._not_captured("cuda", 2) is None


def test_a_replayed_output_is_copied_and_each_call_is_a_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    monkeypatch.setattr(ReduceOverhead, "_replays_graphs", lambda *_: True)
    memory = torch.zeros(2)

    def replay(x: torch.Tensor) -> torch.Tensor:
        return memory.copy_(x)

    forward = ReduceOverhead()._forward(replay, build_request(tmp_path))
    first = forward(torch.tensor([1.0, 2.0]))
    forward(torch.tensor([3.0, 4.0]))
    assert first.tolist() == [1.0, 2.0]
    assert len(steps) == 2


@pytest.mark.parametrize("replays", [False, True])
def test_a_replayed_graph_has_no_peak_of_what_it_allocated(replays: bool) -> None:
    """It asks the allocator for nothing: the figure would be the weights alone."""
    peaks = {"peak_allocated_bytes": [5.0], "peak_reserved_bytes": [9.0]}
    device = SimpleNamespace(
        reset_memory_peaks=lambda: None, synchronize=lambda: None, memory_peaks=lambda: (dict(peaks), {})
    )
    build = SimpleNamespace(replays=replays, keeps_modules=True, weights_bytes=1, disk_bytes=lambda: 2)
    trial: Any = SimpleNamespace(device=device, build=build, step=lambda: None)
    found = memory(trial)
    assert ("peak_allocated_bytes" in found.samples) is not replays
    assert ("peak_allocated_bytes" in found.missing) is replays
    assert found.samples["peak_reserved_bytes"] == [9.0]
