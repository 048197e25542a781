"""The networks as the backends see them: positional tensors in, one tensor out, nothing of a pipeline.

Each class wraps one network of a diffusers pipeline, so that an exporter, a compiler or a quantiser meets a plain
module. The whole original module is inside (the VAE with its encoder too): these are the parameters that
`from_pretrained` loads and that the published counts count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# A timestep crosses to a backend as int64, in units of 1 / TICKS of a training step. A backend casts what is floating:
# in bf16 step 999 would become 1000, which no pipeline does. Exact for whole steps, and to 5e-7 for the fractional
# ones of Euler.
TICKS = 2**20


def to_ticks(timestep: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The pipeline's timestep (a scalar or one an item, whole or fractional) as int64 ticks (batch_size,)."""
    if timestep.is_floating_point():
        ticks = (timestep * TICKS).round().to(torch.int64)
    else:
        ticks = timestep.to(torch.int64) * TICKS
    return ticks.reshape(-1).expand(batch_size).contiguous()


def from_ticks(ticks: torch.Tensor) -> torch.Tensor:
    """Ticks as the float32 timestep that the model was trained on; float32 whatever the network's own precision."""
    return ticks.to(torch.float32) / TICKS


class _Network(nn.Module):
    """The original module in eval mode, without gradients."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network.eval().requires_grad_(False)
        self.eval()


class UNet(_Network):
    """(N, C, h, w), ticks (N,), text (N, T, D) -> the prediction (N, C, h, w). SDXL: pooled text and sizes too."""

    def forward(
        self,
        sample: torch.Tensor,
        ticks: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        text_embeds: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        added = None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}
        output: torch.Tensor = self.network(
            sample, from_ticks(ticks), encoder_hidden_states, added_cond_kwargs=added, return_dict=False
        )[0]
        return output


class DiT(_Network):
    """(N, C, h, w), ticks (N,), labels int64 (N,) -> the prediction (N, C or 2C, h, w)."""

    def forward(self, sample: torch.Tensor, ticks: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(sample, from_ticks(ticks), class_labels, return_dict=False)[0]
        return output


class TextEncoder(_Network):
    """Token ids int64 (N, T) -> the last hidden state (N, T, D), as Stable Diffusion 1 and 2 read it."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(input_ids)[0]
        return output


class PenultimateTextEncoder(_Network):
    """Token ids int64 (N, T) -> the hidden state before the last layer (N, T, D): SDXL's first text encoder."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(input_ids, output_hidden_states=True).hidden_states[-2]
        return output


class PooledTextEncoder(_Network):
    """Token ids int64 (N, T) -> (N, T + 1, D): SDXL's second text encoder, two outputs in one tensor.

    Rows 0 to T - 1 are the hidden state before the last layer, row T is the pooled projection, which in SDXL is as
    wide as a hidden state. `split_pooled` takes them apart.
    """

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        output = self.network(input_ids, output_hidden_states=True)
        return torch.cat([output.hidden_states[-2], output[0][:, None]], dim=1)


def split_pooled(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What `PooledTextEncoder` packed: the hidden state (N, T, D) and the pooled projection (N, D)."""
    return packed[:, :-1], packed[:, -1]


class VaeDecoder(_Network):
    """Latents (N, C, h, w), already divided by the scaling factor -> images (N, 3, H, W), about -1 to 1."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network.decode(latents, return_dict=False)[0]
        return output
