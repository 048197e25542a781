"""What the inspector of a TensorRT engine says of its layers: which types they give, and which compute narrowly."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# The inspector's words for types, somewhere in a text like "Thirty-two wide channel vectorized row major Int8 format".
DATATYPE: Final = re.compile(r"\b(Float|Half|BFloat16|FP32|FP16|BF16|FP8|FP4|UInt8|Int8|Int4|Int32|Int64|Bool)\b")
NARROW: Final = ("Int8", "FP8")
NO_PRODUCTS: Final = frozenset({"kgen", "Reformat", "NoOp", "Quantize", "Dequantize", "Constant", "Shuffle"})


@dataclass(frozen=True, kw_only=True)
class Layers:
    """`types` counts what the layers give, {"Half": 120, "Float": 3}; `quantised` those that read int8 or fp8 or have
    weights of it, {"Int8": 48}, and are neither a mere change of format nor a generated kernel ("kgen"), which may
    widen what it reads for a product elsewhere."""

    types: Mapping[str, int]
    quantised: Mapping[str, int]


def described(text: str) -> Layers:
    """What the inspector's JSON says of an engine's layers."""
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, dict)]
    types = Counter(_types_of(output) for layer in layers for output in layer.get("Outputs", []))
    quantised = {kind: sum(_computes_in(kind, layer) for layer in layers) for kind in NARROW}
    return Layers(types=dict(types), quantised={kind: count for kind, count in quantised.items() if count})


def _types_of(tensor: Mapping[str, Any]) -> str:
    """ "Row major Int8 format" -> "Int8"."""
    found = DATATYPE.search(str(tensor.get("Format/Datatype", "")))
    return found.group() if found else "unknown"


def _computes_in(kind: str, layer: Mapping[str, Any]) -> bool:
    weights = layer.get("Weights")
    stored = isinstance(weights, dict) and weights.get("Type") == kind
    reads = any(_types_of(tensor) == kind for tensor in layer.get("Inputs", []))
    return (reads or stored) and layer.get("LayerType") not in NO_PRODUCTS
