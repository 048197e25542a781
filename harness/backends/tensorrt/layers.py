"""The layers of a TensorRT engine, as its inspector reports them: the types of their outputs, and which of them compute
in int8 or fp8.

Besides TensorRT's own layers ("CaskConvolution", "Reformat") the list contains those of its compiler, Myelin: "gemm",
"fusion", "kgen". A kernel that Myelin generated is named after its operations: "__myl_FcMulAdd_myl0_7" multiplies by a
weight ("Fc", fully connected), "__myl_CastMulRound_myl0_3" does not. These names are from published engines of version
10. This code has not yet read the text of an engine on hardware.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# TensorRT 11 gives the type of a tensor as one word, "Half"; before, it was part of a text such as "Thirty-two wide
# channel vectorized row major Int8 format".
TYPE_KEYS: Final = ("Datatype", "Format/Datatype")
DATATYPE: Final = re.compile(
    r"\b(Float8E4M3|Float|Half|BFloat16|FP32|FP16|BF16|FP8|FP4|UInt8|Int8|Int4|Int32|Int64|Bool)\b"
)
SAME: Final = {"Float8E4M3": "FP8"}  # two names of one type
UNKNOWN: Final = "unknown"
NARROW: Final = ("Int8", "FP8")
NO_PRODUCTS: Final = frozenset(
    {"Reformat", "NoOp", "Quantize", "Dequantize", "Constant", "Shuffle", "copy", "internal_copy", "pointwise"}
)
GENERATED: Final = "__myl_"
PRODUCT: Final = re.compile(r"Fc(?![a-z])|[Gg]emm|MatMul")


@dataclass(frozen=True, kw_only=True)
class Layers:
    """`types` counts the types of the layers' outputs, {"Half": 120, "Float": 3}. `quantised` counts the layers that
    multiply and that read int8 or fp8 or have such weights, {"Int8": 48}. A mere change of format does not count. Nor
    does a generated kernel without a product, which may convert its input to a wider type for a product elsewhere."""

    types: Mapping[str, int]
    quantised: Mapping[str, int]

    @property
    def read(self) -> bool:
        """Whether the type of any tensor could be read. If not, the inspector's text has an unknown form."""
        return any(word != UNKNOWN for word in self.types)


def described(text: str) -> Layers:
    """The layers of an engine, from the inspector's JSON."""
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, dict)]
    types = Counter(_type_of(output) for layer in layers for output in layer.get("Outputs", []))
    quantised = {kind: sum(_computes_in(kind, layer) for layer in layers) for kind in NARROW}
    return Layers(types=dict(types), quantised={kind: count for kind, count in quantised.items() if count})


def _type_of(tensor: Mapping[str, Any]) -> str:
    """ "Half", or "Row major Int8 format" -> "Int8"."""
    found = DATATYPE.search(" ".join(str(tensor.get(key, "")) for key in TYPE_KEYS))
    return SAME.get(found.group(), found.group()) if found else UNKNOWN


def _computes_in(kind: str, layer: Mapping[str, Any]) -> bool:
    weights = layer.get("Weights")
    stored = isinstance(weights, dict) and _type_of({"Datatype": weights.get("Type")}) == kind
    reads = any(_type_of(tensor) == kind for tensor in layer.get("Inputs", []))
    return (reads or stored) and _multiplies(layer)


def _multiplies(layer: Mapping[str, Any]) -> bool:
    kind, name = layer.get("LayerType"), str(layer.get("Name", ""))
    if kind == "kgen" or is_generated(name):
        return has_product(name)
    return kind not in NO_PRODUCTS


def is_generated(name: str) -> bool:
    """Whether Myelin generated the layer or the kernel of this name."""
    return name.startswith(GENERATED)


def has_product(name: str) -> bool:
    """Whether a kernel that Myelin generated multiplies matrices, by the operations in its name."""
    return PRODUCT.search(name) is not None
