"""Why a backend or a precision cannot be had: one true reason each, on a machine without the device too."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from build_request_fixture import build_request

from benches.cli import listing
from harness.backends import onnxruntime as backend
from harness.backends.onnx import export as onnx_export
from harness.backends.onnx import providers as onnx_providers
from harness.backends.onnx.proof import CPU
from harness.backends.onnxruntime import CUDA, TENSORRT
from harness.devices import cuda
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Component, Unavailable

NO_GPU = "no NVIDIA GPU or driver answers, for this test"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "unavailable", lambda: NO_GPU)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "unavailable", lambda: None)


def test_listing_backends_for_an_absent_gpu_gives_reasons(no_gpu: None) -> None:
    found = {row["name"]: row for row in listing.rows("backends", "cuda") if not row["name"].startswith("planted")}
    assert not any(row["available"] for row in found.values())
    assert {name for name, row in found.items() if row["reason"] != NO_GPU} == {"openvino"}
    assert all(reason for row in found.values() for reason in row["precisions"].values())


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "eager"])
def test_a_reason_is_about_the_precision_that_was_asked_for(name: str) -> None:
    words = {
        "tf32": "TF32",
        "fp8_e4m3": "fp8",
        "int8_dynamic": "int8_static",
        "int8_weight_only": "MatMulNBits",
        "int8_dynamic_classic": "quantize_dynamic",
    }
    reasons = {precision: str(BACKENDS[name].unavailable(precision, "cpu") or "") for precision in PRECISIONS}
    assert set(reasons.values()) > {""}
    if name == "openvino":
        assert {precision: word for precision, word in words.items() if word not in reasons[precision]} == {}
    assert {p: reason for p, reason in reasons.items() if "int8" in reason and not p.startswith("int8")} == {}


def test_a_provider_that_the_package_lists_may_not_load(monkeypatch: pytest.MonkeyPatch, a_gpu: None) -> None:
    """onnxruntime-gpu names TensorRT's provider whether or not the TensorRT that it links is there."""
    real = ctypes.CDLL

    def loader(path: str, *arguments: Any, **options: Any) -> Any:
        if "providers_tensorrt" in path:
            raise OSError("libnvinfer.so.10: cannot open shared object file: No such file or directory")
        return None if "onnxruntime_providers" in path else real(path, *arguments, **options)

    monkeypatch.setattr(ctypes, "CDLL", loader)
    monkeypatch.setattr(onnx_providers, "preload", lambda _provider: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA])
    onnx_providers.unloadable.cache_clear()
    try:
        reason = str(BACKENDS["onnxruntime_tensorrt"].unavailable("fp16", "cuda"))
        assert reason.startswith(f"{TENSORRT} cannot be loaded: libnvinfer.so.10: cannot open shared object file")
        assert "tensorrt-cu13<11" in reason
        assert BACKENDS["onnxruntime"].unavailable("fp16", "cuda") is None
    finally:
        onnx_providers.unloadable.cache_clear()


def test_fp32_that_would_be_tf32_is_refused(monkeypatch: pytest.MonkeyPatch, a_gpu: None) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA])
    monkeypatch.setattr(onnx_providers, "unloadable", lambda _provider: None)
    backend = BACKENDS["onnxruntime_tensorrt"]
    assert "its fp32 would be the precision tf32" in str(backend.unavailable("fp32", "cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert backend.unavailable("tf32", "cuda") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    for precision in ("tf32", "bf16"):
        assert "8.0 or newer" in str(backend.unavailable(precision, "cuda")), "it would be fp32 by another name"
    assert BACKENDS["onnxruntime"].unavailable("fp32", "cuda") is None


def test_a_resize_in_bf16_is_refused_before_a_session_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA provider has no such kernel, and reports that only by an error about a node when a session is opened."""
    monkeypatch.setattr(backend, "_session", lambda *_: pytest.fail("a session is opened"))
    upsample = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Upsample(scale_factor=2))
    component = Component(name="unet", module=upsample, inputs=(torch.randn(1, 1, 8, 8),))
    request = build_request(tmp_path, precision="bf16", device="cuda")
    with pytest.raises(Unavailable, match="ONNX Runtime's CUDA provider has no bf16 kernel for Resize of unet"):
        BACKENDS["onnxruntime"].build([component], request)
    files = onnx_export.exported([component], request, "bf16")
    assert backend.without_kernel(files, "fp16", CUDA) is None
    assert "no bf16 kernel for Resize of unet" in str(backend.without_kernel(files, "int8_weight_only_bf16", CUDA))
    assert backend.without_kernel(files, "bf16", TENSORRT) is None
    plain = Component(name="net", module=torch.nn.Linear(4, 4), inputs=(torch.randn(1, 4),))
    assert backend.without_kernel(onnx_export.exported([plain], request, "bf16"), "bf16", CUDA) is None
    assert "no bf16 kernels" in str(backend._impossible("bf16", CPU)), "any network, on a CPU"
