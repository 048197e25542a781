"""Loading and running an engine, over autospecs of the real 11.x classes.

What no GPU has run stays unproven: these tests find a wrong order of calls or a fault that is not told, not a wrong
number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from harness import tensorrt_engine
from harness.tensorrt_engine import Engine, EngineError


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


def nothing(*_arguments: Any) -> Any:
    """The bindings say TypeError of a factory that returned NULL."""
    raise TypeError("pybind11::init(): factory function returned nullptr")


def test_a_runtime_that_is_not_made_is_an_engine_error(
    loaded: Loaded, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "Runtime", nothing)
    with pytest.raises(EngineError, match="TensorRT made no runtime"):
        Engine(loaded.path)
