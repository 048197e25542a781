"""torch.compile with fullgraph=True (a graph break is an error, not a slow path) and static shapes, in three modes.

`build` compiles by calling each component with its example inputs, so that `first_call_s` is a first iteration and not
a compilation. A recompilation after that makes the row invalid. The processes of one sweep share an inductor cache that
is empty when the sweep starts, so only the first process of a case compiles its graph; the graph cache's own counters
say which process did. No helper process of inductor runs during the measurement: on a CPU inductor compiles in this
process, and on a GPU its pool is shut down after the build.

reduce-overhead and, on a GPU, max-autotune replay CUDA graphs. By default inductor partitions a graph that it cannot
capture as a whole and replays parts of it. That is switched off here, so a network is captured whole or not at all. The
build calls each network until its graph is recorded, and proves the capture by a replay that writes its output anew.
The row is invalid if inductor does not capture a graph (it only logs why), if the replay does not prove the capture, or
if a graph is recorded again after the build.

Compiling, capturing and replaying on a GPU are not yet proven on hardware.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness import devices, reasons
from harness.backends import Build, BuildRequest, missing_device, missing_package
from harness.backends.eager import cast_all, read_back
from harness.backends.torch.compilation import Compilation, Counts
from harness.numerics import optimizations, precision
from harness.numerics.optimizations import GRAD_MODE, MODULE
from harness.reasons import Reason
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Component, Forward

if TYPE_CHECKING:
    import torch


@BACKENDS.add("torch_compile")
class TorchCompile:
    label = "torch.compile"
    libraries: ClassVar[tuple[str, ...]] = ("torch._inductor.compile_fx",)
    description = "inductor, default mode, fullgraph, static shapes"
    precisions: ClassVar[Collection[str]] = PRECISIONS
    features: ClassVar[frozenset[str]] = frozenset({MODULE, GRAD_MODE})
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    colour: ClassVar[str] = "#d9641e"
    mode: ClassVar[str] = "default"

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if reason := missing_device(device):
            return reason
        if devices.is_gpu(device) and (reason := missing_package("triton", "inductor on a GPU")):
            return reason
        if reason := missing_compiler(device):
            return reason
        quantiser = PRECISIONS[wanted].quantiser
        if quantiser is not None and quantiser.untraceable is not None:
            return reasons.of(quantiser.untraceable)
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Compiles every component, and where the mode replays CUDA graphs, captures it. Raises what dynamo raises, a
        graph break included."""
        import torch._inductor.config as inductor

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(request.cache.parent / "inductor")
        if request.device == "cpu":
            inductor.compile_threads = 1
        compilation = Compilation()
        cast = cast_all(components, request)
        replays = self._replays_graphs(request.device)
        compiled = {name: self._compile(module, replays=replays) for name, module in cast.modules.items()}
        forwards = {c.name: self._forward(compiled[c.name], request.of(c)) for c in components}
        unproven: list[Reason | None] = []
        capture_s: float | None = None
        try:
            with optimizations.grad_mode(request.optimizations):  # as in the run: another mode has another graph
                _, seconds = request.timer.timed(lambda: [forwards[c.name](*c.inputs) for c in components])
                if replays:
                    unproven, capture_s = request.timer.timed(
                        lambda: [_captured(c, compiled[c.name], request.of(c)) for c in components]
                    )
        finally:
            if request.device != "cpu":
                _end_compile_workers()
        built = compilation.counts()
        proof = read_back(cast, request.precision)
        wrong_dtype, no_replay = proof["verify"], next(filter(None, unproven), None)
        proof["facts"] = {
            **proof["facts"],
            "mode": self.mode,
            "compiled_graphs": built.frames,
            "inductor_cache": "hit" if built.cached else "miss",
            **({"captured_graphs": unproven.count(None)} if replays else {}),
        }
        proof["verify"] = lambda: wrong_dtype() or self._fault(request.device, built, compilation.counts()) or no_replay
        return Build(
            forwards=forwards,
            build_s=seconds,
            capture_s=capture_s,
            cached=built.cached,
            keeps=True,
            replays=replays,
            **proof,
        )

    def _compile(self, module: torch.nn.Module, *, replays: bool) -> Callable[..., torch.Tensor]:
        import torch
        from torch._inductor import list_mode_options

        # torch.compile takes a mode or options, not both. Options hold for this graph, not for the process.
        how: dict[str, Any] = {"mode": self.mode}
        if replays:
            how = {"options": {**list_mode_options(self.mode, dynamic=False), "graph_partition": False}}
        compiled: Any = torch.compile(module, fullgraph=True, dynamic=False, **how)
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

    def _fault(self, device: str, built: Counts, now: Counts) -> Reason | None:
        """Why what ran is not what was compiled and captured, or None. It compares the counts after the build with
        those now."""
        if added := now.frames - built.frames:
            return Reason("recompiled", {"count": added})
        if not self._replays_graphs(device):
            return None
        if now.skipped:
            return Reason("capture_skipped", {"mode": self.mode, "count": now.skipped})
        if now.partitions:
            return Reason("capture_divided", {"mode": self.mode, "parts": now.partitions})
        if now.recorded is not None and now.recorded < now.frames:
            return Reason("capture_of_some", {"mode": self.mode, "count": now.recorded, "graphs": now.frames})
        if now.recordings != built.recordings:
            return Reason("capture_repeated", {"mode": self.mode})
        return None


@BACKENDS.add("torch_compile_reduce_overhead")
class ReduceOverhead(TorchCompile):
    label = "torch.compile reduce-overhead"
    description = "inductor, mode reduce-overhead: compiled kernels replayed as CUDA graphs"
    mode: ClassVar[str] = "reduce-overhead"
    colour: ClassVar[str] = "#7d8794"

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if devices.kind(device) != "cuda":
            return Reason("no_graphs_on_cpu")
        return super().unavailable(wanted, device)


@BACKENDS.add("torch_compile_max_autotune")
class MaxAutotune(TorchCompile):
    label = "torch.compile max-autotune"
    description = "inductor, mode max-autotune: kernels chosen by measuring them, on a GPU replayed as CUDA graphs"
    mode: ClassVar[str] = "max-autotune"
    colour: ClassVar[str] = "#b4584e"

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Builds as in every mode. If inductor does not use its templates on this GPU, the row has that as a fact and a
        warning."""
        build = super().build(components, request)
        if request.device == "cpu":
            return build
        from torch._inductor.utils import is_big_gpu

        big = is_big_gpu()
        return replace(
            build,
            facts={**build.facts, "triton_templates": big},
            warnings=build.warnings if big else (*build.warnings, _no_templates()),
        )


def missing_compiler(device: str) -> Reason | None:
    """What inductor lacks to compile code of a registered device, or None. On a GPU triton needs Python's headers and a
    C compiler for its launchers, and uses the compiler that CC names, or else gcc or clang (triton/runtime/build.py).
    """
    if not devices.is_gpu(device):
        found = any(shutil.which(c) for c in (os.environ.get("CXX", "g++"), "g++", "clang++"))
        return None if found else Reason("missing_cpp_compiler")
    if (named := os.environ.get("CC")) is not None:
        if not shutil.which(named):
            return Reason("missing_c_compiler", {"named": named})
    elif not any(shutil.which(c) for c in ("gcc", "clang")):
        return Reason("missing_c_compiler")
    headers = _python_headers()
    if (headers / "Python.h").exists():
        return None
    return Reason("missing_headers", {"folder": str(headers)})


def _python_headers() -> Path:
    """The folder where triton's C compiler looks for them. On Debian it is not the one where pip installs headers."""
    scheme = sysconfig.get_default_scheme()
    return Path(sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"])


def _captured(component: Component, compiled: Callable[..., torch.Tensor], request: BuildRequest) -> Reason | None:
    """Records a network's CUDA graph, and returns why a replay of it is not proven, or None. Call it after the call
    that compiled the network, which is inductor's warm-up.

    The next call is the recording, and the one after it must be a replay. A replay writes the whole output anew after
    it was erased, at the same address, which belongs to the graph's memory. The recording's output is still in use
    then, so kernels that are not replayed would have to write to other memory.
    """
    import torch

    outputs: list[torch.Tensor] = []

    def kept(*inputs: torch.Tensor) -> torch.Tensor:
        outputs.append(compiled(*inputs))
        return outputs[-1]

    forward = precision.bordered(kept, request.precision, request.device)

    def output_of_a_call() -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        forward(*component.inputs)
        return outputs.pop()

    recorded = output_of_a_call()
    address, expected = recorded.data_ptr(), recorded.clone()
    recorded.zero_()
    replayed = output_of_a_call()  # inductor may have moved `recorded` elsewhere by now, or have made it unreadable
    if replayed.data_ptr() != address:
        return Reason("capture_elsewhere", {"component": component.name})
    if bool(((replayed == 0) & (expected != 0)).any()):
        return Reason("capture_incomplete", {"component": component.name})
    return None


def _end_compile_workers() -> None:
    """Ends inductor's pool of helper processes. The next graph that is compiled in this process starts a new one."""
    from torch._inductor.async_compile import shutdown_compile_workers

    shutdown_compile_workers()


def _no_templates() -> Reason:
    import torch

    count = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    return Reason("no_templates", {"multiprocessors": count})
