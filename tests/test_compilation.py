"""torch.compile over a simulated inductor: what a row's own build compiled, captured and left behind.

The simulation runs on a CPU. The memory of its graphs is a tensor, and `cpu:0` takes the place of the GPU.
"""

from __future__ import annotations

import shutil
import sysconfig
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from build_request_fixture import build_request
from torch._dynamo.utils import counters
from torch._inductor import async_compile, cudagraph_trees
from torch._inductor import config as inductor

from benches.cli import doctor
from harness.backends import Build, is_capture, torch_compile
from harness.backends.torch.compilation import Compilation, Counts
from harness.backends.torch_compile import MaxAutotune, ReduceOverhead, TorchCompile, missing_compiler
from harness.devices import cuda
from harness.reasons import Reason
from harness.types import Component

GPU = "cpu:0"


class Inductor:
    """`torch.compile` whose result warms up, records and replays as inductor's tree of CUDA graphs does. `flaw` names
    its defect: "skipped", "divided", "half" (half of the output is written), "eager" (each call runs the kernels
    anew)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flaw: str | None = None
        self.events: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.manager = SimpleNamespace(roots={})
        self.functions = 0
        self.block = torch.zeros(2, 3)
        self.last: Callable[[], torch.Tensor | None] = lambda: None
        monkeypatch.setattr(torch, "compile", self._compile)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(cudagraph_trees, "get_manager", lambda _device, create_if_none_exists: self.manager)
        monkeypatch.setattr(cudagraph_trees, "reset_cudagraph_trees", self._reset)
        monkeypatch.setattr(async_compile, "shutdown_compile_workers", lambda: self.events.append("workers ended"))
        monkeypatch.setattr(torch_compile.TorchCompile, "_replays_graphs", lambda self, _device: self.mode != "default")

    def record(self, function: int) -> None:
        self.manager.roots.setdefault(function, []).append(SimpleNamespace(children={}))

    def _reset(self) -> None:
        self.manager = SimpleNamespace(roots={})

    def _compile(self, module: torch.nn.Module, **options: Any) -> Callable[..., torch.Tensor]:
        self.options.append(options)
        self.functions += 1
        function, calls, memory = self.functions, 0, torch.zeros(0)

        def compiled(x: torch.Tensor) -> torch.Tensor:
            nonlocal calls, memory
            calls += 1
            output: torch.Tensor = module(x)
            if calls == 1:
                self.events.append("compiled and warmed up")
                counters["stats"]["unique_graphs"] += 1
                counters["inductor"]["cudagraph_skips"] += self.flaw == "skipped"
                counters["inductor"]["cudagraph_partitions"] += 2 * (self.flaw == "divided")
                return output
            if self.flaw in {"skipped", "eager"}:
                return self._allocated(output)
            if calls == 2:
                self.events.append("recorded")
                self.record(function)
                memory = output.clone()
                return memory
            self.events.append("replayed")
            written = slice(1) if self.flaw == "half" else slice(None)
            memory[written] = output[written]
            return memory

        return compiled

    def _allocated(self, output: torch.Tensor) -> torch.Tensor:
        """The block that the caching allocator gives: the last one again, unless that is still in use."""
        if self.last() is not None:
            return output
        block = self.block.view(output.shape).copy_(output)
        self.last = weakref.ref(block)
        return block


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Inductor:
    return Inductor(monkeypatch)


class Doubling(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def built(
    folder: Path, backend: TorchCompile | None = None, networks: int = 1, batch_size: int = 2, **changes: Any
) -> Build:
    components = [
        Component(name=f"net{i}", module=Doubling().eval(), inputs=(torch.ones(batch_size, 3),))
        for i in range(networks)
    ]
    return (backend or ReduceOverhead()).build(components, build_request(folder, **changes))


def test_the_build_records_every_graph_so_that_the_first_iteration_is_a_replay(
    simulated: Inductor, tmp_path: Path
) -> None:
    build = built(tmp_path, networks=2)
    assert simulated.events == ["compiled and warmed up"] * 2 + ["recorded", "replayed"] * 2
    assert build.capture_s is not None
    assert (build.facts["captured_graphs"], build.facts["compiled_graphs"]) == (2, 2)
    simulated.events.clear()
    first = build.forwards["net0"](torch.full((2, 3), 3.0))
    second = build.forwards["net0"](torch.full((2, 3), 5.0))
    assert simulated.events == ["replayed"] * 2
    assert (first.tolist(), second.tolist()) == ([[6.0] * 3] * 2, [[10.0] * 3] * 2)
    assert build.verify() is None


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ("skipped", "mode reduce-overhead: inductor did not capture 1 graph(s) as CUDA graphs"),
        ("divided", "mode reduce-overhead: inductor divided its graph(s) into 2 parts to capture some of them"),
        ("eager", "mode reduce-overhead: inductor recorded 0 of 1 graph(s) as CUDA graphs"),
        ("half", "net0: a replay of the captured CUDA graph does not write its whole output"),
    ],
)
def test_a_graph_that_is_not_captured_whole_is_never_taken_for_captured(
    flaw: str, reason: str, simulated: Inductor, tmp_path: Path
) -> None:
    simulated.flaw = flaw
    found = built(tmp_path).verify()
    assert is_capture(found)
    assert str(found) == reason


def test_a_torch_that_does_not_show_its_recordings_is_held_to_the_replay(
    simulated: Inductor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudagraph_trees, "get_manager", lambda *_, **__: SimpleNamespace())
    assert built(tmp_path).verify() is None
    simulated.flaw = "eager"
    build = built(tmp_path)
    assert str(build.verify()).startswith(
        "net0: not captured as a CUDA graph: two calls write their output to different"
    )
    assert build.facts["captured_graphs"] == 0


def test_a_recording_after_the_build_is_invalid(simulated: Inductor, tmp_path: Path) -> None:
    build = built(tmp_path)
    (node,) = simulated.manager.roots[1]
    node.children[1] = [SimpleNamespace(children={})]
    assert "recorded CUDA graphs again after the build" in str(build.verify())


def test_rows_of_one_process_are_counted_apart(simulated: Inductor, tmp_path: Path) -> None:
    simulated.flaw = "skipped"
    skipped = built(tmp_path)
    simulated.flaw = None
    sound = built(tmp_path)
    assert sound.verify() is None
    assert (sound.facts["compiled_graphs"], skipped.facts["compiled_graphs"]) == (1, 1)
    counters["inductor"]["cudagraph_skips"] += 1
    counters["stats"]["unique_graphs"] += 1
    assert str(sound.verify()) == "1 recompilation(s) after the build: the timed shapes are not the compiled ones"
    assert str(skipped.verify()) == "mode reduce-overhead: inductor did not capture 1 graph(s) as CUDA graphs"


def test_a_later_row_condemns_no_earlier_one(simulated: Inductor, tmp_path: Path) -> None:
    earlier = built(tmp_path)
    simulated.flaw = "skipped"
    later = built(tmp_path)
    counters["stats"]["unique_graphs"] += 1
    assert earlier.verify() is None
    assert later.verify() is not None


def test_the_cache_lookups_of_an_earlier_row_are_not_this_rows(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr(Compilation, "_latest", None)
    counters["inductor"]["fxgraph_cache_miss"] += 1
    row = Compilation()
    counters["inductor"]["fxgraph_cache_hit"] += 2
    assert row.counts() == Counts(cache_hits=2)
    assert row.counts().cached
    later = Compilation()
    counters["inductor"]["fxgraph_cache_miss"] += 1
    assert row.counts().cached
    assert not later.counts().cached


def test_any_number_of_rows_of_one_model_compile_in_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def traced(_backend: TorchCompile, module: torch.nn.Module, **_: Any) -> Any:
        return torch.compile(module, backend="eager", fullgraph=True, dynamic=False)

    monkeypatch.setattr(TorchCompile, "_compile", traced)
    with torch._dynamo.config.patch(recompile_limit=1):
        builds = [built(tmp_path, TorchCompile(), batch_size=size) for size in (2, 3, 4)]
    assert [b.facts["compiled_graphs"] for b in builds] == [1, 1, 1]
    assert [b.verify() for b in builds] == [None, None, None]


@pytest.mark.parametrize("backend", [ReduceOverhead(), MaxAutotune()])
def test_graphs_are_captured_whole_by_an_option_that_holds_for_the_row_alone(
    backend: TorchCompile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: dict[str, Any] = {}

    def compiled(graph: torch.fx.GraphModule, _inputs: Any, *, config_patches: dict[str, Any], **_: Any) -> Any:
        chosen.update(config_patches)
        return graph.forward

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiled)
    monkeypatch.setattr(TorchCompile, "_replays_graphs", lambda *_: True)
    before = inductor.get_config_copy()
    built(tmp_path, backend)
    assert chosen == {**torch._inductor.list_mode_options(backend.mode), "graph_partition": False}
    assert chosen["triton.cudagraphs"]
    changed = {name: value for name, value in inductor.get_config_copy().items() if value != before[name]}
    assert changed in ({}, {"compile_threads": 1})  # on a CPU, so that no pool of helper processes is started


def test_no_helper_process_is_there_after_the_build(simulated: Inductor, tmp_path: Path) -> None:
    built(tmp_path, TorchCompile(), device=GPU)
    assert simulated.events == ["compiled and warmed up", "workers ended"]
    simulated.events.clear()
    with pytest.raises(TypeError):
        TorchCompile().build([Component(name="net", module=Doubling(), inputs=())], build_request(tmp_path, device=GPU))
    assert simulated.events == ["workers ended"]


@pytest.mark.parametrize("big", [True, False])
def test_max_autotune_without_its_templates_is_a_fact_and_a_warning(
    big: bool, simulated: Inductor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.utils.is_big_gpu", lambda: big)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=40))
    build = built(tmp_path, MaxAutotune(), device=GPU)
    assert build.facts["triton_templates"] is big
    assert len(build.warnings) == (0 if big else 1)
    assert all(w == Reason("no_templates", {"multiprocessors": 40}) for w in build.warnings)


def which(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in found else None)


@pytest.mark.parametrize(
    ("named", "found", "reason"),
    [
        (None, ("gcc",), None),
        (None, ("clang",), None),
        ("my-cc", ("my-cc",), None),
        (None, ("g++",), "triton needs a C compiler on a GPU, and neither gcc nor clang is on the PATH"),
        ("my-cc", ("gcc",), "triton needs a C compiler on a GPU, and CC='my-cc' is not found"),
    ],
)
def test_without_a_c_compiler_torch_compile_is_skipped_on_a_gpu(
    named: str | None, found: tuple[str, ...], reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By triton's own rule: CC if it is set, whatever it names, else gcc or clang."""
    headers(monkeypatch, tmp_path, "venv")
    (tmp_path / "venv" / "Python.h").touch()
    monkeypatch.setattr(cuda, "unavailable", lambda: None)
    monkeypatch.setattr(torch_compile, "missing_package", lambda *_: None)
    monkeypatch.delenv("CC", raising=False)
    if named is not None:
        monkeypatch.setenv("CC", named)
    which(monkeypatch, *found)
    for backend in (TorchCompile(), ReduceOverhead(), MaxAutotune()):
        found_reason = backend.unavailable("fp32", "cuda")
        assert (found_reason and str(found_reason)) == reason
    row = doctor._compiler("C compiler", "cuda", "for torch_compile on a GPU")
    assert (row["status"], row["detail"]) == (("no", reason) if reason else ("yes", "for torch_compile on a GPU"))


def headers(monkeypatch: pytest.MonkeyPatch, folder: Path, default: str) -> None:
    """A Python whose headers are in the folder `default`, by that scheme, and in `posix_prefix` by that one."""
    monkeypatch.setattr(sysconfig, "get_default_scheme", lambda: default)
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(folder / scheme)})
    for scheme in {default, "posix_prefix"}:
        (folder / scheme).mkdir()


@pytest.mark.parametrize(("scheme", "used"), [("venv", "venv"), ("posix_local", "posix_prefix")])
def test_without_pythons_headers_torch_compile_is_skipped_on_a_gpu(
    scheme: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where triton looks for them (triton/runtime/build.py): a Debian without python3-dev has a compiler alone."""
    monkeypatch.delenv("CC", raising=False)
    which(monkeypatch, "gcc", "g++")
    headers(monkeypatch, tmp_path, scheme)
    assert missing_compiler("cpu") is None
    reason = f"triton needs Python's headers on a GPU, and {tmp_path / used} has no Python.h"
    assert missing_compiler("cuda") == Reason("missing_headers", {"folder": str(tmp_path / used)})
    assert doctor._compiler("C compiler", "cuda", "for it") == doctor._row("C compiler", False, reason)
    (tmp_path / used / "Python.h").touch()
    assert missing_compiler("cuda") is None


def test_the_doctor_asks_for_the_compiler_that_the_backend_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    which(monkeypatch, "my-cxx")
    monkeypatch.setenv("CXX", "my-cxx")
    assert missing_compiler("cpu") is None
    assert doctor._compiler("C++ compiler", "cpu", "for it")["status"] == "yes"
    monkeypatch.delenv("CXX")
    assert doctor._compiler("C++ compiler", "cpu", "for it")["status"] == "no"
