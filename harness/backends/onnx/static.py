"""int8_static in ONNX: Q/DQ nodes around MatMul and Conv, symmetric, weights per channel, biases in fp32.

TensorRT 11 and OpenVINO accept this form. ONNX Runtime's CPU kernels need unsigned activations: with signed ones they
are five times slower, and a convolution between the two stays in fp32. `unsigned` therefore moves every zero point from
0 to 128, which is the same grid of values. `quantised_layers` counts the layers that must then run in integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

HEAVY: Final = ("MatMul", "Gemm", "Conv")
EMBEDDINGS: Final = ("timestep_embedder", "time_embedding", "add_embedding")  # diffusers' names of their weights


def quantise(
    plain: Path,
    path: Path,
    calls: Sequence[tuple[torch.Tensor, ...]],
    large: bool,
    narrow: bool = False,
    kinds: Sequence[str] = HEAVY,
) -> None:
    """Writes the Q/DQ form of the fp32 file `plain`; ranges are the largest values seen in `calls`, the network's
    inputs. With `large` the weights are in a second file, with `narrow` they have 7 bits
    (`harness.numerics.int8_saturation`). `kinds` are the operators whose inputs become int8."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        source = Path(scratch) / "model.onnx"
        onnx.save(without_gemm(onnx.load(plain)), source, save_as_external_data=large)
        graph = onnx.load(source, load_external_data=False).graph
        rounded = Path(scratch) / "rounded.onnx"
        quantize_static(
            source,
            rounded,
            _reader([i.name for i in graph.input], calls),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(kinds),
            per_channel=True,
            reduce_range=narrow,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=large,
            nodes_to_exclude=_kept_in_fp32(graph, kinds),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "DedicatedQDQPair": True,  # ONNX Runtime fuses no node whose DequantizeLinear has another reader
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )
        model = onnx.load(rounded)
    _round_nothing_else(model.graph)
    onnx.save(model, path, save_as_external_data=large)


def _round_nothing_else(graph: Any) -> None:
    """Gives layers that are not quantised the values before rounding. The quantiser gives the rounded ones to every
    reader of a quantised tensor, for example to a norm or a residual beside a quantised layer (digits_sd in OpenVINO:
    the worst image had an error of 0.19 instead of 0.03). Readers of a convolution are not changed, because its kernels
    return integers."""
    made_by = {output: node for node in graph.node for output in node.output}
    before = {}  # rounded tensor -> the one that was rounded
    for node in graph.node:
        rounding = made_by.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        source = rounding.input[0]
        if source not in made_by or made_by[source].op_type != "Conv":
            before[node.output[0]] = source
    for node in graph.node:
        if is_quantised(node, made_by):
            continue
        for position, name in enumerate(node.input):
            node.input[position] = before.get(name, name)


def is_quantised(node: Any, made_by: Mapping[str, Any]) -> bool:
    """Whether a layer's input and weight are both dequantised right before it. False for a product of two
    activations."""
    if node.op_type not in HEAVY:
        return False
    given = [made_by[name] for name in node.input[:2] if name in made_by]
    return [one.op_type for one in given] == ["DequantizeLinear"] * 2 and given[1].input[0] not in made_by


def unsigned(signed: Path, path: Path, large: bool) -> None:
    """Writes the network of `signed` with uint8 activations around 128 in place of int8 ones around 0."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(signed)
    activations = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in activations:
            zeros = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(zeros, 128, dtype=np.uint8), tensor.name))
    onnx.save(model, path, save_as_external_data=large)


def quantised_layers(graph: Any) -> int:
    """How many layers can run in integers, or in fp8."""
    made_by = {output: node for node in graph.node for output in node.output}
    return sum(is_quantised(node, made_by) for node in graph.node)


def without_gemm(model: Any) -> Any:
    """The same network with a MatMul and an Add for each Gemm of weights. ONNX Runtime has an integer kernel for a
    MatMul with Q/DQ inputs and a float output. For a Gemm it has one only if the bias is quantised too, which TensorRT
    does not accept."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plainly = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        if node.op_type != "Gemm" or not plainly or node.input[1] not in weights:
            nodes.append(node)
            continue
        weight = node.input[1]
        if given.get("transB", 0):
            turned = f"{weight}_transposed"
            if turned not in weights:
                array = numpy_helper.to_array(weights[weight]).T.copy()
                weights[turned] = numpy_helper.from_array(array, turned)
            weight = turned
        bias = list(node.input[2:3])
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], [node.output[0]], name=f"{node.name}_bias"))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def _kept_in_fp32(graph: Any, kinds: Sequence[str]) -> list[str]:
    """Nodes of `kinds` that int8_static and fp8 leave unquantised, of three sorts.

    Products of two activations: the values of a softmax over hundreds of tokens are below one step of an int8 range up
    to 1. The first layer, which reads the network's input: a sampler's latents may grow a hundredfold from the first
    step to the last, and in one range for all of them those of the first step are lost (DiT-S/2 with random weights:
    the output of the first call has a cosine of 0.61, and of 0.9999 if the layer is in fp32). The small layers that
    turn time, size and pooled text into a vector: they take almost no time, and one range for all values of a sinusoid
    is too coarse. If they are quantised, OpenVINO 2026.4 also fails in its constant folding.
    """
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name for value in graph.input}
    heavy = [node for node in graph.node if node.op_type in kinds]
    small = [
        node
        for node in heavy
        if any(name in text for name in EMBEDDINGS for text in node.input)
        or (node.op_type == "MatMul" and not weights & set(node.input))
    ]
    first = [node for node in heavy if inputs & set(node.input)]
    kept = [node.name for node in (*small, *first)]
    # A network that consists of first layers only is quantised nevertheless, because nothing else in it could be int8.
    return kept if len(set(kept)) < len(heavy) else [node.name for node in small]


def _reader(names: Sequence[str], calls: Sequence[tuple[torch.Tensor, ...]]) -> Any:
    """ONNX Runtime's reader over recorded calls, by the names of the file's inputs."""
    from onnxruntime.quantization import CalibrationDataReader

    feeds = iter([{n: x.numpy() for n, x in zip(names, call, strict=True)} for call in calls])

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    return Reader()
