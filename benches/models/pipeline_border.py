"""Stand-ins, which a diffusers pipeline holds in place of its networks.

What is timed is the pipeline's own `__call__`. A stand-in answers as the network did (`config`, `dtype`, `device`, the
same call), but passes its tensors to the forward that is installed for this call, be it eager bf16, a compiled module,
an ONNX session or a TensorRT engine. The pipeline runs unchanged, and the original network can be freed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from benches.models.networks import to_ticks
from benches.models.pipeline import Network
from harness.types import Forward


class Border:
    """Passes a pipeline's calls to the forwards. There is one for each workload, which all of its stand-ins use."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._forwards: Mapping[str, Forward] = {}

    @contextlib.contextmanager
    def installed(self, forwards: Mapping[str, Forward], device: torch.device) -> Iterator[None]:
        """Inside the block the stand-ins call `forwards`, and the pipeline makes its tensors on `device`."""
        before = self._forwards, self.device
        self._forwards, self.device = forwards, device
        try:
            yield
        finally:
            self._forwards, self.device = before

    def call(self, name: str, *tensors: torch.Tensor) -> torch.Tensor:
        return self._forwards[name](*tensors)


class StandIn(nn.Module):
    """Has the attributes of a network that the pipeline reads, and passes its calls to the border under `name`. A
    subclass has the method that a pipeline calls, as the pipeline's file declares it."""

    dtype = torch.float32  # host code stays fp32; a backend casts at the border
    ticks = staticmethod(to_ticks)

    def __init__(self, border: Border, name: str, network: Any, details: Mapping[str, Any]) -> None:
        super().__init__()
        self.border = border
        self.name = name
        self.config = network.config
        for attribute, value in details.items():
            setattr(self, attribute, value)

    @property
    def device(self) -> torch.device:
        return self.border.device

    def cross(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.border.call(self.name, *tensors)


@functools.cache
def _with_method(method: str, stand_in: Callable[..., Any]) -> type[StandIn]:
    return type(f"{StandIn.__name__}_{stand_in.__name__}", (StandIn,), {method: stand_in, "__module__": __name__})


def stand_in(border: Border, network: Network, original: Any) -> StandIn:
    """The stand-in that the pipeline holds in place of `original`."""
    made = _with_method(network.method, network.stand_in)
    return made(border, network.name, original, network.details(original))
