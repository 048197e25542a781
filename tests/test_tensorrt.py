"""The TensorRT backend against the real 11.x bindings: every name it uses exists, and its logic over their own classes.

The bindings install from PyPI; the libraries behind them do not, so stubs of their entry points are compiled here.
What no GPU has run stays unproven: these tests find a wrong name and a wrong order, not a wrong number.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from harness import tensorrt_engine
from harness.backends import BuildRequest, tensorrt
from harness.onnx_export import OnnxFile
from harness.tensorrt_engine import Engine, EngineError, Range
from harness.timing import Timer
from harness.types import Component

GCC = shutil.which("gcc")
MISSING = (
    "no gcc to compile stub libraries with"
    if GCC is None
    else "tensorrt-cu13-bindings is not installed"
    if importlib.util.find_spec("tensorrt_bindings") is None
    else None
)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

SOURCES = [Path(tensorrt_engine.__file__), Path(tensorrt.__file__)]
VARIABLES = {  # what a variable or attribute of harness.tensorrt_engine holds
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tensorrt")
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        path, source = folder / f"{name}.so.11", Path(__file__).with_name("tensorrt_stub.c")
        command = [str(GCC), "-shared", "-fPIC", "-w", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_bindings")


@pytest.fixture
def trt(bindings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "tensorrt", bindings)
    return bindings


def test_the_bindings_are_of_the_version_that_this_backend_speaks(trt: Any) -> None:
    assert int(trt.__version__.split(".")[0]) == tensorrt.VERSION


def test_every_name_of_the_module_that_is_used_exists(trt: Any) -> None:
    used = sorted({name for source in SOURCES for name in module_names(source)})
    assert {"trt.Builder", "trt.BuilderFlag.TF32", "trt.LayerInformationFormat.JSON"} <= set(used)
    for name in used:
        found = trt
        for part in name.split(".")[1:]:
            assert hasattr(found, part), name
            found = getattr(found, part)


def test_every_method_that_is_used_exists_on_its_class(trt: Any) -> None:
    used = {use for source in SOURCES for use in attribute_uses(source)}
    assert ("IExecutionContext", "execute_async_v3") in used
    assert ("IBuilderConfig", "set_timing_cache") in used
    missing = [f"{owner}.{name}" for owner, name in sorted(used) if not hasattr(getattr(trt, owner), name)]
    assert missing == []


def module_names(source: Path) -> Iterator[str]:
    """ "trt.Logger.ERROR" for every chain of attributes that begins with the module."""
    for node in ast.walk(ast.parse(source.read_text())):
        chain = dotted(node)
        if chain and chain.split(".")[0] in {"trt", "tensorrt"} and "." in chain:
            yield "trt." + chain.split(".", 1)[1]


def attribute_uses(source: Path) -> Iterator[tuple[str, str]]:
    """(class, attribute) for every attribute of a variable that holds one of TensorRT's objects. A bare `engine` is one
    of ours, `.engine` TensorRT's."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute) and dotted(node.value) != "engine":
            name = (dotted(node.value) or "").split(".")[-1]
            if name in VARIABLES:
                yield VARIABLES[name], node.attr


def dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := dotted(node.value)):
        return f"{inner}.{node.attr}"
    return None


class Library:
    """TensorRT's factories returning autospecs of its real classes: an attribute that they lack is an error."""

    def __init__(self, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def spec(name: str) -> Any:
            return create_autospec(getattr(trt, name), instance=True)

        self.builder, self.network, self.parser = spec("Builder"), spec("INetworkDefinition"), spec("OnnxParser")
        self.config, self.profile, self.cache = (
            spec("IBuilderConfig"),
            spec("IOptimizationProfile"),
            spec("ITimingCache"),
        )
        self.builder.create_network.return_value = self.network
        self.builder.create_builder_config.return_value = self.config
        self.builder.create_optimization_profile.return_value = self.profile
        self.builder.build_serialized_network.return_value = b"the engine"
        self.network.get_input.side_effect = lambda index: SimpleNamespace(name=f"input_{index}")
        self.parser.parse_from_file.return_value = True
        self.config.create_timing_cache.return_value = self.cache
        self.config.get_timing_cache.return_value = self.cache
        self.cache.serialize.return_value = b"timings"
        self.config.add_optimization_profile.return_value = 0
        self.config.set_timing_cache.return_value = True
        monkeypatch.setattr(trt, "Builder", lambda _logger: self.builder)
        monkeypatch.setattr(trt, "OnnxParser", lambda _network, _logger: self.parser)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))


@pytest.fixture
def library(trt: Any, monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(trt, monkeypatch)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    folder = tmp_path / "unet-fp16-abc"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"a network")
    return folder / "model.onnx"


ONE = [Range(minimum=(1, 3), optimum=(2, 3), maximum=(8, 3))]


def test_a_plan_is_built_once_and_kept(library: Library, trt: Any, onnx_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "engines"
    first = tensorrt_engine.plan(onnx_file, ONE, cache, tf32=False)
    second = tensorrt_engine.plan(onnx_file, ONE, cache, tf32=False)
    assert (first.built, second.built) == (True, False)
    assert (first.path, first.digest, first.size) == (second.path, second.digest, 10)
    assert first.path.read_bytes() == b"the engine"
    assert library.builder.build_serialized_network.call_count == 1
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    library.builder.create_network.assert_called_once_with(strongly_typed)
    library.profile.set_shape.assert_called_once_with("input_0", (1, 3), (2, 3), (8, 3))
    library.config.add_optimization_profile.assert_called_once_with(library.profile)
    library.config.clear_flag.assert_called_once_with(trt.BuilderFlag.TF32)
    library.config.set_flag.assert_not_called()


def test_the_timing_cache_of_one_build_helps_the_next(library: Library, onnx_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "engines"
    tensorrt_engine.plan(onnx_file, ONE, cache, tf32=False)
    library.config.create_timing_cache.assert_called_once_with(b"")
    tensorrt_engine.plan(onnx_file, ONE, cache, tf32=True)
    library.config.create_timing_cache.assert_called_with(b"timings")


def test_tf32_is_a_flag_and_another_engine(library: Library, trt: Any, onnx_file: Path, tmp_path: Path) -> None:
    plain = tensorrt_engine.plan(onnx_file, ONE, tmp_path / "engines", tf32=False)
    fast = tensorrt_engine.plan(onnx_file, ONE, tmp_path / "engines", tf32=True)
    library.config.set_flag.assert_called_once_with(trt.BuilderFlag.TF32)
    assert plain.path != fast.path


def test_the_key_is_of_file_shapes_gpu_and_version(
    library: Library, trt: Any, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key() -> str:
        return tensorrt_engine.key_of(onnx_file, ranges, tf32=False)

    ranges = ONE
    keys = [key()]
    (onnx_file.parent / "model.onnx.data").write_bytes(b"weights")
    keys.append(key())
    ranges = [Range(minimum=(2, 3), optimum=(2, 3), maximum=(2, 3))]
    keys.append(key())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "another GPU")
    keys.append(key())
    monkeypatch.setattr(trt, "__version__", "11.5.0.1")
    keys.append(key())
    (onnx_file.parent / "about.json").write_text("{}")  # says how long the export took: no part of the network
    assert len(set(keys)) == len(keys)
    assert key() == keys[-1]


def test_what_the_parser_says_is_in_the_error(library: Library, onnx_file: Path, tmp_path: Path) -> None:
    library.parser.parse_from_file.return_value = False
    library.parser.num_errors = 1
    library.parser.get_error.return_value = "no such operator: Foo"
    with pytest.raises(EngineError, match="refused unet-fp16-abc: no such operator: Foo"):
        tensorrt_engine.plan(onnx_file, ONE, tmp_path / "engines", tf32=False)
    assert not list((tmp_path / "engines").glob("*.engine"))


def test_no_engine_is_an_error(library: Library, onnx_file: Path, tmp_path: Path) -> None:
    library.builder.build_serialized_network.return_value = None
    with pytest.raises(EngineError, match="built no engine"):
        tensorrt_engine.plan(onnx_file, ONE, tmp_path / "engines", tf32=False)


def test_a_timing_cache_that_tensorrt_refuses_is_begun_anew(
    library: Library, trt: Any, onnx_file: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "engines"
    cache.mkdir()
    (cache / tensorrt_engine.TIMING_CACHE).write_bytes(b"half of a file")
    library.config.create_timing_cache.side_effect = lambda content: None if content else library.cache
    assert tensorrt_engine.plan(onnx_file, ONE, cache, tf32=False).built
    assert [call.args for call in library.config.create_timing_cache.call_args_list] == [(b"half of a file",), (b"",)]
    assert sorted(path.name for path in cache.iterdir() if path.suffix != ".engine") == [tensorrt_engine.TIMING_CACHE]
    assert (cache / tensorrt_engine.TIMING_CACHE).read_bytes() == b"timings"


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("set_timing_cache", False, "takes no timing cache"),
        ("create_timing_cache", None, "takes no timing cache"),
        ("add_optimization_profile", -1, "refused the range of shapes of unet-fp16-abc"),
    ],
)
def test_what_tensorrt_refuses_at_the_build_is_an_error(
    name: str, answer: object, reason: str, library: Library, onnx_file: Path, tmp_path: Path
) -> None:
    getattr(library.config, name).return_value = answer
    with pytest.raises(EngineError, match=reason):
        tensorrt_engine.plan(onnx_file, ONE, tmp_path / "engines", tf32=False)


class Loaded:
    """An engine of two inputs and one output, in fp16, over autospecs; `context` records what it is called with."""

    def __init__(self, trt: Any, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.engine = create_autospec(trt.ICudaEngine, instance=True)
        self.context = create_autospec(trt.IExecutionContext, instance=True)
        runtime, stream = create_autospec(trt.Runtime, instance=True), create_autospec(torch.cuda.Stream, instance=True)
        stream.cuda_stream = 77
        names = ["sample", "ticks", "prediction"]
        modes = dict(zip(names, [trt.TensorIOMode.INPUT, trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT], strict=True))
        types = dict(zip(names, [trt.DataType.HALF, trt.DataType.INT64, trt.DataType.HALF], strict=True))
        self.engine.num_io_tensors = 3
        self.engine.get_tensor_name.side_effect = names.__getitem__
        self.engine.get_tensor_mode.side_effect = modes.__getitem__
        self.engine.get_tensor_dtype.side_effect = types.__getitem__
        self.engine.create_execution_context.return_value = self.context
        self.context.get_tensor_shape.return_value = (2, 5)
        self.context.set_input_shape.return_value = True
        self.context.set_tensor_address.return_value = True
        self.context.execute_async_v3.return_value = True
        runtime.deserialize_cuda_engine.return_value = self.engine
        self.stream, self.current = stream, create_autospec(torch.cuda.Stream, instance=True)
        monkeypatch.setattr(trt, "Runtime", lambda _logger: runtime)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: self.current)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
        monkeypatch.setattr(tensorrt_engine, "DEVICE", "cpu")
        path.write_bytes(b"the engine")
        self.runtime, self.path = runtime, path


@pytest.fixture
def loaded(trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loaded:
    return Loaded(trt, monkeypatch, tmp_path / "a.engine")


def test_a_call_binds_torch_tensors_on_a_stream_of_its_own(loaded: Loaded) -> None:
    engine = Engine(loaded.path)
    output = engine(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    assert (tuple(output.shape), output.dtype) == ((2, 5), torch.float16)
    shapes = [call.args for call in loaded.context.set_input_shape.call_args_list]
    assert shapes == [("sample", (2, 3)), ("ticks", (2,))]
    bound = dict(call.args for call in loaded.context.set_tensor_address.call_args_list)
    assert set(bound) == {"sample", "ticks", "prediction"}
    assert bound["prediction"] == output.data_ptr()
    loaded.context.execute_async_v3.assert_called_once_with(77)
    loaded.stream.wait_stream.assert_called_once_with(loaded.current)
    loaded.current.wait_stream.assert_called_once_with(loaded.stream)


def test_a_shape_outside_the_profile_is_an_error(loaded: Loaded) -> None:
    loaded.context.set_input_shape.return_value = False
    with pytest.raises(EngineError, match=r"sample: shape \(9, 3\) is outside"):
        Engine(loaded.path)(torch.ones(9, 3), torch.ones(9, dtype=torch.int64))


def test_a_failed_execution_is_an_error_and_not_an_old_output(loaded: Loaded) -> None:
    loaded.context.execute_async_v3.return_value = False
    with pytest.raises(EngineError, match="execute_async_v3 failed"):
        Engine(loaded.path)(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))


def test_an_engine_of_another_gpu_is_an_error(loaded: Loaded) -> None:
    loaded.runtime.deserialize_cuda_engine.return_value = None
    with pytest.raises(EngineError, match="cannot be loaded"):
        Engine(loaded.path)


def test_no_context_and_a_refused_address_are_errors(loaded: Loaded) -> None:
    loaded.context.set_tensor_address.side_effect = lambda name, _address: name != "prediction"
    with pytest.raises(EngineError, match=r"prediction: TensorRT refused the memory of a tensor of shape \(2, 5\)"):
        Engine(loaded.path)(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    loaded.context.execute_async_v3.assert_not_called()
    loaded.engine.create_execution_context.return_value = None
    with pytest.raises(EngineError, match="no execution context"):
        Engine(loaded.path)


def layer(kind: str, given: list[str], gives: str, **more: Any) -> dict[str, Any]:
    tensors = [{"Format/Datatype": text} for text in given]
    return {"LayerType": kind, "Inputs": tensors, "Outputs": [{"Format/Datatype": gives}], **more}


LAYERS = [
    layer("CaskGemmMatrixMultiply", ["Row major Int8 format"], "Row major linear Half"),
    layer("CaskConvolution", ["Half"], "Half", Weights={"Type": "Int8", "Count": 64}),
    layer("Reformat", ["Thirty-two wide channel vectorized row major Int8 format"], "Row major linear FP32"),
    layer("kgen", ["Half"], "Row major Int8 format", Weights={}),
    layer("kgen", ["UInt8"], "N/A due to dynamic shapes"),
    {"Name": "b", "Outputs": []},
    "a layer without details",
]


def test_types_and_layers_are_read_back_at_the_shapes_of_the_call(loaded: Loaded, trt: Any) -> None:
    inspector = create_autospec(trt.EngineInspector, instance=True)
    inspector.get_engine_information.return_value = json.dumps({"Layers": LAYERS})
    loaded.engine.create_engine_inspector.return_value = inspector
    engine = Engine(loaded.path)
    assert engine.input_dtypes() == {"sample": "float16", "ticks": "int64", "prediction": "float16"}
    found = engine.layers(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    assert found.types == {"Half": 2, "FP32": 1, "Int8": 1, "unknown": 1}
    assert found.integer == 2
    assert inspector.execution_context is loaded.context
    assert [call.args for call in loaded.context.set_input_shape.call_args_list] == [
        ("sample", (2, 3)),
        ("ticks", (2,)),
    ]
    inspector.get_engine_information.assert_called_once_with(trt.LayerInformationFormat.JSON)


def test_seconds_by_layer_come_from_tensorrts_profiler_in_a_context_of_its_own(loaded: Loaded, trt: Any) -> None:
    engine = Engine(loaded.path)
    profiled = create_autospec(trt.IExecutionContext, instance=True)
    profiled.get_tensor_shape.return_value = (2, 5)
    profiled.set_tensor_address.return_value = True

    def report(_stream: int) -> bool:
        for name, milliseconds in (("fast", 0.1), ("slow", 0.4), ("fast", 0.1)):
            profiled.profiler.report_layer_time(name, milliseconds)
        return True

    profiled.execute_async_v3.side_effect = report
    loaded.engine.create_execution_context.return_value = profiled
    found = engine.layer_seconds(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    assert list(found) == ["slow", "fast"]
    assert found == pytest.approx({"slow": 4e-4, "fast": 2e-4})
    loaded.context.execute_async_v3.assert_not_called()


def request(tmp_path: Path, precision: str, optimizations: tuple[str, ...] = ()) -> BuildRequest:
    return BuildRequest(
        precision=precision,
        device="cuda",
        cache=tmp_path,
        exports=tmp_path,
        work="w",
        timer=Timer(lambda: None),
        optimizations=optimizations,
        calibration=lambda: pytest.fail("nothing is calibrated here"),
    )


class FakeEngine:
    """What the backend asks an engine, without one."""

    engine = SimpleNamespace(device_memory_size_v2=1024)

    def __init__(self, dtypes: dict[str, str], types: dict[str, int], integer: int = 0) -> None:
        self.dtypes, self.found = dtypes, tensorrt_engine.Layers(types=types, integer=integer)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].half()

    def input_dtypes(self) -> dict[str, str]:
        return self.dtypes

    def layers(self, *_inputs: torch.Tensor) -> tensorrt_engine.Layers:
        return self.found

    def layer_seconds(self, *_inputs: torch.Tensor) -> dict[str, float]:
        return {f"layer {i}": 1.0 / (i + 1) for i in range(20)}


def built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, engine: FakeEngine, **more: Any
) -> tuple[Any, list[Any]]:
    component = Component(name="net", module=torch.nn.Identity(), inputs=(torch.ones(2, 3),))
    asked: list[Any] = []
    file = OnnxFile(
        component="net",
        path=tmp_path,
        operators={},
        weights_bytes=60,
        disk_bytes=70,
        export_s=2.0,
        integer_layers=12 if precision == "int8_static" else 0,
    )

    def exported(_components: Any, _request: Any, recipe: str) -> list[OnnxFile]:
        asked.append(recipe)
        return [file]

    def plan(_path: Path, ranges: list[Range], _cache: Path, tf32: bool) -> Any:
        asked.append((ranges, tf32))
        return tensorrt_engine.Plan(path=tmp_path / "e", built=True, digest="d1", size=50)

    monkeypatch.setattr("harness.backends.tensorrt.onnx_export.exported", exported)
    monkeypatch.setattr(tensorrt_engine, "plan", plan)
    monkeypatch.setattr(tensorrt_engine, "Engine", lambda _path: engine)
    return tensorrt.TensorRT().build([component], request(tmp_path, precision, **more)), asked


def test_what_was_built_is_proven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = FakeEngine({"x": "float16", "n": "int64", "y": "float16"}, {"Half": 9, "Float": 1})
    build, asked = built(monkeypatch, tmp_path, "fp16", engine)
    shape = Range(minimum=(2, 3), optimum=(2, 3), maximum=(2, 3))
    assert asked == ["fp16", ([shape], False)]
    assert build.verify() is None
    assert build.forwards["net"](torch.ones(2, 3)).dtype == torch.float32
    assert (build.weights_bytes, build.disk_bytes(), build.cached) == (60, 50, False)
    assert build.build_s >= 2.0
    assert build.facts["engines"] == {"net": "d1"}
    assert list(build.facts["slowest_layers_s"]["net"]) == [f"layer {i}" for i in range(10)]


def test_tf32_runs_the_fp32_file_with_the_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, asked = built(monkeypatch, tmp_path, "tf32", FakeEngine({"x": "float32"}, {}))
    assert asked[0] == "fp32"
    assert asked[1][1] is True


def test_an_engine_of_another_precision_is_invalid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build, _ = built(monkeypatch, tmp_path, "fp16", FakeEngine({"x": "float32", "y": "float16"}, {}))
    assert build.verify() == "fp16 was asked for, but the engine of net takes or gives {'x': 'float32'}"


@pytest.mark.parametrize(
    ("integer", "reason"),
    [
        (0, "int8_static: 0 layers of the engine of net compute in int8, fewer than a third of its 12 quantised ones"),
        (3, "int8_static: 3 layers of the engine of net compute in int8, fewer than a third of its 12 quantised ones"),
        (4, None),  # query, key and value of each of four blocks as one
    ],
)
def test_int8_is_held_to_the_quantised_layers_as_far_as_they_fuse(
    integer: int, reason: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = FakeEngine({"x": "float32"}, {"Float": 12}, integer)
    build, _ = built(monkeypatch, tmp_path, "int8_static", engine)
    assert build.verify() == reason
    assert build.facts["integer_layers"] == {"net": integer}


def test_a_dynamic_batch_is_a_range_of_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = FakeEngine({"x": "float16"}, {})
    _, asked = built(monkeypatch, tmp_path, "fp16", engine, optimizations=("dynamic_batch",))
    assert asked[1] == ([Range(minimum=(1, 3), optimum=(2, 3), maximum=(8, 3))], False)


def test_why_a_precision_is_not_there(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.backends.tensorrt.missing_package", lambda *_: None)
    monkeypatch.setattr("harness.backends.tensorrt.missing_device", lambda _device: None)
    backend = tensorrt.TensorRT()
    assert backend.unavailable("fp16", "cuda") is None
    assert "GPU" in str(backend.unavailable("fp16", "cpu"))
    assert "not while it runs" in str(backend.unavailable("int8_dynamic", "cuda"))
    assert "MatMulNBits" in str(backend.unavailable("int8_weight_only", "cuda"))
    fp8 = str(backend.unavailable("fp8_e4m3", "cuda"))
    assert "fp8" in fp8
    assert "int8" not in fp8
    monkeypatch.setattr(trt, "__version__", "10.13.2")
    assert "older than 11" in str(backend.unavailable("fp16", "cuda"))
