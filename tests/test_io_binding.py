"""IO binding of ONNX Runtime, on the CPU's own provider: what a GPU adds is where the buffers lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from build_request_fixture import build_request

from harness.backends.onnx import export as onnx_export
from harness.backends.onnxruntime import OnnxRuntime, OnnxRuntimeTensorRT, _on_stream, _stream, bound
from harness.types import Component

SHAPES = [(2, 1, 8, 8), (5, 1, 8, 8), (2, 1, 12, 20), (3, 1, 12, 20)]


@pytest.mark.parametrize(
    ("optimizations", "taken"),
    [
        ((), SHAPES[:1]),
        (("dynamic_batch",), SHAPES[:2]),
        (("dynamic_size",), SHAPES[::2]),
        (("dynamic_batch", "dynamic_size"), SHAPES),
    ],
)
def test_buffers_are_of_the_sizes_that_the_network_gives(
    optimizations: tuple[str, ...], taken: list[tuple[int, ...]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Upsample(scale_factor=2)).eval()
    component = Component(name="net", module=net, inputs=(torch.randn(SHAPES[0]),))
    (file,) = onnx_export.exported([component], build_request(tmp_path, optimizations=optimizations), "fp32")
    forward = bound(onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"]), "cpu")
    for shape in taken:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(forward(x), net(x), rtol=1e-5, atol=1e-5)


class Stream:
    """A CUDA stream that notes in `order` what it waits for."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order, self.cuda_stream = name, order, 4242

    def wait_stream(self, other: Stream) -> None:
        self.order.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        pytest.fail("the host waits")


def watched(session: Any, order: list[str]) -> Any:
    """The session, each run of it and each of its options noted in `order`."""

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            asked = options.get_run_config_entry("disable_synchronize_execution_providers")
            order.append(f"run, synchronising off: {asked}")
            session.run_with_iobinding(binding, options)

    return Watched()


@pytest.mark.parametrize("optimizations", [(), ("dynamic_size",)])
def test_a_call_is_ordered_by_events_and_the_host_waits_for_nothing(
    optimizations: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("torch's", order))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("the host waits"))
    net = torch.nn.Conv2d(1, 4, 3, padding=1).eval()
    component = Component(name="net", module=net, inputs=(torch.randn(SHAPES[0]),))
    (file,) = onnx_export.exported([component], build_request(tmp_path, optimizations=optimizations), "fp32")
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    forward = bound(watched(session, order), "cpu", Stream("the session's", order))  # type: ignore[arg-type]
    x = torch.randn(SHAPES[0])
    with torch.no_grad():
        torch.testing.assert_close(forward(x), net(x), rtol=1e-5, atol=1e-5)
    assert order == [
        "the session's waits for torch's",
        "run, synchronising off: 1",
        "torch's waits for the session's",
    ]


def test_the_sessions_of_a_row_share_one_stream_of_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Stream] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda: made.append(Stream("the session's", [])) or made[-1])
    (cuda,) = _on_stream(OnnxRuntime().session_providers(build_request(tmp_path, device="cuda")), _stream("cuda"))
    assert cuda == (
        "CUDAExecutionProvider",
        {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested", "user_compute_stream": "4242"},
    )
    ((_, tensorrt),) = _on_stream(
        OnnxRuntimeTensorRT().session_providers(build_request(tmp_path, device="cuda", precision="fp16")), made[0]
    )
    assert tensorrt["user_compute_stream"] == "4242"
    assert len(made) == 1
    assert _stream("cpu") is None
    assert _on_stream(["CPUExecutionProvider"], None) == ["CPUExecutionProvider"]
