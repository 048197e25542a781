"""Single denoiser networks, at full size with random weights: the U-Net of SD 1.5 at 512 px, and DiT-XL/2 at 256 px.

One iteration is one call. There is no guidance, so the batch size is the number of items in a call.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.types import Case, Component, Forward, Workload

if TYPE_CHECKING:
    import torch

TIMESTEP = 500


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The network's positional inputs; like a tensor, they have `to(device)`."""

    tensors: tuple[torch.Tensor, ...]

    def to(self, device: torch.device | str) -> Inputs:
        return Inputs(tensors=tuple(x.to(device) for x in self.tensors))


def sd15_unet(case: Case) -> Workload:
    """Latents float32 (N, 4, 64, 64), ticks (N,) and text (N, 77, 768) -> the prediction (N, 4, 64, 64)."""
    from benches.models.stable_diffusion import unet

    latents, text = _normal(case, 4, 64, 64), _normal(case, 77, 768)
    return _alone(case, "sd15", "unet", unet, (latents, _ticks(case), text), (4, 64, 64))


def dit_xl_2(case: Case) -> Workload:
    """Latents float32 (N, 4, 32, 32), ticks (N,) and labels (N,) -> the prediction (N, 8, 32, 32)."""
    import torch

    from benches.models.dit import transformer

    labels = torch.arange(case.batch_size) * 37 % 1000
    inputs = (_normal(case, 4, 32, 32), _ticks(case), labels)
    return _alone(case, "dit_xl_2", "transformer", transformer, inputs, (8, 32, 32))


def _alone(
    case: Case, architecture: str, network: str, forward: Any, inputs: tuple[torch.Tensor, ...], shape: tuple[int, ...]
) -> Workload:
    """The workload of one network of a bundled architecture, called as `forward` says; `shape` is that of one item's
    output."""
    import torch

    from benches.models import architectures, networks
    from benches.models.weights import RANDOM_SEED, random_module
    from benches.models.workloads import facts

    entry = architectures.read(architecture)["networks"][network]
    module = networks.wrapped(forward, random_module(functools.partial(architectures.build_network, entry)))
    components = (Component(name=network, module=module, inputs=inputs),)

    @torch.no_grad()
    def iterate(forwards: Mapping[str, Forward], batch: Inputs) -> torch.Tensor:
        return forwards[network](*batch.tensors)

    return Workload(
        components=components,
        iterate=iterate,
        batch=Inputs(tensors=inputs),
        output_shape=(case.batch_size, *shape),
        identity={**facts(components, f"random-{RANDOM_SEED}"), "architecture": f"{architecture} {network}"},
        output_kind="features",
    )


def _normal(case: Case, *shape: int) -> torch.Tensor:
    import torch

    return torch.randn(case.batch_size, *shape, generator=torch.Generator().manual_seed(case.seed))


def _ticks(case: Case) -> torch.Tensor:
    import torch

    from benches.models import networks

    return networks.to_ticks(torch.tensor(TIMESTEP), case.batch_size)
