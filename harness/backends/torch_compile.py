"""torch.compile with fullgraph=True (a graph break is an error, not a slow path) and static shapes, in three modes.

Compilation happens in `build`, by one call of each component with its example inputs, so that `first_call_s` is a
first iteration and not a compilation. A recompilation after that makes the row invalid. The processes of one sweep
share an inductor cache that is empty at its start, so that only the first process of a case compiles its graph (the
graph cache's own counters say which); on a CPU inductor compiles in this process, since its pool of helper processes
would still be there during the measurement.

reduce-overhead and, on a GPU, max-autotune replay CUDA graphs. A graph that inductor did not capture (it only logs why)
makes the row invalid: none may be skipped, and its tree must hold a recording of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness import optimizations, precision
from harness.backends import Build, BuildRequest, missing_device, missing_package
from harness.backends.eager import cast_all, read_back
from harness.registry import BACKENDS
from harness.types import Component, Forward

if TYPE_CHECKING:
    import torch


@BACKENDS.add("torch_compile")
class TorchCompile:
    label = "torch.compile"
    libraries: ClassVar[tuple[str, ...]] = ("torch._inductor.compile_fx",)
    description = "inductor, default mode, fullgraph, static shapes"
    mode: ClassVar[str] = "default"

    def unavailable(self, wanted: str, device: str) -> str | None:
        import shutil

        if device == "cpu" and not any(shutil.which(c) for c in (os.environ.get("CXX", "g++"), "g++", "clang++")):
            return "inductor needs a C++ compiler on a CPU, and neither g++ nor clang++ is on the PATH"
        if reason := missing_device(device):
            return reason
        if device == "cuda" and (reason := missing_package("triton", "inductor on a GPU")):
            return reason
        if wanted == "int8_dynamic_classic":
            return "dynamo cannot trace the packed weights of quantize_dynamic; torchao's int8_dynamic compiles"
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Compiles every component. Raises what dynamo raises, a graph break included."""
        import torch._inductor.config as inductor

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(request.cache.parent / "inductor")
        if request.device == "cpu":
            inductor.compile_threads = 1
        cast = cast_all(components, request)
        forwards = {c.name: self._forward(self._compile(cast.modules[c.name]), request.of(c)) for c in components}
        with optimizations.grad_mode(request.optimizations):  # as in the run: another mode would be another graph
            _, seconds = request.timer.timed(lambda: [forwards[c.name](*c.inputs) for c in components])
        cached = counted("inductor", "fxgraph_cache_miss") == 0 and counted("inductor", "fxgraph_cache_hit") > 0
        proof = read_back(cast, request.precision)
        dtype_mismatch, frames = proof["verify"], compiled_frames()
        proof["facts"] = {
            **proof["facts"],
            "mode": self.mode,
            "compiled_graphs": frames,
            "inductor_cache": "hit" if cached else "miss",
        }
        proof["verify"] = lambda: dtype_mismatch() or _recompiled(frames) or self._not_captured(request.device, frames)
        replays = self._replays_graphs(request.device)
        return Build(forwards=forwards, build_s=seconds, cached=cached, keeps=True, replays=replays, **proof)

    def _compile(self, module: torch.nn.Module) -> Callable[..., torch.Tensor]:
        import torch

        compiled: Any = torch.compile(module, fullgraph=True, dynamic=False, mode=self.mode)
        return compiled

    def _forward(self, compiled: Callable[..., torch.Tensor], request: BuildRequest) -> Forward:
        forward = precision.bordered(compiled, request.precision, request.device)
        if not self._replays_graphs(request.device):
            return forward

        def replayed(*inputs: torch.Tensor) -> torch.Tensor:
            import torch

            # A replay writes into the memory of the last one's output, which the workload may still hold.
            torch.compiler.cudagraph_mark_step_begin()
            return forward(*inputs).clone()

        return replayed

    def _replays_graphs(self, device: str) -> bool:
        return device == "cuda" and self.mode != "default"

    def _not_captured(self, device: str, frames: int) -> str | None:
        if not self._replays_graphs(device):
            return None
        if skipped := counted("inductor", "cudagraph_skips"):
            return f"mode {self.mode}: inductor did not capture {skipped} graph(s) as CUDA graphs"
        recorded = recorded_graphs()
        if recorded is not None and recorded < frames:
            return f"mode {self.mode}: inductor recorded {recorded} of {frames} graph(s) as CUDA graphs"
        return None


@BACKENDS.add("torch_compile_reduce_overhead")
class ReduceOverhead(TorchCompile):
    label = "torch.compile reduce-overhead"
    description = "inductor, mode reduce-overhead: compiled kernels replayed as CUDA graphs"
    mode: ClassVar[str] = "reduce-overhead"

    def unavailable(self, wanted: str, device: str) -> str | None:
        if device != "cuda":
            return "reduce-overhead is CUDA graphs; on a CPU it would be torch_compile under another name"
        return super().unavailable(wanted, device)


@BACKENDS.add("torch_compile_max_autotune")
class MaxAutotune(TorchCompile):
    label = "torch.compile max-autotune"
    description = "inductor, mode max-autotune: kernels chosen by measuring them, on a GPU replayed as CUDA graphs"
    mode: ClassVar[str] = "max-autotune"


def compiled_frames() -> int:
    """How many frames dynamo has compiled in this process."""
    return counted("stats", "unique_graphs")


def counted(group: str, name: str) -> int:
    """A counter of dynamo and inductor in this process; 0 for one that never counted."""
    from torch._dynamo.utils import counters

    return int(counters[group][name])


def recorded_graphs() -> int | None:
    """How many compiled functions inductor has recorded as CUDA graphs, by its own tree of them; None where this torch
    does not show it."""
    import torch

    try:
        from torch._inductor import cudagraph_trees

        manager = cudagraph_trees.get_manager(torch.cuda.current_device(), create_if_none_exists=False)
        return 0 if manager is None else sum(bool(nodes) for nodes in manager.roots.values())
    except (ImportError, AttributeError, TypeError):  # internals, which another version may have renamed
        return None


def _recompiled(before: int) -> str | None:
    added = compiled_frames() - before
    return f"{added} recompilation(s) after the build: the timed shapes are not the compiled ones" if added else None
