"""The TensorRT backend: what it asks of an engine, and what proves that the engine is what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from build_request_fixture import build_request
from tensorrt_fixture import FakeEngine

from harness.backends import BuildRequest, tensorrt
from harness.backends.onnx.export import OnnxFile
from harness.backends.tensorrt import engine as tensorrt_engine
from harness.backends.tensorrt.engine import Range
from harness.numerics.precision import recipe_of
from harness.timing import Timer
from harness.types import Component


def request(tmp_path: Path, precision: str, optimizations: tuple[str, ...] = ()) -> BuildRequest:
    return build_request(
        tmp_path, precision=precision, device="cuda", cache=tmp_path / "case", optimizations=optimizations
    )


def built(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    precision: str,
    engine: FakeEngine,
    quantised: int = 12,
    module: torch.nn.Module | None = None,
    **more: Any,
) -> tuple[Any, list[Any]]:
    component = Component(name="net", module=module or torch.nn.Identity(), inputs=(torch.ones(2, 3),))
    asked: list[Any] = []
    file = OnnxFile(
        component="net",
        path=tmp_path,
        operators={},
        weights_bytes=60,
        disk_bytes=70,
        export_s=2.0,
        integer_layers=quantised if recipe_of(precision) in tensorrt.INSPECTED else 0,
    )

    def exported(_components: Any, _request: Any, recipe: str) -> list[OnnxFile]:
        asked.append(recipe)
        return [file]

    def plan(_path: Path, ranges: list[Range], places: tensorrt_engine.Places, tf32: bool, _timer: Timer) -> Any:
        asked.append((ranges, tf32))
        assert places.timings.parent == tmp_path / "case", "a case's build takes no other case's timings"
        return tensorrt_engine.Plan(path=tmp_path / "e", built=False, build_s=30.0, digest="d1", size=50)

    monkeypatch.setattr("harness.backends.tensorrt.onnx_export.exported", exported)
    monkeypatch.setattr(tensorrt_engine, "plan", plan)
    monkeypatch.setattr(tensorrt_engine, "Engine", lambda _path: engine)
    (tmp_path / "case").mkdir(exist_ok=True)
    return tensorrt.TensorRT().build([component], request(tmp_path, precision, **more)), asked


def test_what_was_built_is_proven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = FakeEngine({"x": "float16", "n": "int64", "y": "float16"}, {"Half": 9, "Float": 1})
    build, asked = built(monkeypatch, tmp_path, "fp16", engine)
    shape = Range(minimum=(2, 3), optimum=(2, 3), maximum=(2, 3))
    assert asked == ["fp16", ([shape], False)]
    assert build.verify() is None
    assert build.forwards["net"](torch.ones(2, 3)).dtype == torch.float32
    assert (build.weights_bytes, build.disk_bytes(), build.cached) == (60, 50, False)
    assert build.build_s >= 32.0, "the engine's and the export's seconds, whichever case of the run paid for them"
    again, _ = built(monkeypatch, tmp_path, "fp16", engine)
    assert again.cached
    assert again.build_s < 32.0
    assert build.facts["engines"] == {"net": "d1"}
    assert list(build.facts["slowest_layers_s"]["net"]) == [f"layer {i}" for i in range(10)]


def test_tf32_runs_the_fp32_file_with_the_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, asked = built(monkeypatch, tmp_path, "tf32", FakeEngine({"x": "float32"}, {}))
    assert asked[0] == "fp32"
    assert asked[1][1] is True


def test_an_engine_of_another_precision_is_invalid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build, _ = built(monkeypatch, tmp_path, "fp16", FakeEngine({"x": "float32", "y": "float16"}, {}))
    assert str(build.verify()) == "fp16 was requested, but the engine of net has the inputs or outputs {'x': 'float32'}"


@pytest.mark.parametrize(
    ("precision", "kind", "dtype"),
    [
        ("int8_static", "Int8", "float32"),
        ("int8_static_fp16", "Int8", "float16"),
        ("int8_static_bf16", "Int8", "bfloat16"),
        ("fp8_e4m3", "FP8", "bfloat16"),
    ],
)
@pytest.mark.parametrize("count", [0, 3, 4])  # 4: query, key and value of each of four blocks as one
def test_quantised_layers_are_held_to_as_far_as_they_fuse(
    precision: str, kind: str, dtype: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = FakeEngine({"x": dtype, "y": dtype}, {"Float": 12}, **{kind: count})
    build, asked = built(monkeypatch, tmp_path, precision, engine)
    assert (asked[0], asked[1][1]) == (precision, False), "its own file, without TF32"
    few = "fewer than a third of its 12 quantised ones"
    reason = f"{precision}: {count} layers of the engine of net compute in {kind}, {few}"
    found = build.verify()
    assert (None if found is None else str(found)) == (reason if count < 4 else None)
    assert build.facts["engine_quantised_layers"] == {"net": {kind: count}}


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("int8_static", "float16"), ("int8_static_fp16", "float32"), ("fp8_e4m3", "float32"), ("fp8_e4m3", "float16")],
)
def test_an_engine_over_another_base_is_invalid(
    precision: str, dtype: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build, _ = built(monkeypatch, tmp_path, precision, FakeEngine({"x": dtype}, {"Float": 12}, Int8=12, FP8=12))
    assert str(build.verify()) == (
        f"{precision} was requested, but the engine of net has the inputs or outputs {{'x': '{dtype}'}}"
    )


def test_a_network_without_a_quantised_layer_is_no_row_of_fp8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build, _ = built(monkeypatch, tmp_path, "fp8_e4m3", FakeEngine({"x": "bfloat16"}, {"Float": 3}), quantised=0)
    assert str(build.verify()) == "fp8_e4m3 was requested, but no layer of any engine computes in FP8"


@pytest.mark.parametrize("precision", ["int8_static", "fp8_e4m3", "fp32"])
@pytest.mark.parametrize("types", [{}, {"unknown": 90}])
def test_an_inspector_whose_text_is_not_understood_is_a_reason_of_its_own(
    precision: str, types: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dtype = "bfloat16" if precision == "fp8_e4m3" else "float32"
    build, _ = built(monkeypatch, tmp_path, precision, FakeEngine({"x": dtype}, types))
    assert str(build.verify()).startswith(
        f"{precision}: the engine inspector names no known type in the engine of net, so the types"
    )


class Recording(torch.nn.Identity):
    """A module that records where it is moved."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order = order

    def to(self, *places: Any, **_more: Any) -> Recording:
        self.order.append(f"moved to {places[0]}")
        return self


def test_the_modules_of_calibration_leave_the_gpu_before_an_engine_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("cache emptied"))
    monkeypatch.setattr("harness.backends.tensorrt._ranges", lambda *_: order.append("planned") or [])
    engine = FakeEngine({"x": "float32"}, {"Float": 12}, Int8=12)
    built(monkeypatch, tmp_path, "int8_static", engine, module=Recording(order))
    assert order == ["moved to cpu", "cache emptied", "planned"]


def test_layers_of_int8_do_not_prove_fp8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build, _ = built(monkeypatch, tmp_path, "fp8_e4m3", FakeEngine({"x": "bfloat16"}, {"Int8": 12}, Int8=12))
    assert "0 layers of the engine of net compute in FP8" in str(build.verify())


def test_a_dynamic_batch_is_a_range_of_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = FakeEngine({"x": "float16"}, {})
    _, asked = built(monkeypatch, tmp_path, "fp16", engine, optimizations=("dynamic_batch",))
    assert asked[1] == ([Range(minimum=(1, 3), optimum=(2, 3), maximum=(8, 3))], False)


def test_a_dynamic_size_is_a_range_of_height_and_width() -> None:
    unet = Component(name="unet", module=torch.nn.Identity(), inputs=(torch.ones(2, 4, 64, 96), torch.ones(2)))
    images, ticks = tensorrt._ranges(unet, ("dynamic_size",))
    assert images == Range(minimum=(2, 4, 32, 48), optimum=(2, 4, 64, 96), maximum=(2, 4, 128, 192))
    assert ticks == Range(minimum=(2,), optimum=(2,), maximum=(2,))
    assert tensorrt._ranges(unet, ("dynamic_batch", "dynamic_size"))[0].maximum == (8, 4, 128, 192)


@pytest.mark.parametrize(("side", "smallest"), [(64, 32), (72, 40), (8, 8), (12, 8), (7, 4), (1, 1)])
def test_the_smallest_side_can_be_halved_as_often_as_the_own(side: int, smallest: int) -> None:
    assert tensorrt._smallest_side(side) == smallest


def test_why_a_precision_is_not_there(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.backends.tensorrt.cannot_import", lambda *_: None)
    monkeypatch.setattr("harness.backends.tensorrt.missing_device", lambda _device: None)
    backend = tensorrt.TensorRT()
    assert backend.unavailable("fp16", "cuda") is None
    assert "GPU" in str(backend.unavailable("fp16", "cpu"))
    assert "computes none at run time" in str(backend.unavailable("int8_dynamic", "cuda"))
    assert "MatMulNBits" in str(backend.unavailable("int8_weight_only", "cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    assert backend.unavailable("fp8_e4m3", "cuda") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    assert str(backend.unavailable("fp8_e4m3", "cuda")) == "fp8_e4m3 needs compute capability 8.9 or newer"
    monkeypatch.setattr(trt, "__version__", "10.13.2")
    assert "older than 11" in str(backend.unavailable("fp16", "cuda"))
