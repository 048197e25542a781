"""CUDA graphs over a simulated capture: what a replay proves, and whose memory it does not show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from build_request_fixture import build_request
from cuda_graphs_fixture import Graph

from harness.backends import CaptureFailed
from harness.backends.cuda_graphs import CudaGraphs
from harness.backends.torch_compile import ReduceOverhead
from harness.probes.memory import memory
from harness.types import Component


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
    assert build.capture_s is not None
    assert build.verify() is None
    with pytest.raises(ValueError, match=r"captured for \(2, 3\), called with \(4, 3\)"):
        build.forwards["net"](torch.ones(4, 3))
    assert str(build.verify()) == "net: 2 replays of its CUDA graph in 3 calls"


def test_a_replay_that_writes_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = Graph(monkeypatch)
    component = Component(name="net", module=torch.nn.Linear(3, 3).eval(), inputs=(torch.ones(2, 3),))
    with pytest.raises(CaptureFailed, match="net: a replay of the captured CUDA graph does not write its whole output"):
        CudaGraphs().build([component], build_request(tmp_path))
    assert graph.graph.replay.call_count == 1


def test_a_capture_that_fails_is_a_kind_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torch's own words for it differ by version."""

    class ReadsBack(Doubling):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self._graph.capturing:
                raise RuntimeError("operation not permitted")
            return x

    graph = Graph(monkeypatch)
    component = Component(name="net", module=ReadsBack(graph), inputs=(torch.ones(2, 3),))
    with pytest.raises(CaptureFailed) as raised:
        CudaGraphs().build([component], build_request(tmp_path))
    assert raised.value.reason.kind == "capture_failed"
    assert "net: not captured as a CUDA graph: RuntimeError: operation not permitted" in str(raised.value)


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
        reset_memory_peaks=lambda: None,
        synchronize=lambda: None,
        memory_peaks=lambda: (dict(peaks), {}),
        driver_memory_bytes=lambda: "no driver",
    )
    build = SimpleNamespace(replays=replays, keeps_modules=True, weights_bytes=1, disk_bytes=lambda: 2)
    trial: Any = SimpleNamespace(device=device, build=build, step=lambda: None)
    found = memory(trial)
    assert ("peak_allocated_bytes" in found.samples) is not replays
    assert ("peak_allocated_bytes" in found.missing) is replays
    assert found.samples["peak_reserved_bytes"] == [9.0]
