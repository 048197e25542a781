"""ONNX Runtime: each component exported to ONNX once (torch.export based), then run by the device's own provider.

A session has exactly one execution provider, and it is read back: ONNX Runtime would otherwise fall back to the CPU
in silence. int8 is ONNX Runtime's dynamic quantisation of MatMul and Gemm (int8 weights per channel). The processes of
one case share the exported file, so only the first of them is cold.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends import Build, BuildRequest, missing_package
from harness.precision import DTYPES
from harness.registry import BACKENDS
from harness.types import Component, Forward

if TYPE_CHECKING:
    import torch

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
OPSET = 20
_QUANTISED_OPS = ("MatMul", "Gemm")


@BACKENDS.add("onnxruntime")
class OnnxRuntime:
    label = "ONNX Runtime"
    description = "ONNX export run by the device's execution provider"

    def unavailable(self, wanted: str, device: str) -> str | None:
        for package in ("onnxruntime", "onnx", "onnxscript"):
            if reason := missing_package(package, "ONNX Runtime"):
                return reason
        import onnxruntime

        if PROVIDERS[device] not in onnxruntime.get_available_providers():
            return f"this build of onnxruntime has no {PROVIDERS[device]}"
        if wanted in {"fp16", "bf16"} and device == "cpu":
            return f"its CPU provider has no {wanted} kernels: it would cast to fp32 and back"
        if wanted == "int8" and device == "cuda":
            return "its CUDA provider has no kernels for dynamic int8: they would fall back to the CPU"
        if wanted in {"tf32", "fp8_e4m3"}:
            return f"{wanted} is not supported by this backend yet"
        return None

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Exports what is not in the cache yet, then opens one session a component."""
        files = [request.cache / f"{c.name}-{request.precision}.onnx" for c in components]
        cached = all(f.exists() for f in files)
        export_s = 0.0 if cached else request.timer.seconds(lambda: _export_all(components, files, request.precision))
        sessions, session_s = request.timer.timed(lambda: [_session(f, request.device) for f in files])
        nodes = Counter(op for f in files for op in _operators(f))
        named = list(zip(components, sessions, strict=True))
        return Build(
            forwards={c.name: _forward(s, request.device) for c, s in named},
            build_s=export_s + session_s,
            keeps_modules=False,
            cached=cached,
            weights_bytes=sum(_weights_bytes(f) for f in files),
            facts={
                "providers": sorted({p for s in sessions for p in s.get_providers()}),
                "operators": dict(nodes),
                "export_s": None if cached else export_s,
                "session_s": session_s,
            },
            verify=lambda: _verify(sessions, nodes, request),
        )


def _export_all(components: Sequence[Component], files: Sequence[Path], precision: str) -> None:
    for component, file in zip(components, files, strict=True):
        _export(component, file, precision)


def _export(component: Component, path: Path, precision: str) -> None:
    """Writes `component` to `path`, atomically, in the precision asked for."""
    import onnx
    import torch

    module, inputs = component.module.eval(), component.inputs
    if precision in {"fp16", "bf16"}:
        dtype = getattr(torch, DTYPES[precision])
        module = module.to(dtype)
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, inputs, dynamo=True, opset_version=OPSET, verbose=False)
    assert program is not None  # dynamo=True with no file to write returns the program
    partial = path.with_suffix(".partial")
    program.save(str(partial), external_data=_is_large(module))
    if precision == "int8":
        _quantise(onnx.load(partial), partial)
    partial.replace(path)


def _is_large(module: torch.nn.Module) -> bool:
    """Whether the weights pass protobuf's limit of 2 GB, so that they must lie beside the file."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) > 1.5e9


def _quantise(model: Any, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The exporter's shapes of transposed weights contradict what the quantiser infers: it must infer them all.
    del model.graph.value_info[:]
    logging.getLogger().setLevel(logging.ERROR)  # the worker's own process: nobody else logs here
    quantize_dynamic(
        model, str(path), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=list(_QUANTISED_OPS)
    )


def _session(path: Path, device: str) -> Any:
    import onnxruntime
    import torch

    if device == "cuda":
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the packages that torch brought
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=[_provider(device)])
    session.disable_fallback()
    return session


def _provider(device: str) -> str | tuple[str, dict[str, str]]:
    """The device's provider; on a GPU with TF32 off, so that fp32 is fp32 here too."""
    return (PROVIDERS[device], {"use_tf32": "0"}) if device == "cuda" else PROVIDERS[device]


def _forward(session: Any, device: str) -> Forward:
    names = [i.name for i in session.get_inputs()]
    types = [i.type for i in session.get_inputs()]
    output = session.get_outputs()[0]
    cast = [_caster(t) for t in types]

    def on_cpu(*inputs: torch.Tensor) -> torch.Tensor:
        import torch

        given = {n: c(x).contiguous().numpy() for n, c, x in zip(names, cast, inputs, strict=True)}
        return torch.from_numpy(session.run([output.name], given)[0]).to(torch.float32)

    def on_gpu(*inputs: torch.Tensor) -> torch.Tensor:
        import torch

        binding = session.io_binding()
        kept = [c(x).to("cuda").contiguous() for c, x in zip(cast, inputs, strict=True)]
        result = torch.empty(session.get_outputs()[0].shape, dtype=torch_dtype(output.type), device="cuda")
        torch.cuda.current_stream().synchronize()  # the session works on a stream of its own
        for name, kind, tensor in zip(names, types, kept, strict=True):
            binding.bind_input(name, "cuda", 0, _element_type(kind), list(tensor.shape), tensor.data_ptr())
        binding.bind_output(output.name, "cuda", 0, _element_type(output.type), list(result.shape), result.data_ptr())
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return result.to(torch.float32)

    return on_cpu if device == "cpu" else on_gpu


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


def _operators(path: Path) -> list[str]:
    import onnx

    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def _weights_bytes(path: Path) -> int:
    """Bytes of the initialisers, read from the file that runs."""
    import math

    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    sizes = {
        onnx.TensorProto.INT64: 8,
        onnx.TensorProto.DOUBLE: 8,
        onnx.TensorProto.FLOAT16: 2,
        onnx.TensorProto.BFLOAT16: 2,
    }
    sizes |= {onnx.TensorProto.INT8: 1, onnx.TensorProto.UINT8: 1, onnx.TensorProto.BOOL: 1}
    return sum(math.prod(t.dims) * sizes.get(t.data_type, 4) for t in graph.initializer)


def _verify(sessions: Sequence[Any], nodes: Counter[str], request: BuildRequest) -> str | None:
    wanted = PROVIDERS[request.device]
    for session in sessions:
        used = session.get_providers()
        if used[0] != wanted:
            return f"asked for {wanted}, but the session runs on {', '.join(used)}"
    if request.precision == "int8" and not nodes["MatMulInteger"]:
        return "int8 was asked for, but no operator of the exported network is an integer one"
    return None
