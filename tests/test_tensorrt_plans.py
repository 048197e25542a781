"""Building and keeping an engine, over autospecs of the real 11.x classes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from harness.backends.tensorrt import engine as tensorrt_engine
from harness.backends.tensorrt import log as tensorrt_log
from harness.backends.tensorrt.engine import EngineError, Places, Plan, Range
from harness.measuring.out_of_memory import is_out_of_memory
from harness.timing import Timer


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


def planned(onnx_file: Path, ranges: list[Range] = ONE, *, tf32: bool = False) -> Plan:
    """The plan of `onnx_file`, kept two folders up in engines/, with the timing cache of one case."""
    root = onnx_file.parent.parent
    (root / "case").mkdir(exist_ok=True)
    return tensorrt_engine.plan(onnx_file, ranges, places(root), tf32, Timer(lambda: None))


def places(root: Path) -> Places:
    return Places(engines=root / "engines", timings=root / "case" / "timing.cache")


def test_a_plan_is_built_once_and_kept(library: Library, trt: Any, onnx_file: Path) -> None:
    first, second = planned(onnx_file), planned(onnx_file)
    assert (first.built, second.built) == (True, False)
    assert first.build_s == second.build_s > 0.0
    assert (first.path, first.digest, first.size) == (second.path, second.digest, 10)
    assert first.path.read_bytes() == b"the engine"
    assert library.builder.build_serialized_network.call_count == 1
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    library.builder.create_network.assert_called_once_with(strongly_typed)
    library.profile.set_shape.assert_called_once_with("input_0", (1, 3), (2, 3), (8, 3))
    library.config.add_optimization_profile.assert_called_once_with(library.profile)
    library.config.clear_flag.assert_called_once_with(trt.BuilderFlag.TF32)
    library.config.set_flag.assert_not_called()


@pytest.mark.parametrize("what", ["engine", "json"])
def test_an_engine_that_was_altered_or_is_half_there_is_built_anew(
    what: str, library: Library, onnx_file: Path
) -> None:
    first = planned(onnx_file)
    if what == "engine":
        first.path.write_bytes(b"")
    else:
        first.path.with_suffix(".json").unlink()
    again = planned(onnx_file)
    assert again.built
    assert (again.digest, again.path.read_bytes()) == (first.digest, b"the engine")


def test_the_timing_cache_of_one_build_of_a_case_helps_the_next(library: Library, onnx_file: Path) -> None:
    planned(onnx_file)
    library.config.create_timing_cache.assert_called_once_with(b"")
    planned(onnx_file, tf32=True)
    library.config.create_timing_cache.assert_called_with(b"timings")


def test_tf32_is_a_flag_and_another_engine(library: Library, trt: Any, onnx_file: Path) -> None:
    plain, fast = planned(onnx_file), planned(onnx_file, tf32=True)
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
        planned(onnx_file)
    assert not list((tmp_path / "engines").glob("*.engine"))


def test_no_engine_is_an_error_with_its_reason(library: Library, trt: Any, onnx_file: Path) -> None:
    def fails(*_arguments: Any) -> None:
        tensorrt_log.logger().log(trt.ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 8 bytes.)")

    library.builder.build_serialized_network.side_effect = fails
    with pytest.raises(EngineError, match="built no engine of unet-fp16-abc: Error Code 2: OutOfMemory") as raised:
        planned(onnx_file)
    assert is_out_of_memory(raised.value)


def test_a_timing_cache_that_tensorrt_refuses_is_begun_anew(
    library: Library, trt: Any, onnx_file: Path, tmp_path: Path
) -> None:
    timings = places(tmp_path).timings
    timings.parent.mkdir()
    timings.write_bytes(b"half of a file")
    library.config.create_timing_cache.side_effect = lambda content: None if content else library.cache
    assert planned(onnx_file).built
    assert [call.args for call in library.config.create_timing_cache.call_args_list] == [(b"half of a file",), (b"",)]
    assert [path.name for path in timings.parent.iterdir()] == ["timing.cache"]
    assert timings.read_bytes() == b"timings"


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("set_timing_cache", False, "accepts no timing cache"),
        ("create_timing_cache", None, "accepts no timing cache"),
        ("add_optimization_profile", -1, "refused the range of shapes of unet-fp16-abc"),
    ],
)
def test_what_tensorrt_refuses_at_the_build_is_an_error(
    name: str, answer: object, reason: str, library: Library, onnx_file: Path
) -> None:
    getattr(library.config, name).return_value = answer
    with pytest.raises(EngineError, match=reason):
        planned(onnx_file)


@pytest.mark.parametrize("name", ["Builder", "OnnxParser"])
def test_a_factory_that_makes_nothing_is_an_engine_error(
    name: str, trt: Any, library: Library, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_arguments: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, name, nothing)
    with pytest.raises(EngineError, match=f"TensorRT made no {name.removeprefix('Onnx').lower()}"):
        planned(onnx_file)
