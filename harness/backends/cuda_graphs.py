"""Eager kernels, captured once as a CUDA graph for each component and replayed: no launch overhead.

Shapes are static, so a component is captured with its example inputs; replaying with any other shape is an error.
Not yet proven on hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import precision
from harness.backends import Build, BuildRequest
from harness.backends.eager import cast_all, read_back
from harness.registry import BACKENDS
from harness.types import Component, Forward

if TYPE_CHECKING:
    import torch

WARM_UP_CALLS = 3


@BACKENDS.add("cuda_graphs")
class CudaGraphs:
    label = "CUDA graphs"
    description = "eager kernels captured once and replayed"

    def unavailable(self, wanted: str, device: str) -> str | None:
        if device != "cuda":
            return "CUDA graphs need an NVIDIA GPU; the device here is a CPU"
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        modules = cast_all(components, request)
        captured, seconds = request.timer.timed(
            lambda: {c.name: _capture(modules[c.name], c, request) for c in components}
        )
        proof = read_back(modules, request.precision)
        proof["facts"] = {**proof["facts"], "captured_graphs": len(captured)}
        return Build(forwards=captured, build_s=seconds, cached=False, **proof)


def _capture(module: torch.nn.Module, component: Component, request: BuildRequest) -> Forward:
    """A forward that copies its inputs into the graph's own, replays, and returns a copy of the output in fp32."""
    import torch

    dtype = getattr(torch, precision.DTYPES[request.precision])
    given = [x.to(request.device, dtype if x.is_floating_point() else None) for x in component.inputs]
    static = [x.clone() for x in given]  # the graph's own, written to before each replay
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(WARM_UP_CALLS):
            module(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        output = module(*static)

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        for own, given in zip(static, inputs, strict=True):
            if own.shape != given.shape:
                raise ValueError(f"{component.name}: captured for {tuple(own.shape)}, called with {tuple(given.shape)}")
            own.copy_(given)
        graph.replay()
        return output.to(torch.float32, copy=True)

    return forward
