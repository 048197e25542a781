"""torch.compile with fullgraph=True (a graph break is an error, not a slow path) and static shapes.

Compilation happens in `build`, by one call of each component with its example inputs, so that `first_call_s` is a
first iteration and not a compilation. A recompilation after that makes the row invalid. The processes of one sweep
share an inductor cache that is empty at its start, so that only the first process of a case compiles its graph (the
graph cache's own counters say which); on a CPU inductor compiles in this process, since its pool of helper processes
would still be there during the measurement.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from harness import precision
from harness.backends import Build, BuildRequest, missing_package
from harness.backends.eager import cast_all, read_back
from harness.registry import BACKENDS
from harness.types import Component


@BACKENDS.add("torch_compile")
class TorchCompile:
    label = "torch.compile"
    description = "inductor, default mode, fullgraph, static shapes"

    def unavailable(self, wanted: str, device: str) -> str | None:
        import shutil

        if device == "cpu" and not any(shutil.which(c) for c in (os.environ.get("CXX", "g++"), "g++", "clang++")):
            return "inductor needs a C++ compiler on a CPU, and neither g++ nor clang++ is on the PATH"
        if device == "cuda" and (reason := missing_package("triton", "inductor on a GPU")):
            return reason
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Compiles every component. Raises what dynamo raises, a graph break included."""
        import torch
        import torch._inductor.config as inductor

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(request.cache.parent / "inductor")
        if request.device == "cpu":
            inductor.compile_threads = 1
        modules = cast_all(components, request)
        compiled = {name: torch.compile(module, fullgraph=True, dynamic=False) for name, module in modules.items()}
        forwards = {n: precision.bordered(m, request.precision, request.device) for n, m in compiled.items()}
        with torch.no_grad():  # as in the run: another grad mode would be another graph
            _, seconds = request.timer.timed(lambda: [forwards[c.name](*c.inputs) for c in components])
        cached = _graph_cache("miss") == 0 and _graph_cache("hit") > 0
        proof = read_back(modules, request.precision)
        dtype_mismatch, frames = proof["verify"], compiled_frames()
        proof["facts"] = {**proof["facts"], "compiled_graphs": frames, "inductor_cache": "hit" if cached else "miss"}
        proof["verify"] = lambda: dtype_mismatch() or _recompiled(frames)
        return Build(forwards=forwards, build_s=seconds, cached=cached, **proof)


def compiled_frames() -> int:
    """How many frames dynamo has compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _recompiled(before: int) -> str | None:
    added = compiled_frames() - before
    return f"{added} recompilation(s) after the build: the timed shapes are not the compiled ones" if added else None


def _graph_cache(outcome: str) -> int:
    """How many graphs inductor found ("hit") or did not find ("miss") in its cache, in this process."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"][f"fxgraph_cache_{outcome}"])
