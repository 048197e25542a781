"""ONNX Runtime: each component's ONNX file, run by one execution provider, which is proven node by node.

A session has exactly one provider. Otherwise ONNX Runtime would silently place on the CPU what that provider cannot
run. ONNX Runtime's own profile of one call, taken before anything is timed, shows which provider ran each node. A node
on another provider makes the row invalid. int8 is made by ONNX Runtime's quantiser (`harness.backends.onnx.export`).
Exported files are shared by the processes of a case and by the backends that read ONNX, so only the first of them
spends time on an export; its seconds are in every `build_s`.

On a GPU no call makes the host wait. The sessions of a row work on one CUDA stream that torch creates, and events order
that stream with torch's current one (`bound`). A test over a stub of the CUDA runtime shows without a GPU that, in a
call of a network without convolutions, ONNX Runtime 1.31's CUDA provider calls none of the runtime's functions that
synchronise (`tests/test_cuda_placement.py`). Unproven on hardware: that the order holds; that convolutions do not
synchronise; all of this for the TensorRT provider; and that torch takes by DLPack an output that the session allocates
(`dynamic_size`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from harness import devices
from harness.backends import (
    Build,
    BuildRequest,
    cached_before,
    cannot_import,
    missing_device,
    note_built,
    undeclared,
)
from harness.backends.onnx import export as onnx_export
from harness.backends.onnx import proof as onnx_proof
from harness.backends.onnx import providers as onnx_providers
from harness.backends.onnx.export import OnnxFile
from harness.backends.onnx.proof import CPU, CUDA, TENSORRT, Profile
from harness.numerics import int8_saturation, precision
from harness.numerics.optimizations import FREE_SHAPES, Optimization
from harness.reasons import Reason
from harness.registry import BACKENDS, OPTIMIZATIONS
from harness.types import Component, Forward, Unavailable

if TYPE_CHECKING:
    import torch

# The first folds a bias into a Gemm, which has no integer kernel for a float bias; the second merges equal Q/DQ pairs
# again, and a DequantizeLinear with two readers is fused with neither.
SPOILS_Q_DQ: Final = ("MatMulAddFusion", "CommonSubexpressionElimination")
# The CUDA provider of ONNX Runtime 1.31 cannot open a session with one of these (`tests/test_cuda_placement.py`).
NO_BF16_KERNEL: Final = frozenset({"Resize"})
RUNS: Final[Mapping[str, tuple[str, ...]]] = {
    CPU: ("fp32", "int8_dynamic", "int8_static", "int8_weight_only"),
    CUDA: ("fp32", "tf32", "bf16", "fp16", "int8_weight_only", "int8_weight_only_bf16", "int8_weight_only_fp16"),
    TENSORRT: ("tf32", "bf16", "fp16", "int8_static"),
}
INT8_PRODUCTS: Final = frozenset({"int8_dynamic", "int8_static"})  # their activations are int8, too
GRAPH_LEVEL: Final = "graph level"  # the feature that these optimisations need
GRAPH_LEVELS: Final = {
    "graph_off": "ORT_DISABLE_ALL",
    "graph_basic": "ORT_ENABLE_BASIC",
    "graph_extended": "ORT_ENABLE_EXTENDED",
}
for _level, _what in (("off", "none"), ("basic", "redundant nodes only"), ("extended", "all but layout changes")):
    OPTIMIZATIONS.register(
        f"graph_{_level}",
        Optimization(
            label=f"graph optimisation {_level}",
            description=f"ONNX Runtime's graph optimisations: {_what}",
            group="graph level",
            needs=GRAPH_LEVEL,
        ),
    )


@BACKENDS.add("onnxruntime")
class OnnxRuntime:
    label = "ONNX Runtime"
    libraries: ClassVar[tuple[str, ...]] = (*onnx_export.LIBRARIES, "onnxruntime")
    description = "ONNX export run by the device's execution provider (CPU or CUDA)"
    features: ClassVar[frozenset[str]] = frozenset({FREE_SHAPES, GRAPH_LEVEL})
    packages: ClassVar[tuple[str, ...]] = onnx_export.PACKAGES
    colour: ClassVar[str] = "#0f9b72"
    providers: ClassVar[Mapping[str, str]] = {"cpu": CPU, "cuda": CUDA}

    @property
    def precisions(self) -> frozenset[str]:
        """The precisions that at least one of its providers runs."""
        return frozenset().union(*(RUNS[provider] for provider in self.providers.values()))

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if reason := cannot_import("onnxruntime", "ONNX Runtime") or onnx_export.missing_package():
            return reason
        import onnxruntime

        kind = devices.kind(device)
        if kind not in self.providers:
            return Reason("needs_gpu", {"what": "the TensorRT execution provider", "device": device})
        if reason := missing_device(device):
            return reason
        provider = self.providers[kind]
        if provider not in onnxruntime.get_available_providers():
            return Reason("missing_provider", {"provider": provider})
        if kind == "cuda" and (reason := precision.too_old(wanted)):
            return reason
        return _impossible(wanted, provider) or (onnx_providers.unloadable(provider) if kind == "cuda" else None)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Exports the files that do not exist yet, then opens one session per component and profiles one call of it.

        Raises Unavailable if a network has an operator for which the provider has no kernel.
        """
        cached = cached_before(request)
        provider = self.providers[request.device]
        wanted = request.precision  # a closure over the request would keep its torch modules alive
        files = onnx_export.exported(components, request, _recipe(request.precision, provider))
        if reason := without_kernel(files, wanted, provider):
            raise Unavailable(reason)
        stream = _stream(request.device)
        asked = [(f, request.of(c)) for f, c in zip(files, components, strict=True)]
        sessions, session_s = request.timer.timed(
            lambda: [_session(f, _on_stream(self.session_providers(own), stream), own) for f, own in asked]
        )
        named = list(zip(components, sessions, strict=True))
        profiles = {c.name: _profiled(s, c, request, stream) for c, s in named}
        note_built(request)
        export_s, integer_layers = sum(f.export_s for f in files), {f.component: f.integer_layers for f in files}
        return Build(
            forwards={c.name: _forward(s, request.device, stream) for c, s in named},
            build_s=session_s + (0.0 if cached else export_s),
            keeps_modules=False,
            cached=cached,
            keeps=True,
            weights_bytes=sum(f.weights_bytes for f in files),
            disk_bytes=lambda: sum(f.disk_bytes for f in files),
            facts={
                "providers": sorted({p for s in sessions for p in s.get_providers()}),
                "graph_optimization_level": _graph_level(request),
                "nodes": {name: onnx_proof.in_words(found) for name, found in profiles.items()},
                "proven": onnx_proof.proven(request.precision, provider),
                **onnx_export.facts_of(files),
                "session_s": session_s,
                **_modes({r.precision for _, r in asked}, provider),
            },
            verify=lambda: onnx_proof.fault(profiles, provider, wanted, integer_layers),
            shares=onnx_export.shares(files, request.precision),
        )

    def session_providers(self, request: BuildRequest) -> list[str | tuple[str, dict[str, str]]]:
        """The providers with which a session is opened: a single one, on a GPU with its options."""
        provider = self.providers[request.device]
        return [(provider, _options(provider, request)) if request.device == "cuda" else provider]


@BACKENDS.add("onnxruntime_tensorrt")
class OnnxRuntimeTensorRT(OnnxRuntime):
    label = "ONNX Runtime + TensorRT"
    description = "ONNX export run by ONNX Runtime's TensorRT execution provider"
    providers: ClassVar[Mapping[str, str]] = {"cuda": TENSORRT}
    colour: ClassVar[str] = "#3a9fb5"


def _impossible(wanted: str, provider: str) -> Reason | None:
    """Why `provider` cannot run `wanted` as it is, or None."""
    return None if wanted in RUNS[provider] else _why_not(wanted, provider) or undeclared("onnxruntime", wanted)


def _why_not(wanted: str, provider: str) -> Reason | None:
    """Why `provider` does not run a precision, if more is known than that it does not."""
    if wanted == "tf32" and provider == CPU:
        return Reason("tf32_needs_gpu")
    recipe, base = precision.recipe_of(wanted), precision.rest_of(wanted)
    if recipe != "fp8_e4m3" and base != "fp32" and provider == CPU:
        return Reason("ort_no_cpu_kernels", {"precision": base})
    if recipe == "int8_dynamic_classic":
        return Reason("ort_other_quantiser", {"precision": wanted})
    if recipe in INT8_PRODUCTS and provider == CUDA:
        return Reason("ort_no_cuda_kernels", {"precision": wanted})
    if recipe in {"int8_dynamic", "int8_weight_only"} and provider == TENSORRT:
        return Reason("tensorrt_takes_static", {"precision": wanted})
    if recipe == "int8_static" and base != "fp32" and provider == TENSORRT:
        return Reason("ort_untried", {"nodes": f"over {base}"})
    if wanted == "fp32" and provider == TENSORRT:
        return Reason("ort_fp32_is_tf32")
    if recipe == "fp8_e4m3" and provider == TENSORRT:
        return Reason("ort_untried", {"nodes": "in fp8"})
    if recipe == "fp8_e4m3":
        return Reason("ort_no_fp8_kernel", {"provider": provider})
    return None


def without_kernel(files: Sequence[OnnxFile], wanted: str, provider: str) -> Reason | None:
    """Why `provider` cannot run these networks in `wanted`, or None. ONNX Runtime itself would fail when it opens the
    session, with an error about a node without a provider."""
    if (precision.rest_of(wanted), provider) != ("bf16", CUDA):
        return None
    missing = {f.component: sorted(NO_BF16_KERNEL & f.operators.keys()) for f in files}
    found = [f"{' and '.join(operators)} of {name}" for name, operators in missing.items() if operators]
    return Reason("ort_no_bf16_kernel", {"operators": found}) if found else None


def _recipe(wanted: str, provider: str) -> str:
    """The name of the recipe to export (`harness.backends.onnx.export`)."""
    if provider == CPU:
        narrow = onnx_export.for_cpu(wanted)
        return f"{narrow}_unsigned" if precision.recipe_of(wanted) == "int8_static" else narrow
    return "fp32" if wanted == "tf32" else wanted


def _modes(precisions: Collection[str], provider: str) -> dict[str, str]:
    """The types in which a row computes, as far as the precisions of its components do not show them."""
    recipes = {precision.recipe_of(own) for own in precisions}
    if provider == CPU and recipes & INT8_PRODUCTS:
        return {"int8_weights": int8_saturation.in_words(int8_saturation.weight_bits())}
    if provider == TENSORRT and ({"fp32", "tf32"} & set(precisions) or "int8_static" in recipes):
        return {"tf32": "allowed, by TensorRT's default, in what is left in fp32"}
    return {}


def _options(provider: str, request: BuildRequest) -> dict[str, str]:
    """The options of `provider`. TF32 is off unless the precision is tf32. TensorRT may use the precision of the row,
    and its engines are kept for the case.

    The memory arena of the CUDA provider allocates exactly what is requested. By default it grows by powers of two, and
    the row would show up to twice the memory that the network needs. The TensorRT provider has no such option.
    """
    tf32 = "1" if request.precision == "tf32" else "0"
    if provider == CUDA:
        return {"use_tf32": tf32, "arena_extend_strategy": "kSameAsRequested"}
    return {
        "trt_fp16_enable": "1" if request.precision == "fp16" else "0",
        "trt_bf16_enable": "1" if request.precision == "bf16" else "0",
        "trt_int8_enable": "1" if precision.recipe_of(request.precision) == "int8_static" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(request.cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(request.cache),
    }


def _graph_level(request: BuildRequest) -> str:
    """The name of ONNX Runtime's graph level: the highest one, unless an optimisation of the case selects another."""
    return next((GRAPH_LEVELS[name] for name in request.optimizations if name in GRAPH_LEVELS), "ORT_ENABLE_ALL")


def _stream(device: str) -> torch.cuda.Stream | None:
    """The stream of a row's sessions. It is a new one, because 0, torch's default stream, means no stream to ONNX
    Runtime."""
    import torch

    return torch.cuda.Stream() if device == "cuda" else None


def _on_stream(providers: Sequence[Any], stream: torch.cuda.Stream | None) -> list[Any]:
    """`providers` with `stream` among the options of each."""
    if stream is None:
        return list(providers)
    return [(name, {**given, "user_compute_stream": str(stream.cuda_stream)}) for name, given in providers]


def _session(file: OnnxFile, providers: Sequence[Any], request: BuildRequest) -> Any:
    import onnxruntime
    import torch

    if request.device == "cuda":
        onnx_providers.preload(TENSORRT if any(TENSORRT in given for given in providers) else CUDA)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _graph_level(request))
    options.enable_profiling = True  # until the first call's profile has been read
    options.profile_file_prefix = str(request.cache / f"profile-{file.component}")
    session = onnxruntime.InferenceSession(
        str(file.path),
        options,
        providers=list(providers),
        disabled_optimizers=list(SPOILS_Q_DQ) if precision.recipe_of(request.precision) == "int8_static" else None,
        enable_fallback=0,  # the fallback would open the session on the CPU if a provider fails, and hide why
    )
    session.disable_fallback()
    return session


def _profiled(session: Any, component: Component, request: BuildRequest, stream: torch.cuda.Stream | None) -> Profile:
    """The nodes that one call ran, from the session's own profile. Reading it ends the profiling before any timed
    call."""
    _forward(session, request.device, stream)(*component.inputs)
    path = Path(session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    beside_a_gpu = request.device == "cuda" and any(name in request.optimizations for name in onnx_export.FREED)
    return onnx_proof.profile(events, free_shapes=beside_a_gpu)


def _forward(session: Any, device: str, stream: torch.cuda.Stream | None) -> Forward:
    names = [i.name for i in session.get_inputs()]
    types = [i.type for i in session.get_inputs()]
    output = session.get_outputs()[0]
    cast = [_caster(t) for t in types]

    def on_cpu(*inputs: torch.Tensor) -> torch.Tensor:
        import torch

        given = {n: c(x).contiguous().numpy() for n, c, x in zip(names, cast, inputs, strict=True)}
        return torch.from_numpy(session.run([output.name], given)[0]).to(torch.float32)

    return on_cpu if device == "cpu" else bound(session, device, stream)


def bound(session: Any, device: str, stream: torch.cuda.Stream | None = None) -> Forward:
    """Calls by IO binding: inputs and outputs stay on the device. torch allocates the buffer of an output. Where the
    output's height and width are free, the session allocates it, since only the network knows how they follow from the
    input's.

    `stream` is the one with which the session was opened. A call returns as soon as its work is queued there, in order
    with torch's current stream, so that torch may read, free and reuse the buffers as if it had done the work itself.
    """
    import onnxruntime

    names = [i.name for i in session.get_inputs()]
    types = [i.type for i in session.get_inputs()]
    output = session.get_outputs()[0]
    cast = [_caster(t) for t in types]
    sized = all(isinstance(size, int) for size in output.shape[1:])
    options = onnxruntime.RunOptions()
    if stream is not None:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        import torch

        binding = session.io_binding()
        kept = [c(x).to(device).contiguous() for c, x in zip(cast, inputs, strict=True)]
        for name, kind, tensor in zip(names, types, kept, strict=True):
            binding.bind_input(name, device, 0, _element_type(kind), list(tensor.shape), tensor.data_ptr())
        if not sized:
            binding.bind_output(output.name, device, 0)
            with _in_order(stream):
                session.run_with_iobinding(binding, options)
            return torch.utils.dlpack.from_dlpack(binding.get_outputs()[0]).to(torch.float32)
        batch = output.shape[0] if isinstance(output.shape[0], int) else len(kept[0])  # a dynamic dimension has a name
        result = torch.empty([batch, *output.shape[1:]], dtype=torch_dtype(output.type), device=device)
        binding.bind_output(output.name, device, 0, _element_type(output.type), list(result.shape), result.data_ptr())
        with _in_order(stream):
            session.run_with_iobinding(binding, options)
        return result.to(torch.float32)

    return forward


@contextmanager
def _in_order(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work that is queued on `stream` in the block runs after what torch has queued on its current stream, and before
    what torch queues there later. The host does not wait."""
    import torch

    if stream is None:
        yield
        return
    current = torch.cuda.current_stream()
    stream.wait_stream(current)
    yield
    current.wait_stream(stream)


def _caster(onnx_type: str) -> Callable[[torch.Tensor], torch.Tensor]:
    dtype = torch_dtype(onnx_type)
    return lambda x: x.detach().to(dtype)


def torch_dtype(onnx_type: str) -> torch.dtype:
    """The torch dtype of a session's type text, e.g. "tensor(float16)". Raises KeyError for any other."""
    import torch

    return {
        "tensor(float)": torch.float32,
        "tensor(float16)": torch.float16,
        "tensor(bfloat16)": torch.bfloat16,
        "tensor(int64)": torch.int64,
        "tensor(int32)": torch.int32,
    }[onnx_type]


def _element_type(onnx_type: str) -> int:
    """The same as ONNX's own number, which IO binding takes also for bf16, a type that numpy lacks."""
    from onnx import TensorProto

    return {
        "tensor(float)": TensorProto.FLOAT,
        "tensor(float16)": TensorProto.FLOAT16,
        "tensor(bfloat16)": TensorProto.BFLOAT16,
        "tensor(int64)": TensorProto.INT64,
        "tensor(int32)": TensorProto.INT32,
    }[onnx_type]
