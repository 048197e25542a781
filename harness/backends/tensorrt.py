"""TensorRT: listed, with the reason why its cases are skipped. The native backend is not part of this version."""

from __future__ import annotations

from collections.abc import Sequence

from harness.backends import Build, BuildRequest, missing_package
from harness.registry import BACKENDS
from harness.types import Component


@BACKENDS.add("tensorrt")
class TensorRT:
    label = "TensorRT"
    description = "native TensorRT engines"

    def unavailable(self, wanted: str, device: str) -> str | None:
        if device != "cuda":
            return "TensorRT needs an NVIDIA GPU; the device here is a CPU"
        package = missing_package("tensorrt", "TensorRT")
        return package or "this version of imgbench has no native TensorRT backend; use onnxruntime's"

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        raise RuntimeError("TensorRT is unavailable; ask unavailable() first")
