"""The networks as the backends see them: positional tensors in, one tensor out, and no part of a pipeline.

`wrapped` puts one network of a diffusers pipeline into a module whose forward its pipeline's file declares, so that an
exporter, a compiler or a quantiser gets a plain module. The whole original module is inside (the VAE with its encoder
too), because `from_pretrained` loads all of its parameters and published counts include them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# A timestep is passed to a backend as int64, in units of 1 / TICKS of a training step. A backend casts floating-point
# inputs: in bf16 step 999 would become 1000, which no pipeline does. This is exact for whole steps, and to 5e-7 for the
# fractional ones of Euler.
TICKS = 2**20


def to_ticks(timestep: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The pipeline's timestep (a scalar or one per item, whole or fractional) as int64 ticks (batch_size,)."""
    if timestep.is_floating_point():
        ticks = (timestep * TICKS).round().to(torch.int64)
    else:
        ticks = timestep.to(torch.int64) * TICKS
    return ticks.reshape(-1).expand(batch_size).contiguous()


def from_ticks(ticks: torch.Tensor) -> torch.Tensor:
    """Ticks as the float32 timestep that the model was trained on; float32 whatever the network's own precision."""
    return ticks.to(torch.float32) / TICKS


class Wrapped(nn.Module):
    """The original module in eval mode, without gradients. A subclass has the forward that a pipeline declares, which
    may use `timestep` and `cat`."""

    timestep = staticmethod(from_ticks)
    cat = staticmethod(torch.cat)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network.eval().requires_grad_(False)
        self.eval()


@functools.cache
def _with_forward(forward: Callable[..., torch.Tensor]) -> type[Wrapped]:
    return type(f"{Wrapped.__name__}_{forward.__name__}", (Wrapped,), {"forward": forward, "__module__": __name__})


def wrapped(forward: Callable[..., torch.Tensor], network: nn.Module) -> Wrapped:
    """`network` in a module with the signature and the code of `forward`."""
    return _with_forward(forward)(network)
