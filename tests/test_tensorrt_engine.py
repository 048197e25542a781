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

from harness.backends.tensorrt import engine as tensorrt_engine
from harness.backends.tensorrt import log as tensorrt_log
from harness.backends.tensorrt.engine import Engine, EngineError
from harness.backends.tensorrt.layers import Layers


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
        self.engine.device_memory_size_v2 = 1024
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


def test_a_failed_execution_is_an_error_with_its_reason_and_not_an_old_output(loaded: Loaded, trt: Any) -> None:
    def fails(_stream: int) -> bool:
        tensorrt_log.logger().log(trt.ILogger.ERROR, "Error Code 1: Cuda Runtime (an illegal memory access)")
        return False

    loaded.context.execute_async_v3.side_effect = fails
    engine = Engine(loaded.path)
    with pytest.raises(EngineError, match=r"execute_async_v3 failed: Error Code 1: Cuda Runtime \(an illegal"):
        engine(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))


def test_what_is_timed_has_no_nvtx_markers(loaded: Loaded, trt: Any) -> None:
    Engine(loaded.path)
    assert loaded.context.nvtx_verbosity == trt.ProfilingVerbosity.NONE


def test_the_memory_of_activations_is_one_tensor_of_torchs(loaded: Loaded, trt: Any) -> None:
    engine = Engine(loaded.path)
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    loaded.engine.create_execution_context.assert_called_once_with(strategy)
    loaded.context.set_device_memory.assert_called_once_with(engine._memory.data_ptr(), 1024)
    assert (engine._memory.numel(), engine._memory.dtype) == (1024, torch.uint8)


def test_an_engine_of_another_gpu_is_an_error(loaded: Loaded, trt: Any) -> None:
    def refuses(_content: bytes) -> None:
        tensorrt_log.logger().log(trt.ILogger.ERROR, "Error Code 6: the engine was built for another device")

    loaded.runtime.deserialize_cuda_engine.side_effect = refuses
    with pytest.raises(EngineError, match=r"a.engine cannot be loaded by .*: Error Code 6: the engine was built for"):
        Engine(loaded.path)


def test_no_context_and_a_refused_address_are_errors(loaded: Loaded) -> None:
    loaded.context.set_tensor_address.side_effect = lambda name, _address: name != "prediction"
    with pytest.raises(EngineError, match=r"prediction: TensorRT refused the memory of a tensor of shape \(2, 5\)"):
        Engine(loaded.path)(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    loaded.context.execute_async_v3.assert_not_called()
    loaded.engine.create_execution_context.return_value = None
    with pytest.raises(EngineError, match="no execution context: TensorRT gave no reason"):
        Engine(loaded.path)


TEXT = json.dumps(
    {"Layers": [{"LayerType": "gemm", "Inputs": [{"Datatype": "Int8"}], "Outputs": [{"Datatype": "Half"}]}, "a name"]}
)


def test_types_and_layers_are_read_back_at_the_shapes_of_the_call(loaded: Loaded, trt: Any) -> None:
    inspector = create_autospec(trt.EngineInspector, instance=True)
    inspector.get_engine_information.return_value = TEXT
    loaded.engine.create_engine_inspector.return_value = inspector
    engine = Engine(loaded.path)
    assert engine.input_dtypes() == {"sample": "float16", "ticks": "int64", "prediction": "float16"}
    found = engine.layers(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    assert found == Layers(types={"Half": 1}, quantised={"Int8": 1})
    assert inspector.execution_context is loaded.context
    assert loaded.engine.create_execution_context.call_count == 1, "another context would need memory of its own"
    assert loaded.path.with_name("a.layers.json").read_text() == TEXT
    assert engine.inspector_json(torch.ones(2, 3), torch.ones(2, dtype=torch.int64)) == TEXT
    assert [call.args for call in loaded.context.set_input_shape.call_args_list[:2]] == [
        ("sample", (2, 3)),
        ("ticks", (2,)),
    ]
    inspector.get_engine_information.assert_called_with(trt.LayerInformationFormat.JSON)


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
    profiled.set_device_memory.assert_called_once_with(engine._memory.data_ptr(), 1024)
    assert profiled not in vars(engine).values(), "it must not outlive its one measurement"
    assert profiled.nvtx_verbosity == trt.ProfilingVerbosity.NONE


def nothing(*_arguments: Any) -> Any:
    """The bindings say TypeError of a factory that returned NULL."""
    raise TypeError("pybind11::init(): factory function returned nullptr")


def test_a_runtime_that_is_not_made_is_an_engine_error(
    loaded: Loaded, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "Runtime", nothing)
    with pytest.raises(EngineError, match="TensorRT made no runtime"):
        Engine(loaded.path)
