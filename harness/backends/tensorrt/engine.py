"""One TensorRT 11 engine: built from an ONNX file, cached under a key of all its inputs, called with torch tensors as
buffers.

Networks are strongly typed: the precision is that of the ONNX file, and no builder flag can lower it. Only TF32 is a
flag, which is on unless it is cleared. An engine belongs to one GPU model and one version of TensorRT, so both are in
its key, with the file's bytes, the range of shapes, TF32 and the workspace. The duration of its build is stored beside
the engine, and every case that uses the engine reports it. The digest of the engine's bytes is stored too: an engine
file that was changed since is built again. Once the layers have been read, the inspector's text is stored beside the
engine as well (`.layers.json`).

Written against the real API of 11.4; not yet proven on hardware.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.backends.tensorrt import log as tensorrt_log
from harness.backends.tensorrt.layers import Layers, described
from harness.timing import Timer

if TYPE_CHECKING:
    import torch

DEVICE: Final = "cuda"
ENGINES: Final = "engines"  # the folder of engines, inside that of the exports
WORKSPACE_BYTES: Final = 4 * 2**30
ALIGNMENT: Final = 256  # bytes
Shape = tuple[int, ...]


class EngineError(RuntimeError):
    """TensorRT failed; `str()` holds the messages of its parser or logger (`harness.backends.tensorrt.log`)."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Smallest, optimal and largest shape of one input, as in an optimisation profile."""

    minimum: Shape
    optimum: Shape
    maximum: Shape


@dataclass(frozen=True, kw_only=True)
class Places:
    """`engines` is the folder that all cases of a run share; `timings` is the file of TensorRT's timing cache, which
    belongs to one case. With the timings of other cases the build time would depend on which cases ran before."""

    engines: Path
    timings: Path


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A serialised engine on disk. `built` says whether this process built it. `build_s` is the duration of the build
    in the process that built it. `digest` is that of its bytes."""

    path: Path
    built: bool
    build_s: float
    digest: str
    size: int


def key_of(onnx_file: Path, ranges: Sequence[Range], tf32: bool) -> str:
    """A short hash of everything that determines the engine: file and weights, shapes, flags, GPU, TensorRT."""
    import tensorrt
    import torch

    found = hashlib.sha256()
    for part in sorted(p for p in onnx_file.parent.iterdir() if p.name != "about.json"):
        with part.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    gpu = (torch.cuda.get_device_name(), torch.cuda.get_device_capability())
    shapes = [(r.minimum, r.optimum, r.maximum) for r in ranges]
    found.update(repr((shapes, tf32, WORKSPACE_BYTES, gpu, tensorrt.__version__)).encode())
    return found.hexdigest()[:16]


def plan(onnx_file: Path, ranges: Sequence[Range], places: Places, tf32: bool, timer: Timer) -> Plan:
    """The engine of `onnx_file`, from the cache or built now. Raises EngineError."""
    path = places.engines / f"{onnx_file.parent.name}-{key_of(onnx_file, ranges, tf32)}.engine"
    about = path.with_suffix(".json")
    known = _known(path, about)
    made = known is None
    if known is None:
        places.engines.mkdir(parents=True, exist_ok=True)
        content, build_s = timer.timed(lambda: _build(onnx_file, ranges, places.timings, tf32))
        _write(path, content)
        known = (_digest(path), build_s)
        _write(about, json.dumps({"digest": known[0], "build_s": known[1]}).encode())
    return Plan(path=path, built=made, size=path.stat().st_size, digest=known[0], build_s=known[1])


def _known(path: Path, about: Path) -> tuple[str, float] | None:
    """(digest, seconds of the build) of a cached engine that is unchanged; None if it must be built."""
    try:
        told = json.loads(about.read_text())
        return (told["digest"], float(told["build_s"])) if told["digest"] == _digest(path) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _build(onnx_file: Path, ranges: Sequence[Range], timing_cache: Path, tf32: bool) -> bytes:
    import tensorrt as trt

    tensorrt_log.forget()
    logger = tensorrt_log.logger()
    builder = _made(lambda: trt.Builder(logger), "builder")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = _made(lambda: trt.OnnxParser(network, logger), "parser")
    if not parser.parse_from_file(str(onnx_file)):
        said = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError(f"TensorRT's parser refused {onnx_file.parent.name}: {said}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the inspector reports each layer's type
    if tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if config.add_optimization_profile(_profile(builder, network, ranges)) < 0:
        reason = tensorrt_log.reason()
        raise EngineError(f"TensorRT refused the range of shapes of {onnx_file.parent.name}, {list(ranges)}: {reason}")
    _use_timing_cache(config, timing_cache)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise EngineError(f"TensorRT built no engine of {onnx_file.parent.name}: {tensorrt_log.reason()}")
    _write(timing_cache, bytes(memoryview(config.get_timing_cache().serialize())))
    return bytes(memoryview(serialised))


def _made(make: Callable[[], Any], what: str) -> Any:
    """The object that a TensorRT factory returns. If there is none, as without a GPU, its binding raises TypeError,
    which becomes an EngineError."""
    try:
        return make()
    except TypeError as error:
        raise EngineError(f"TensorRT made no {what}: {tensorrt_log.reason()} ({error})") from None


def _use_timing_cache(config: Any, path: Path) -> None:
    """Uses the timing cache of an earlier build if TensorRT accepts it, else a new one. It only saves time."""
    kept = path.read_bytes() if path.exists() else b""
    for content in (kept, b"") if kept else (b"",):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
    raise EngineError(f"TensorRT accepts no timing cache, not even an empty one: {tensorrt_log.reason()}")


def _write(path: Path, content: bytes) -> None:
    """Writes the file atomically, because two processes may build at once."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _profile(builder: Any, network: Any, ranges: Sequence[Range]) -> Any:
    profile = builder.create_optimization_profile()
    for index, wanted in enumerate(ranges):
        name = network.get_input(index).name
        profile.set_shape(name, wanted.minimum, wanted.optimum, wanted.maximum)
    return profile


class Engine:
    """A loaded engine. Calling it with torch tensors on the GPU gives its one output; shapes are those of the call.

    The memory of activations is one torch tensor, sized for the largest shapes of the profile. All execution contexts
    of the engine use it, one after the other: the one that is called, and the short-lived one of the profiler.
    """

    def __init__(self, path: Path) -> None:
        import tensorrt as trt
        import torch

        tensorrt_log.forget()
        self.path = path
        self._runtime = _made(lambda: trt.Runtime(tensorrt_log.logger()), "runtime")  # must outlive the engine
        self.engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            reason = tensorrt_log.reason()
            raise EngineError(f"{path.name} cannot be loaded by this TensorRT on this GPU: {reason}")
        self._memory = torch.empty(int(self.engine.device_memory_size_v2), dtype=torch.uint8, device=DEVICE)
        self._context = self._new_context()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        self.inputs = [n for n in names if self.engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if self.engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        if len(outputs) != 1:
            raise EngineError(f"the engine must have one output; this one has {', '.join(outputs) or 'none'}")
        self.output = outputs[0]
        self._dtypes = {name: torch_dtype(self.engine.get_tensor_dtype(name)) for name in names}
        # On torch's default stream TensorRT would synchronise the whole device in every call.
        self._stream = torch.cuda.Stream()
        tensorrt_log.forget()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self._run(self._context, inputs)

    def _run(self, context: Any, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        given = [_aligned(x.to(DEVICE, self._dtypes[n]).contiguous()) for n, x in zip(self.inputs, inputs, strict=True)]
        self._shape(context, given)
        for name, tensor in zip(self.inputs, given, strict=True):
            self._bind(context, name, tensor)
        shape = tuple(context.get_tensor_shape(self.output))
        result = torch.empty(shape, dtype=self._dtypes[self.output], device=DEVICE)
        self._bind(context, self.output, result)
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise EngineError(f"execute_async_v3 failed: {tensorrt_log.reason()}")
        current.wait_stream(self._stream)  # later torch work may then free `given` and read `result`
        return result

    def _new_context(self) -> Any:
        import tensorrt as trt

        context = self.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EngineError(f"TensorRT made no execution context: {tensorrt_log.reason()}")
        context.set_device_memory(self._memory.data_ptr(), self._memory.numel())
        # By default a context sets NVTX markers at the engine's verbosity; those of DETAILED take time in every call.
        context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
        return context

    def _shape(self, context: Any, inputs: Sequence[torch.Tensor]) -> None:
        for name, tensor in zip(self.inputs, inputs, strict=True):
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise EngineError(f"{name}: shape {tuple(tensor.shape)} is outside the engine's profile")

    def _bind(self, context: Any, name: str, tensor: torch.Tensor) -> None:
        if not context.set_tensor_address(name, tensor.data_ptr()):
            raise EngineError(f"{name}: TensorRT refused the memory of a tensor of shape {tuple(tensor.shape)}")

    def input_dtypes(self) -> dict[str, str]:
        """The dtype of each input and of the output, read back: "float16"."""
        return {name: str(dtype).removeprefix("torch.") for name, dtype in self._dtypes.items()}

    def inspector_json(self, *inputs: torch.Tensor) -> str:
        """The inspector's text for the engine at the shapes of `inputs`; without shapes it contains no formats."""
        import tensorrt as trt

        self._shape(self._context, inputs)
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def layers(self, *inputs: torch.Tensor) -> Layers:
        """The layers of the engine at the shapes of `inputs`. The text from which they are read is stored beside the
        engine, in `.layers.json`."""
        text = self.inspector_json(*inputs)
        _write(self.path.with_suffix(".layers.json"), text.encode())
        return described(text)

    def layer_seconds(self, *inputs: torch.Tensor) -> dict[str, float]:
        """Seconds by layer of one call, measured by TensorRT's profiler in a context of its own, the slowest first."""
        import tensorrt as trt
        import torch

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                super().__init__()
                self.seconds: dict[str, float] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.seconds[layer_name] = self.seconds.get(layer_name, 0.0) + ms * 1e-3

        context = self._new_context()
        self._run(context, inputs)  # the first call loads kernels, whose time the profiler would include
        profiler = Profiler()
        context.profiler = profiler
        self._run(context, inputs)
        torch.cuda.synchronize()
        return dict(sorted(profiler.seconds.items(), key=lambda item: -item[1]))


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy if its address is not a multiple of ALIGNMENT, as TensorRT requires (NvInferRuntime.h)."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of a TensorRT one. Raises EngineError for one that torch lacks."""
    import tensorrt as trt
    import torch

    known = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT8: torch.int8,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
        trt.DataType.BOOL: torch.bool,
        trt.DataType.FP8: torch.float8_e4m3fn,
    }
    if dtype not in known:
        raise EngineError(f"an input or output has the type {dtype}, which torch does not have")
    return known[dtype]
