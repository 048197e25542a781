"""Building, keeping and running an engine, over autospecs of the real 11.x classes.

What no GPU has run stays unproven: these tests find a wrong order of calls or a fault that is not told, not a wrong
number.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from harness import tensorrt_engine
from harness.tensorrt_engine import Engine, EngineError, Range


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
    layer("gemm", ["Row major FP8", "Row major FP8"], "Row major linear FP32"),
    layer("Quantize", ["Row major linear FP32"], "Row major FP8"),
    layer("kgen", ["Row major FP8"], "Row major linear FP32"),
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
    assert found.types == {"Half": 2, "FP32": 3, "Int8": 1, "FP8": 1, "unknown": 1}
    assert found.quantised == {"Int8": 2, "FP8": 1}
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


@pytest.mark.parametrize("name", ["Builder", "OnnxParser", "Runtime"])
def test_a_factory_that_makes_nothing_is_an_engine_error(
    name: str, trt: Any, library: Library, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bindings say TypeError of a factory that returned NULL."""

    def nothing(*_arguments: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, name, nothing)
    ranges = [Range(minimum=(1,), optimum=(1,), maximum=(1,))]
    make = Engine if name == "Runtime" else lambda file: tensorrt_engine.plan(file, ranges, file.parent, False)
    with pytest.raises(EngineError, match=f"TensorRT made no {name.removeprefix('Onnx').lower()}"):
        make(onnx_file)
