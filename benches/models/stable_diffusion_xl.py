"""The whole of Stable Diffusion XL: two text encoders, U-Net and VAE in diffusers' own pipeline, without watermark."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benches.models import stable_diffusion as sd
from benches.models.pipeline import Network, Pipeline, register, vae_decoder
from benches.models.stable_diffusion import TextOutput
from harness.reasons import Reason
from harness.types import Unavailable

if TYPE_CHECKING:
    import torch

    from benches.models.networks import Wrapped
    from benches.models.pipeline_border import StandIn
    from benches.models.pipelines import Asked


def penultimate(self: Wrapped, input_ids: torch.Tensor) -> torch.Tensor:
    """Token ids int64 (N, T) -> the hidden state before the last layer (N, T, D)."""
    output: torch.Tensor = self.network(input_ids, output_hidden_states=True).hidden_states[-2]
    return output


def penultimate_stand_in(self: StandIn, input_ids: torch.Tensor, output_hidden_states: bool = True) -> TextOutput:
    hidden = self.cross(input_ids)
    return TextOutput(hidden, hidden_states=(hidden, hidden))


def pooled(self: Wrapped, input_ids: torch.Tensor) -> torch.Tensor:
    """Token ids int64 (N, T) -> (N, T + 1, D), two outputs in one tensor: rows 0 to T - 1 are the hidden state before
    the last layer, row T is the pooled projection, which in SDXL is as wide as a hidden state."""
    output = self.network(input_ids, output_hidden_states=True)
    return self.cat([output.hidden_states[-2], output[0][:, None]], dim=1)


def pooled_stand_in(self: StandIn, input_ids: torch.Tensor, output_hidden_states: bool = True) -> TextOutput:
    both = self.cross(input_ids)
    hidden, projection = both[:, :-1], both[:, -1]
    return TextOutput(projection, hidden_states=(hidden, hidden))


def encoder_calls(asked: Asked) -> int:
    """SDXL's pipeline uses zeros for the empty negative prompt, without a call of the text encoders."""
    return 2 if asked.is_guided and not asked.pipeline.config.force_zeros_for_empty_prompt else 1


def check(asked: Asked) -> None:
    """Raises RequestError for a tokenizer that exceeds its encoder's limit, Unavailable for networks of other
    shapes."""
    sd.truncations(asked)
    config = asked.pipeline.text_encoder_2.config
    if config.projection_dim != config.hidden_size:
        sizes = {"hidden": config.hidden_size, "projected": config.projection_dim}
        raise Unavailable(Reason("text_encoder_projects", {"encoder": "text_encoder_2", **sizes}))
    sd.check_unet(asked)


def upcasts(pipeline: Any) -> bool:
    """Whether the pipeline itself casts its whole VAE to fp32 to decode if the VAE is in fp16. Of these pipelines
    SDXL's alone reads `force_upcast`; the others decode in fp16, although their VAEs' configurations say the same."""
    return bool(pipeline.vae.config.force_upcast)


TEXT_ENCODER = Network(
    name="text_encoder",
    attribute="text_encoder",
    forward=penultimate,
    stand_in=penultimate_stand_in,
    inputs=lambda asked: (asked.ids(asked.pipeline.tokenizer),),
    calls=encoder_calls,
)
TEXT_ENCODER_2 = replace(
    TEXT_ENCODER,
    name="text_encoder_2",
    attribute="text_encoder_2",
    forward=pooled,
    stand_in=pooled_stand_in,
    inputs=lambda asked: (asked.ids(asked.pipeline.tokenizer_2),),
)
register(
    Pipeline(
        diffusers_class="StableDiffusionXLPipeline",
        networks=(TEXT_ENCODER, TEXT_ENCODER_2, sd.UNET, vae_decoder(force_upcast=upcasts)),
        call=sd.call,
        check=check,
        facts=sd.facts,
        warnings=sd.warnings,
        left_out={"add_watermarker": False},
    )
)
sd.add("sdxl", "Stable Diffusion XL base 1.0: text encoders 123 M and 695 M, U-Net 2.57 B, VAE 84 M", 1024, 5.0)
