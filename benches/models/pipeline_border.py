"""Stand-ins: what a diffusers pipeline holds in place of its networks.

What is timed is the pipeline's own `__call__`. A stand-in answers as the network did (`config`, `dtype`, `device`,
the same call), but passes its tensors to the forward that is installed for this call, be it eager bf16, a compiled
module, an ONNX session or a TensorRT engine. The pipeline never knows, and the original network can be freed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn

from benches.models.networks import split_pooled, to_ticks
from harness.types import Forward

PIPELINE_NULL_CLASS = 1000  # what DiTPipeline passes for the unconditional half, whatever classes the network has


class Border:
    """Where a pipeline's calls cross to the forwards: one for each workload, read by all of its stand-ins."""

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
    """Answers the pipeline's questions about a network and hands its calls to the border under `name`."""

    dtype = torch.float32  # host code stays fp32; a backend casts at the border

    def __init__(self, border: Border, name: str, network: Any) -> None:
        super().__init__()
        self.border = border
        self.name = name
        self.config = network.config

    @property
    def device(self) -> torch.device:
        return self.border.device

    def cross(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.border.call(self.name, *tensors)


class UNetStandIn(StandIn):
    def __init__(self, border: Border, name: str, network: Any) -> None:
        super().__init__(border, name, network)
        if getattr(network, "add_embedding", None) is not None:  # SDXL's pipeline checks this width in every call
            width = network.add_embedding.linear_1.in_features
            self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=width))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
        **ignored: Any,
    ) -> tuple[torch.Tensor]:
        added = () if added_cond_kwargs is None else (added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"])
        return (self.cross(sample, to_ticks(timestep, len(sample)), encoder_hidden_states, *added),)


class DiTStandIn(StandIn):
    """The network's null class is the embedding row after its last class, 1,000 only for ImageNet's classes."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor) -> SimpleNamespace:
        null_class = self.config.num_embeds_ada_norm
        if null_class != PIPELINE_NULL_CLASS:
            class_labels = torch.where(class_labels == PIPELINE_NULL_CLASS, null_class, class_labels)
        return SimpleNamespace(sample=self.cross(sample, to_ticks(timestep, len(sample)), class_labels))


class TextOutput(NamedTuple):
    """What a pipeline reads of a text encoder: `[0]`, and `hidden_states[-2]` in SDXL."""

    first: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] = ()


class TextEncoderStandIn(StandIn):
    def forward(self, input_ids: torch.Tensor, attention_mask: None = None) -> TextOutput:
        return TextOutput(self.cross(input_ids))


class PenultimateTextEncoderStandIn(StandIn):
    def forward(self, input_ids: torch.Tensor, output_hidden_states: bool = True) -> TextOutput:
        hidden = self.cross(input_ids)
        return TextOutput(hidden, hidden_states=(hidden, hidden))


class PooledTextEncoderStandIn(StandIn):
    def forward(self, input_ids: torch.Tensor, output_hidden_states: bool = True) -> TextOutput:
        hidden, pooled = split_pooled(self.cross(input_ids))
        return TextOutput(pooled, hidden_states=(hidden, hidden))


class VaeStandIn(StandIn):
    def decode(self, latents: torch.Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        image = self.cross(latents)
        return SimpleNamespace(sample=image) if return_dict else (image,)
