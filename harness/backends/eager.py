"""PyTorch as it is: the module's own forward, operator by operator. The reference for every other backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import precision
from harness.backends import Build, BuildRequest
from harness.registry import BACKENDS
from harness.types import Component

if TYPE_CHECKING:
    import torch


@BACKENDS.add("eager")
class Eager:
    label = "PyTorch eager"
    description = "the module's own forward, operator by operator"

    def unavailable(self, wanted: str, device: str) -> str | None:
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Casts each module in place and moves it to the device."""
        modules, seconds = request.timer.timed(lambda: cast_all(components, request))
        return Build(
            forwards={n: precision.bordered(m, request.precision, request.device) for n, m in modules.items()},
            build_s=seconds,
            cached=False,
            **read_back(modules, request.precision),
        )


def cast_all(components: Sequence[Component], request: BuildRequest) -> dict[str, torch.nn.Module]:
    """Component name -> its module, cast and on the device."""
    return {c.name: precision.cast(c.module.to(request.device), request.precision).eval() for c in components}


def read_back(modules: Mapping[str, torch.nn.Module], wanted: str) -> dict[str, Any]:
    """`weights_bytes`, facts and the precision check for modules that torch itself runs."""
    weights = {name: precision.weights_of(module) for name, module in modules.items()}
    elements: dict[str, int] = {}
    for found in weights.values():
        for dtype, count in found["elements_by_dtype"].items():
            elements[dtype] = elements.get(dtype, 0) + count
    return {
        "weights_bytes": sum(found["bytes"] for found in weights.values()),
        "facts": {"elements_by_dtype": elements},
        "verify": lambda: precision.mismatch(elements, wanted),
    }
