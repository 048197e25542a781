"""The whole of Stable Diffusion 1 and 2: text encoder, U-Net and VAE in diffusers' own pipeline.

`weights` is "random" (the bundled configuration, nothing downloaded), "pretrained" (the hub repository) or a
`save_pretrained` folder. The safety checker is left out, because it does not belong to the generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from benches.models import architectures, folders
from benches.models.pipeline import PIPELINES, UNGUIDED, Network, Pipeline, denoiser, register, vae_decoder
from harness.reasons import Reason
from harness.registry import MODELS
from harness.types import Case, Quality, RequestError, Unavailable, Workload

if TYPE_CHECKING:
    import torch

    from benches.models.networks import Wrapped
    from benches.models.pipeline_border import StandIn
    from benches.models.pipelines import Asked
    from benches.models.truncation import Truncation
    from benches.models.workloads import Batch

NO_LIMIT = 10**9  # tokens: transformers gives 10**30 if tokenizer_config.json has no model_max_length
PROMPTS = (
    "a photograph of an astronaut riding a horse",
    "a red fox asleep in fresh snow, morning light",
    "an oil painting of a harbour at dusk, fishing boats",
    "a bowl of ripe oranges on a blue checked tablecloth",
)


class TextOutput(NamedTuple):
    """What a pipeline reads from a text encoder: `[0]`, and `hidden_states[-2]` in SDXL."""

    first: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] = ()


def text_encoder(self: Wrapped, input_ids: torch.Tensor) -> torch.Tensor:
    """Token ids int64 (N, T) -> the last hidden state (N, T, D)."""
    output: torch.Tensor = self.network(input_ids)[0]
    return output


def text_encoder_stand_in(self: StandIn, input_ids: torch.Tensor, attention_mask: None = None) -> TextOutput:
    return TextOutput(self.cross(input_ids))


def unet(
    self: Wrapped,
    sample: torch.Tensor,
    ticks: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    text_embeds: torch.Tensor | None = None,
    time_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """(N, C, h, w), ticks (N,), text (N, T, D) -> the prediction (N, C, h, w). SDXL: pooled text and sizes too."""
    added = None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}
    output: torch.Tensor = self.network(
        sample, self.timestep(ticks), encoder_hidden_states, added_cond_kwargs=added, return_dict=False
    )[0]
    return output


def unet_stand_in(
    self: StandIn,
    sample: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    added_cond_kwargs: dict[str, torch.Tensor] | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor]:
    added = () if added_cond_kwargs is None else (added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"])
    return (self.cross(sample, self.ticks(timestep, len(sample)), encoder_hidden_states, *added),)


def unet_inputs(asked: Asked) -> tuple[torch.Tensor, ...]:
    config, rows = asked.pipeline.unet.config, asked.rows
    text = asked.normal(rows, asked.pipeline.tokenizer.model_max_length, config.cross_attention_dim)
    inputs = (asked.latents(rows, config.in_channels), asked.ticks(rows), text)
    if config.addition_embed_type != "text_time":
        return inputs
    pooled = asked.normal(rows, asked.pipeline.text_encoder_2.config.projection_dim)
    return (*inputs, pooled, pooled.new_full((rows, 6), float(asked.case.image_size or 0)))


def unet_details(network: Any) -> dict[str, Any]:
    """SDXL's pipeline checks the width of the embedding of added conditions in every call."""
    if getattr(network, "add_embedding", None) is None:
        return {}
    width = network.add_embedding.linear_1.in_features
    return {"add_embedding": SimpleNamespace(linear_1=SimpleNamespace(in_features=width))}


def check_unet(asked: Asked) -> None:
    if asked.pipeline.unet.config.time_cond_proj_dim is not None:
        raise Unavailable(Reason("guidance_scale_as_input"))


def check(asked: Asked) -> None:
    """Raises RequestError for a tokenizer that exceeds its encoder's limit, Unavailable for a variant of the pipeline
    whose networks take more than text, latents and time."""
    truncations(asked)
    if getattr(asked.pipeline.text_encoder.config, "use_attention_mask", False):
        raise Unavailable(Reason("text_encoder_with_mask"))
    check_unet(asked)


def truncations(asked: Asked) -> tuple[Truncation, ...]:
    """What each of the pipeline's tokenizers cuts off the prompts. Raises RequestError if one exceeds its encoder's
    limit."""
    from benches.models import truncation

    found = []
    for name, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
        tokenizer = getattr(asked.pipeline, name, None)
        if tokenizer is None:
            continue
        positions = getattr(asked.pipeline, encoder).config.max_position_embeddings
        if tokenizer.model_max_length > NO_LIMIT:
            tokenizer.model_max_length = positions
        if tokenizer.model_max_length > positions:
            lengths = {"limit": tokenizer.model_max_length, "positions": positions}
            raise RequestError(Reason("tokenizer_too_long", {"tokenizer": name, "encoder": encoder, **lengths}))
        found.append(truncation.counted(name, tokenizer, asked.batch.asked))
    return tuple(found)


def facts(asked: Asked) -> dict[str, Any]:
    return {"truncation": {found.tokenizer: found.fact for found in truncations(asked)}}


def warnings(asked: Asked) -> tuple[Reason, ...]:
    return tuple(found.warning for found in truncations(asked) if found.warning)


def call(pipeline: Any, case: Case, batch: Batch) -> torch.Tensor:
    images: torch.Tensor = pipeline(
        prompt=list(batch.asked),
        height=case.image_size,
        width=case.image_size,
        num_inference_steps=case.num_steps,
        guidance_scale=case.guidance_scale,
        generator=batch.generators(),
        output_type="pt",
        return_dict=False,
    )[0]
    return images


UNET = denoiser(
    "unet",
    forward=unet,
    stand_in=unet_stand_in,
    inputs=unet_inputs,
    details=unet_details,
)
TEXT_ENCODER = Network(
    name="text_encoder",
    attribute="text_encoder",
    forward=text_encoder,
    stand_in=text_encoder_stand_in,
    inputs=lambda asked: (asked.ids(asked.pipeline.tokenizer),),
    calls=lambda asked: 2 if asked.is_guided else 1,
)
STABLE_DIFFUSION = register(
    Pipeline(
        diffusers_class="StableDiffusionPipeline",
        networks=(TEXT_ENCODER, UNET, vae_decoder()),
        call=call,
        check=check,
        facts=facts,
        warnings=warnings,
        left_out={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    )
)


def stable_diffusion_workload(
    pipeline: Any, case: Case, prompts: Sequence[str], weights_hash: str, quality: Quality | None = None
) -> Workload:
    """A workload of a `StableDiffusionPipeline` or `StableDiffusionXLPipeline` over `prompts` in turn. Raises what the
    `check` of its record raises."""
    from benches.models.pipelines import workload

    return workload(PIPELINES[type(pipeline).__name__], pipeline, case, prompts, weights_hash, quality)


def build(case: Case) -> Workload:
    """The workload of a text-to-image pipeline: `case.prompt` for every item, or `PROMPTS` in turn."""
    pipeline, weights_hash = architectures.load(case)
    prompts = PROMPTS if case.prompt is None else (case.prompt,)
    return stable_diffusion_workload(pipeline, case, prompts, weights_hash)


def add(name: str, description: str, image_size: int, guidance_scale: float) -> None:
    """Registers the model of the bundled architecture `name`."""
    MODELS.add(
        name,
        family="Stable Diffusion",
        description=description,
        axes={
            "image_size": image_size,
            "scheduler": "dpmpp_2m",
            "num_steps": 30,
            "guidance_scale": guidance_scale,
            "prompt": None,
        },
        weights=("random", "pretrained", "folder"),
        image_size_multiple=8,  # pixels per latent pixel, along one side
        parameters=architectures.parameters(name),
        folder_axes=folders.pipeline_axes,
        unguided_up_to=UNGUIDED,
    )(build)


add("sd15", "Stable Diffusion v1.5: CLIP ViT-L text encoder 123 M, U-Net 860 M, VAE 84 M", 512, 7.5)
add("sd21", "Stable Diffusion 2.1: OpenCLIP ViT-H text encoder 340 M, U-Net 866 M, VAE 84 M", 768, 7.5)
