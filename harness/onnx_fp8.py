"""fp8_e4m3 in ONNX: the Q/DQ nodes of int8_static around MatMul, turned into fp8 with one scale a tensor.

One scale for all of a weight, and one for all of an activation: TensorRT is reported to fuse only that, and to multiply
in a wider type with other scales (NVIDIA/TensorRT-Model-Connect, pull request 1386). Activations reach 448, the
largest number of e4m3, where int8's reach 127: the ranges are those of the same calibration. Weights are rounded from
the fp32 ones, not from int8's. The rest of the network stays in fp32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import onnx_static

if TYPE_CHECKING:
    import torch

LARGEST: Final = 448.0  # of e4m3fn, which has no infinity
LARGEST_INT8: Final = 127.0  # what the quantiser's symmetric ranges reach


def quantise(plain: Path, path: Path, calls: Sequence[tuple[torch.Tensor, ...]], large: bool) -> None:
    """Writes the fp8 form of the fp32 file `plain`; ranges are the largest values seen in `calls`, the network's
    inputs. `large`: weights beside the file. Raises ValueError where a quantised weight is none of the file's."""
    import onnx
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        integers = Path(scratch) / "model.onnx"
        onnx_static.quantise(plain, integers, calls, large, kinds=("MatMul",))
        model = onnx.load(integers)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx_static.without_gemm(onnx.load(plain)).graph.initializer}
    _turn(model.graph, weights)
    onnx.save(model, path, save_as_external_data=large)


def _turn(graph: Any, weights: dict[str, Any]) -> None:
    """The same graph with fp8 in place of int8."""
    import numpy as np
    from ml_dtypes import float8_e4m3fn
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}

    def put(name: str, array: Any) -> None:
        stored[name].CopyFrom(numpy_helper.from_array(array, name))

    activations = {node.input[1]: node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for scale, zero in activations.items():
        put(scale, numpy_helper.to_array(stored[scale]) * np.float32(LARGEST_INT8 / LARGEST))
        put(zero, np.zeros(numpy_helper.to_array(stored[zero]).shape, dtype=float8_e4m3fn))
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            continue
        name, scale, zero = node.input
        source = name.removesuffix("_quantized")
        if source not in weights:
            raise ValueError(f"the quantiser's weight {name} is none of the file's")
        largest = float(np.abs(weights[source]).max())
        step = np.float32(largest / LARGEST if largest else 1.0)
        put(name, (weights[source] / step).astype(float8_e4m3fn))
        put(scale, np.asarray(step))
        put(zero, np.zeros((), dtype=float8_e4m3fn))
        del node.attribute[:]  # the axis of the channels, which share one scale now
