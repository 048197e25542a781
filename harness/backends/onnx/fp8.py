"""fp8_e4m3 in ONNX: linear layers in fp8 by Q/DQ nodes around MatMul, the rest of the network in bf16.

Each weight and each activation has one scale. TensorRT is reported to fuse only this form, and to multiply in a wider
type otherwise (NVIDIA/TensorRT-Model-Connect, pull request 1386). The ranges are those of int8's calibration. The
largest value maps to 448, the largest number of e4m3, instead of 127. `harness.backends.onnx.base` applies the ranges
to the network's bf16 file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.backends.onnx import base as onnx_base
from harness.backends.onnx import static as onnx_static

if TYPE_CHECKING:
    import torch


def quantise(plain: Path, base: Path, path: Path, calls: Sequence[tuple[torch.Tensor, ...]], large: bool) -> None:
    """Writes the fp8 form of `base`, the bf16 file of the network whose fp32 file is `plain`; ranges are the largest
    values seen in `calls`, the network's inputs. With `large` the weights are in a second file."""
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        integers = Path(scratch) / "model.onnx"
        onnx_static.quantise(plain, integers, calls, large, kinds=("MatMul",))
        onnx_base.place(plain, integers, base, path, large, onnx_base.FP8, "bfloat16")
