"""Where ONNX Runtime's real CUDA provider places each node of each network, tested on a machine without a GPU.

Run it by hand with `python -m pytest -v -rs tests/test_cuda_placement.py`. It needs gcc and the installed package
onnxruntime-gpu, and downloads nothing. It does not show what kernels compute, nor that they run.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cuda_stub_fixture
import onnx
import pytest
import torch
from build_request_fixture import build_request
from pipelines_fixture import UNET, case_of, workload_of
from short_networks_fixture import networks, request_in

from benches.models.networks import wrapped
from benches.models.stable_diffusion import unet as unet_forward
from harness.backends import onnxruntime as backend
from harness.backends.onnx import export as onnx_export
from harness.backends.onnx import proof as onnx_proof
from harness.backends.onnx.export import OnnxFile
from harness.backends.onnx.proof import CUDA
from harness.registry import PRECISIONS
from harness.types import Component

pytestmark = [pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"), pytest.mark.usefixtures("one_thread")]

RECIPES = tuple(dict.fromkeys(backend._recipe(p, CUDA) for p in PRECISIONS if backend._impossible(p, CUDA) is None))
IN_FAMILIES = ("digits_vit", "digits_dit", "digits_sd")  # a ViT, a DiT, and Stable Diffusion 1.5, each small
ASYNCHRONOUS = {"disable_synchronize_execution_providers": "1"}


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stubs of CUDA's libraries, compiled once."""
    return cuda_stub_fixture.compiled(tmp_path_factory.mktemp("cuda"))


def sd21() -> list[Component]:
    """The part of Stable Diffusion 2.1 that differs from 1.5: a U-Net whose projections are linear layers."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET, use_linear_projection=True)
    inputs = (torch.randn(2, 4, 8, 8), torch.zeros(2, dtype=torch.int64), torch.randn(2, 77, 32))
    return [Component(name="unet", module=wrapped(unet_forward, unet), inputs=inputs)]


def sdxl() -> list[Component]:
    """Both text encoders and the U-Net; the VAE is the same as in the other families."""
    return [c for c in workload_of("sdxl", case_of("sdxl")).components if c.name != "vae_decoder"]


def components(model: str) -> list[Component]:
    return {"sd21": sd21, "sdxl": sdxl}[model]() if model not in IN_FAMILIES else networks(model)


def exported(found: Sequence[Component], folder: Path, recipe: str, *optimizations: str) -> list[OnnxFile]:
    own = [replace(c, module=copy.deepcopy(c.module)) for c in found]  # an export casts it
    request = replace(request_in(folder, recipe), optimizations=optimizations)
    return onnx_export.exported(own, request, recipe)


def options() -> dict[str, str]:
    """The options that the backend gives its CUDA provider; the stream is created where the session is opened."""
    request = build_request(Path(), device="cuda")
    ((_, given),) = backend.OnnxRuntime().session_providers(request)
    return {**given, "user_compute_stream": "the process's own"}


def opened(stubs: Path, files: Sequence[OnnxFile], **more: Any) -> list[dict[str, Any]]:
    wanted = [{"path": str(f.path), "options": options(), "optimized": f"{f.path}.optimized", **more} for f in files]
    return cuda_stub_fixture.sessions(stubs, wanted)


def elsewhere(session: dict[str, Any], path: Path, free_shapes: bool) -> list[str]:
    """Nodes that the CUDA provider does not take, except those that `onnx_proof` allows."""
    other = [node for node in session["nodes"] if node["provider"] != CUDA]
    if not other or not free_shapes:
        return [f"{node['operator']} {node['name']}" for node in other]
    graph = onnx.shape_inference.infer_shapes(onnx.load(f"{path}.optimized")).graph
    outputs = {node.name: [o for o in node.output if o] for node in graph.node}
    described = {v.name: dict(_described(v)) for v in (*graph.value_info, *graph.output)}
    passes = {name for name, given in outputs.items() if onnx_proof.gives_a_shape(described.get(o, {}) for o in given)}
    return [f"{node['operator']} {node['name']}" for node in other if node["name"] not in passes]


def _described(value: Any) -> Iterator[tuple[str, list[int]]]:
    """A tensor as the profile describes it, {"int64": [4]}; nothing where its size is not known."""
    tensor = value.type.tensor_type
    if all(d.HasField("dim_value") for d in tensor.shape.dim):
        yield onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), [d.dim_value for d in tensor.shape.dim]


@pytest.mark.slow
@pytest.mark.parametrize("model", [*IN_FAMILIES, "sd21", "sdxl"])
def test_the_cuda_provider_takes_every_node(model: str, stubs: Path, kept_exports: Path) -> None:
    found = components(model)
    plain = exported(found, kept_exports / model, "fp32")
    files: list[tuple[str, OnnxFile]] = []
    for recipe in RECIPES:
        refused = {f.component for f in plain if backend.without_kernel([f], recipe, CUDA)}
        assert refused <= {"unet", "vae_decoder"}
        taken = [c for c in found if c.name not in refused]
        files += [(recipe, file) for file in exported(taken, kept_exports / model, recipe) if taken]
    assert {recipe for recipe, _ in files} >= {recipe for recipe in RECIPES if "bf16" not in recipe}
    for (recipe, file), session in zip(files, opened(stubs, [file for _, file in files]), strict=True):
        assert "error" not in session, (recipe, file.component, session)
        assert elsewhere(session, file.path, free_shapes=False) == [], (recipe, file.component)
        ran = Counter(node["operator"] for node in session["nodes"])
        assert ran["MatMulNBits"] == file.integer_layers, (recipe, file.component)


def test_a_gpu_runs_these_precisions() -> None:
    narrow = ("int8_weight_only_bf16", "int8_weight_only_fp16")
    assert ("fp32", "bf16", "fp16", "int8_weight_only", *narrow) == RECIPES


@pytest.mark.slow
def test_what_is_refused_in_bf16_cannot_be_opened(stubs: Path, kept_exports: Path) -> None:
    """If this fails because a session opens, this ONNX Runtime has the kernel: take its name out of NO_BF16_KERNEL."""
    files = exported(components("digits_sd"), kept_exports / "digits_sd", "bf16")
    refused = [f for f in files if backend.without_kernel([f], "bf16", CUDA)]
    assert [f.component for f in refused] == ["unet", "vae_decoder"]
    for _, session in zip(refused, opened(stubs, refused), strict=True):
        assert "Provider type for Resize node" in session["error"]


@pytest.mark.slow
def test_where_sizes_are_free_only_shapes_are_computed_elsewhere(stubs: Path, kept_exports: Path) -> None:
    (transformer, _) = networks("digits_dit")
    blocks = transformer.module.network.transformer_blocks
    transformer.module.network.transformer_blocks = blocks[:1]
    files = exported([transformer], kept_exports / "free", "fp32", "dynamic_batch", "dynamic_size")
    (session,) = opened(stubs, files)
    shapes = elsewhere(session, files[0].path, free_shapes=False)
    assert len(shapes) > 5
    assert elsewhere(session, files[0].path, free_shapes=True) == []


class EndOfPrompt(torch.nn.Module):
    """A minimal text encoder: the vector at the largest token id."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(100, 8)
        self.projection = torch.nn.Linear(8, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.projection(self.embedding(ids))
        return hidden[torch.arange(len(ids)), ids.to(torch.int).argmax(dim=-1)]


@pytest.fixture(scope="module")
def text_encoder(kept_exports: Path) -> OnnxFile:
    torch.manual_seed(0)
    component = Component(name="text", module=EndOfPrompt().eval(), inputs=(torch.randint(100, (2, 7)),))
    return exported([component], kept_exports / "end_of_prompt", "fp32")[0]


def test_a_call_makes_the_host_wait_for_nothing(stubs: Path, text_encoder: OnnxFile) -> None:
    """The profile of such a call also proves every node."""
    (session,) = opened(stubs, [text_encoder], calls=2, run_options=ASYNCHRONOUS)
    assert session["waits"] == 0
    profile = onnx_proof.profile(session["profile"], free_shapes=False)
    assert onnx_proof.fault({"text": profile}, CUDA, "fp32", {}) is None
    assert profile["TopK", CUDA] == 2  # a node of each call


def test_the_stub_counts_what_waits(stubs: Path, text_encoder: OnnxFile) -> None:
    """Without the run option the host waits, and twice where the session has a stream of its own."""
    own_stream = {name: value for name, value in options().items() if name != "user_compute_stream"}
    wanted = [{"path": str(text_encoder.path), "options": given, "calls": 2} for given in (own_stream, options())]
    assert [session["waits"] for session in cuda_stub_fixture.sessions(stubs, wanted)] == [2, 1]


def test_an_integer_argmax_as_it_was_would_run_on_the_cpu(stubs: Path, tmp_path: Path) -> None:
    """The reason for the rewrite. If this fails, this ONNX Runtime has the kernel, and the rewrite can be removed."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT32, [2, 7])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", onnx_export.OPSET)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "model.onnx")
    (session,) = cuda_stub_fixture.sessions(stubs, [{"path": str(tmp_path / "model.onnx"), "options": options()}])
    assert [(n["operator"], n["provider"]) for n in session["nodes"]] == [("ArgMax", onnx_proof.CPU)]


def test_the_arena_takes_what_is_asked_for(stubs: Path, tmp_path: Path) -> None:
    """The weights are 3 MiB; an arena that grows by powers of two would take 4 MiB."""
    torch.manual_seed(0)
    component = Component(name="net", module=torch.nn.Linear(1024, 768).eval(), inputs=(torch.randn(1, 1024),))
    files = exported([component], tmp_path, "fp32")
    wanted = [{"path": str(files[0].path), "options": given} for given in (options(), {"use_tf32": "0"})]
    asked, doubled = (s["device_bytes"] for s in cuda_stub_fixture.sessions(stubs, wanted))
    weights = 1024 * 768 * 4
    assert weights <= asked < 1.1 * weights
    assert doubled > 1.25 * weights
