"""Eager kernels, captured once as a CUDA graph for each component and replayed: no launch overhead.

Shapes are static, so a component is captured with its example inputs; replaying with any other shape is an error. A
replay over an erased output proves each graph, and every call must be a replay. Not yet proven on hardware.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar

from harness import devices
from harness.backends import Build, BuildRequest, CaptureFailed
from harness.backends.eager import cast_all, read_back
from harness.causes import one_line
from harness.numerics import precision
from harness.numerics.optimizations import MODULE
from harness.reasons import Reason
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Component

if TYPE_CHECKING:
    import torch

WARM_UP_CALLS = 3


@BACKENDS.add("cuda_graphs")
class CudaGraphs:
    label = "CUDA graphs"
    description = "eager kernels captured once and replayed"
    precisions: ClassVar[Collection[str]] = PRECISIONS
    features: ClassVar[frozenset[str]] = frozenset({MODULE})
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    colour: ClassVar[str] = "#8a6fd6"

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if devices.kind(device) != "cuda":
            return Reason("graphs_need_gpu", {"device": device})
        if precision.waits_for_gpu(wanted):
            return Reason("waits_for_gpu_in_graph", {"precision": wanted})
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Casts and captures every component. Raises CaptureFailed."""
        cast, seconds = request.timer.timed(lambda: cast_all(components, request))
        captured, capture_s = request.timer.timed(
            lambda: {c.name: Captured(cast.modules[c.name], c, request.of(c)) for c in components}
        )
        proof = read_back(cast, request.precision)
        wrong_dtype = proof["verify"]
        proof["facts"] = {**proof["facts"], "captured_graphs": len(captured)}
        proof["verify"] = lambda: wrong_dtype() or next(filter(None, (c.fault() for c in captured.values())), None)
        return Build(forwards=captured, build_s=seconds, capture_s=capture_s, cached=False, replays=True, **proof)


class Captured:
    """A forward that copies its inputs into the graph's own, replays, and returns a copy of the output in fp32."""

    def __init__(self, module: torch.nn.Module, component: Component, request: BuildRequest) -> None:
        import torch

        self._name = component.name
        dtype = precision.dtype_of(request.precision)
        given = [x.to(request.device, dtype if x.is_floating_point() else None) for x in component.inputs]
        self._inputs = [x.clone() for x in given]  # the graph's own, written to before each replay
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(WARM_UP_CALLS):
                expected = precision.one_tensor(module(*self._inputs), module)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph), torch.no_grad():
                self._output = precision.one_tensor(module(*self._inputs), module)
        except RuntimeError as error:
            seen = {"component": self._name, "error": one_line(error)}
            raise CaptureFailed(Reason("capture_failed", seen)) from error
        self._prove(expected)
        self.calls = self.replays = 0

    def _prove(self, expected: torch.Tensor) -> None:
        """A replay must write the output that was erased before. An empty graph would return that of the capture."""
        import torch

        self._output.fill_(float("nan"))
        self._graph.replay()
        if bool((torch.isnan(self._output) & ~torch.isnan(expected)).any()):
            raise CaptureFailed(Reason("capture_incomplete", {"component": self._name}))

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        import torch

        self.calls += 1
        for own, given in zip(self._inputs, inputs, strict=True):
            if own.shape != given.shape:
                raise ValueError(f"{self._name}: captured for {tuple(own.shape)}, called with {tuple(given.shape)}")
            own.copy_(given)
        self._graph.replay()
        self.replays += 1
        return self._output.to(torch.float32, copy=True)

    def fault(self) -> Reason | None:
        """Why not every call was a replay, or None."""
        if self.calls == self.replays:
            return None
        counts = {"component": self._name, "replays": self.replays, "calls": self.calls}
        return Reason("capture_not_replayed", counts)
