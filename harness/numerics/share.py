"""How much of a network is quantised: the share of the elements of its weight matrices that are int8 or fp8.

A weight matrix is a weight of two or more dimensions: of linear layers, convolutions, embeddings, recurrent layers and
attentions, and position tables, whether or not a quantiser supports the layer. Each counts once.
Weights of one dimension (biases, norms), scales and zero points do not count. In a torch module weights are its
parameters, in an ONNX file the initialisers that a node reads. A row whose precision quantises and whose share is 0 is
invalid. Below SMALL the row has a warning: more of its weights are in the wide precision than in the one that the row
is named after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.numerics import quantisation
from harness.reasons import Reason

if TYPE_CHECKING:
    import torch

SMALL: Final = 0.5
# Inputs that are scales and zero points, by operator.
SCALES: Final = {"QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "MatMulNBits": (2, 3)}


@dataclass(frozen=True, kw_only=True)
class Share:
    """Elements of one network's weight matrices: those that are `quantised`, all of them, and the name and elements of
    the largest matrix that is not."""

    quantised: int
    elements: int
    largest_left: tuple[str, int] | None = None


Shares = Mapping[str, Share]  # by component
NOTHING: Final = Share(quantised=0, elements=0)


def of_matrices(found: Iterable[tuple[str, int, bool]]) -> Share:
    """The share of weight matrices given as (name, elements, whether it is quantised)."""
    matrices = list(found)
    left = [(name, count) for name, count, narrow in matrices if not narrow]
    return Share(
        quantised=sum(count for _, count, narrow in matrices if narrow),
        elements=sum(count for _, count, _ in matrices),
        largest_left=max(left, key=lambda one: one[1], default=None),
    )


def of_module(module: torch.nn.Module) -> Share:
    """The share of a torch module, after it was quantised."""
    packed = [(f"packed.{i}", t.numel(), True) for i, t in enumerate(quantisation.packed_tensors(module)) if t.ndim > 1]
    plain = [(n, p.numel(), quantisation.is_quantised(p)) for n, p in module.named_parameters() if p.ndim > 1]
    return of_matrices([*packed, *plain])


def of_graph(graph: Any) -> Share:
    """The share of an ONNX graph."""
    from onnx import TensorProto

    scales = {name for node in graph.node for i in SCALES.get(node.op_type, ()) for name in node.input[i : i + 1]}
    used = {name for node in graph.node for name in node.input} - scales
    narrow = {TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN}
    wide = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    return of_matrices(
        (tensor.name, math.prod(tensor.dims), tensor.data_type in narrow)
        for tensor in graph.initializer
        if tensor.name in used and len(tensor.dims) > 1 and tensor.data_type in narrow | wide
    )


def total(shares: Shares) -> Share:
    """The sum over all networks of a row; the largest matrix is prefixed with its component's name."""
    left = [(f"{c}.{s.largest_left[0]}", s.largest_left[1]) for c, s in shares.items() if s.largest_left]
    return Share(
        quantised=sum(s.quantised for s in shares.values()),
        elements=sum(s.elements for s in shares.values()),
        largest_left=max(left, key=lambda one: one[1], default=None),
    )


def facts(shares: Shares) -> dict[str, Any]:
    """The facts of a row: the share over all networks, and elements by network. Empty if nothing is to be quantised."""
    whole = total(shares)
    if not whole.elements:
        return {}
    counts = {name: {"quantised": s.quantised, "elements": s.elements} for name, s in shares.items()}
    return {"quantised_share": whole.quantised / whole.elements, "quantised_weights": counts}


def fault(shares: Shares, precision: str) -> Reason | None:
    """The reason if no weight of a row with a quantised precision is quantised, else None."""
    whole = total(shares)
    if not shares or whole.quantised:
        return None
    return Reason("nothing_quantised", {"precision": precision, "elements": whole.elements})


def warnings(shares: Shares) -> tuple[Reason, ...]:
    """The warning of a row with a share below SMALL, or nothing."""
    whole = total(shares)
    if not whole.elements or whole.quantised >= SMALL * whole.elements:
        return ()
    name, count = whole.largest_left or ("none", 0)
    data = {"share": whole.quantised / whole.elements, "largest": name, "largest_share": count / whole.elements}
    return (Reason("partly_quantised", data),)
