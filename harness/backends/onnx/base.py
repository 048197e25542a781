"""Quantised layers over another base: applies the ranges of an fp32 Q/DQ file to the same network's file in fp16 or
bf16, as int8 or fp8.

The base file is torch's export of the network after its cast, so that what the network computes in fp32 on purpose (the
angles of a timestep) stays in fp32. All else is in the base type, scales and biases too. In a strongly typed network of
TensorRT the scale has the type of the tensor that is rounded: Quantize accepts fp32, fp16 or bf16, and Dequantize
returns them (docstrings of the bindings of 11.4). ONNX has scales of these types, and fp8, since opset 19.

A scale is rounded up to the base type, so that the largest value never saturates. Weights are rounded from the fp32
ones with the scale in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.backends.onnx import static as onnx_static

if TYPE_CHECKING:
    import numpy as np

SAME: Final = 0.02  # relative difference of a weight and its cast; a norm folded into it is computed in the base type


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The numbers to which values are rounded: the name of their type, the largest that is used, and whether weights
    have one scale per channel or one in all."""

    name: str
    largest: float
    per_channel: bool


INT8: Final = Grid(name="int8", largest=127.0, per_channel=True)  # the limit of the quantiser's symmetric ranges
FP8: Final = Grid(name="float8_e4m3fn", largest=448.0, per_channel=False)  # it has no infinity


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """What is rounded at a layer. The largest absolute values of its input and output are None if they are not rounded.
    The axis of the weight's channels is None if the quantiser gave the weight one scale."""

    given: float | None
    gives: float | None
    axis: int | None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The same for a layer of the base file, with its fp32 weight."""

    rounded: Rounded
    weight: np.ndarray


def place(plain: Path, static: Path, base: Path, path: Path, large: bool, grid: Grid, dtype: str) -> None:
    """Writes the network of `base`, whose weights are of type `dtype` ("float16"), with those layers on `grid` that are
    int8 in `static`, the Q/DQ form of the fp32 file `plain`. With `large` the weights are in a second file. Raises
    ValueError if `base` is another network."""
    import onnx

    ranges = _ranges(onnx.load(static, load_external_data=False).graph)
    model = onnx_static.without_gemm(onnx.load(base))
    layers = _layers(onnx_static.without_gemm(onnx.load(plain)).graph, model.graph, ranges)
    _insert(model.graph, layers, _Written(grid=grid, dtype=dtype))
    onnx.save(model, path, save_as_external_data=large)


def _ranges(graph: Any) -> dict[str, Rounded]:
    """What is rounded at each layer of a Q/DQ file, by the layer's name."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def reach(rounding: Any) -> float:
        return float(numpy_helper.to_array(stored[rounding.input[1]])) * INT8.largest

    def of(node: Any) -> Rounded:
        after = readers.get(node.output[0], [])
        gives = reach(after[0]) if {n.op_type for n in after} == {"QuantizeLinear"} and node.op_type == "Conv" else None
        if not onnx_static.is_quantised(node, made_by):
            return Rounded(given=None, gives=gives, axis=None)
        given, weight = (made_by[name] for name in node.input[:2])
        axis = next((a.i for a in weight.attribute if a.name == "axis"), None)
        return Rounded(given=reach(given), gives=gives, axis=axis)

    return {node.name: of(node) for node in graph.node if node.op_type in onnx_static.HEAVY}


def _layers(wide: Any, base: Any, ranges: Mapping[str, Rounded]) -> dict[str, Layer]:
    """The layers of `base` at which something is rounded, by the name of their output. Both graphs are exports of one
    network, with its layers in the same order."""
    from onnx import numpy_helper

    def heavy(graph: Any) -> list[Any]:
        return [node for node in graph.node if node.op_type in onnx_static.HEAVY]

    def weight(graph: dict[str, Any], node: Any) -> np.ndarray | None:
        return numpy_helper.to_array(graph[node.input[1]]) if node.input[1] in graph else None

    first, second = ({tensor.name: tensor for tensor in graph.initializer} for graph in (wide, base))
    if [n.op_type for n in heavy(wide)] != [n.op_type for n in heavy(base)]:
        raise ValueError("the network in its base type has other layers than in fp32")
    found = {}
    for old, new in zip(heavy(wide), heavy(base), strict=True):
        own, cast = weight(first, old), weight(second, new)
        if (own is None) != (cast is None) or (own is not None and cast is not None and not _same(own, cast)):
            raise ValueError(f"the layer {new.name} of the network in its base type has another weight than in fp32")
        rounded = ranges[old.name]
        if own is not None and (rounded.given, rounded.gives) != (None, None):
            found[new.output[0]] = Layer(rounded=rounded, weight=own)
    return found


def _same(wide: np.ndarray, narrow: np.ndarray) -> bool:
    import numpy as np

    if wide.shape != narrow.shape:
        return False
    return bool(np.linalg.norm(wide - narrow.astype(np.float32)) <= SAME * np.linalg.norm(wide))


@dataclass(frozen=True, kw_only=True)
class _Written:
    """The nodes and the new constants of the output file, with scales of the type `dtype`. `pairs` gives, by the name
    of a tensor, what its readers read instead."""

    grid: Grid
    dtype: str
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)

    def rounded(self, tensor: str, largest: float) -> str:
        """The name of `tensor` rounded to the grid up to `largest`. Its first reader adds the Q/DQ pair."""
        return self.pairs.get(tensor) or self.pair(tensor, tensor, largest, f"{tensor}_rounded")

    def pair(self, name: str, tensor: str, largest: float, result: str) -> str:
        """Adds the Q/DQ pair from `tensor` to `result`, for the readers of `name`."""
        import numpy as np

        scale = self._constant(f"{name}_scale", _up(np.asarray(largest / self.grid.largest), _dtype(self.dtype)))
        zero = self._constant(f"{self.grid.name}_zero", np.zeros((), _dtype(self.grid.name)))
        narrow = f"{result}_{self.grid.name}"
        self._add("QuantizeLinear", [tensor, scale, zero], narrow)
        self._add("DequantizeLinear", [narrow, scale, zero], result)
        self.pairs[name] = result
        return result

    def weight(self, name: str, layer: Layer, result: str) -> str:
        """Adds the weight of `layer` on the grid, and the node that dequantises it to `result`."""
        import numpy as np

        axis = layer.rounded.axis if self.grid.per_channel else None
        held, scale = _rounded_weight(layer.weight, axis, self.grid, _dtype(self.dtype))
        arrays = {"quantized": held, "scale": scale, "zero_point": np.zeros(scale.shape, _dtype(self.grid.name))}
        given = [self._constant(f"{name}_{kind}", array) for kind, array in arrays.items()]
        self._add("DequantizeLinear", given, result, **({} if axis is None else {"axis": axis}))
        return result

    def _add(self, operator: str, given: list[str], result: str, **attributes: int) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, given, [result], name=result, **attributes))

    def _constant(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name


def _insert(graph: Any, layers: Mapping[str, Layer], written: _Written) -> None:
    """Inserts a Q/DQ pair before each reader of a rounded tensor, and replaces the weights of `layers` by int8 or
    fp8."""
    after = {name: layer.rounded.gives for name, layer in layers.items() if layer.rounded.gives is not None}
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        result = node.output[0] if node.output else ""
        layer = layers.get(result)
        if layer is not None and layer.rounded.given is not None:
            node.input[0] = written.rounded(node.input[0], layer.rounded.given)
            node.input[1] = written.weight(node.input[1], layer, f"{result}_weight")
        for position, name in enumerate(node.input):
            if name in after:
                node.input[position] = written.rounded(name, after[name])
        written.nodes.append(node)
        if result in after and result in outputs:  # an output keeps its name; the unrounded tensor is renamed
            node.output[0] = f"{result}_unrounded"
            written.pair(result, node.output[0], after[result], result)
    used = {name for node in written.nodes for name in node.input}
    tensors = [tensor for tensor in (*graph.initializer, *written.constants.values()) if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(written.nodes)
    graph.initializer.extend(tensors)


def _rounded_weight(weight: np.ndarray, axis: int | None, grid: Grid, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(the weight on the grid, its scale of type `dtype`): one scale per channel of `axis`, or one in all."""
    import numpy as np

    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    largest = np.abs(weight).max(axis=others, keepdims=axis is not None)
    scale = _up(np.where(largest > 0, largest, grid.largest) / grid.largest, dtype)
    steps = weight / scale.astype(np.float32)
    held = (np.rint(steps) if grid is INT8 else steps).astype(_dtype(grid.name))
    return held, scale if axis is None else scale.reshape(-1)


def _up(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`value`, which is positive, rounded up to `dtype`."""
    import numpy as np

    exact = np.asarray(value, dtype=np.float32)
    near = exact.astype(dtype)
    above = np.nextafter(near, np.asarray(np.inf, dtype))
    return np.where(near.astype(np.float32) < exact, above, near)


def _dtype(name: str) -> np.dtype:
    """The numpy dtype, or that of ml_dtypes for a type that numpy lacks."""
    import ml_dtypes
    import numpy as np

    return np.dtype(getattr(ml_dtypes, name, name))
