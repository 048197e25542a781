"""What ONNX Runtime's own profile proves of one call: which provider ran each node, and which ran in integers.

A node on another provider makes the row invalid. There is one exception, for dynamic dimensions: ONNX Runtime
deliberately computes shapes on the CPU, even if there is a GPU. A node counts as such if its outputs are only a few
integers, and it has a name of its own in the counts. TensorRT reports a whole subgraph as one node, so its integer
layers are not visible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from harness.numerics.precision import recipe_of
from harness.reasons import Reason

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHAPES: Final = "CPU, computing shapes"
A_FEW: Final = 64  # elements: a shape has as many as a tensor has dimensions
INTEGERS: Final = frozenset({"int64", "int32", "bool"})
INTEGER_OPERATORS: Final[Mapping[str | None, tuple[str, ...]]] = {
    "int8_dynamic": ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "ConvInteger"),
    "int8_static": ("MatMulIntegerToFloat", "QLinearMatMul", "QLinearConv", "QGemm"),
    "int8_weight_only": ("MatMulNBits",),
}

Profile = Mapping[tuple[str, str], int]  # (operator, provider) -> nodes that ran


def profile(events: Iterable[Mapping[str, Any]], free_shapes: bool) -> Profile:
    """The nodes that ran, from a session's profile. With `free_shapes` those that only compute shapes are separate."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time"):
            ran = event["args"]
            provider = str(ran["provider"])
            apart = free_shapes and provider == CPU and gives_a_shape(ran.get("output_type_shape", ()))
            found[str(ran["op_name"]), SHAPES if apart else provider] += 1
    return found


def gives_a_shape(outputs: Iterable[Mapping[str, Iterable[int]]]) -> bool:
    """Whether outputs, as the profile describes them ({"int64": [4]}), are only a few integers. False if there are
    none."""
    described = [(kind, math.prod(dims)) for output in outputs for kind, dims in output.items()]
    return bool(described) and all(kind in INTEGERS and size <= A_FEW for kind, size in described)


def in_words(found: Profile) -> dict[str, int]:
    """ "MatMul CPUExecutionProvider": 49."""
    return {f"{operator} {provider}": count for (operator, provider), count in sorted(found.items())}


def fault(
    profiles: Mapping[str, Profile], wanted: str, precision: str, integer_layers: Mapping[str, int]
) -> Reason | None:
    """Why what ran is not what was requested: a node elsewhere, or a quantised layer that ran in floating point."""
    ran: Counter[tuple[str, str]] = Counter()
    for found in profiles.values():
        ran.update(found)
    allowed = {wanted} if wanted == CPU else {wanted, SHAPES}
    elsewhere = {key: n for key, n in ran.items() if key[1] not in allowed}
    if elsewhere:
        counts = {"count": sum(elsewhere.values()), "nodes": sum(ran.values())}
        return Reason("nodes_elsewhere", {"provider": wanted, **counts, "some": list(in_words(elsewhere))[:3]})
    if not any(provider == wanted for _, provider in ran):
        return Reason("no_node_in_profile", {"provider": wanted})
    return None if wanted == TENSORRT else _floating(profiles, precision, integer_layers)


def _floating(profiles: Mapping[str, Profile], precision: str, integer_layers: Mapping[str, int]) -> Reason | None:
    integer = INTEGER_OPERATORS.get(recipe_of(precision))
    if integer is None:
        return None
    total = 0
    for name, found in profiles.items():
        count = sum(n for (operator, _), n in found.items() if operator in integer)
        total += count
        if count < integer_layers[name]:
            told = {"precision": precision, "component": name, "count": count, "layers": integer_layers[name]}
            return Reason("layers_not_in_integers", told)
    return None if total else Reason("no_integer_node", {"precision": precision, "operators": list(integer)})


def proven(precision: str, provider: str) -> str:
    """What the profile proves of a precision, for the facts of the row."""
    if recipe_of(precision) not in INTEGER_OPERATORS:
        return "the provider of every node"
    if provider == TENSORRT:
        return "the provider of every node; not which layers TensorRT ran in integers: it shows its subgraphs whole"
    return "the provider of every node, and that every quantised layer ran in integers"
