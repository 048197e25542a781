"""From a built diffusers pipeline to a workload whose iteration is the pipeline's own `__call__`.

    workload = stable_diffusion_workload(pipeline, case, prompts=["a cat"], weights_hash="random-0")
    forwards = {c.name: c.module for c in workload.components}
    images = workload.iterate(forwards, workload.batch)        # float32 (N, 3, H, W), 0 to 1

A copy of the pipeline runs: it holds stand-ins, the components own the networks, and its scheduler is replaced by the
case's, with the model's noise schedule. The original pipeline is not changed. The output stays a tensor: no
PIL, no progress bar, nothing written.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from benches.models import networks, truncation
from benches.models import pipeline_border as standins
from benches.models.stable_diffusion import UNGUIDED
from benches.models.workloads import Batch, batch_of, facts
from benches.schedulers import SCHEDULERS, build, settings_without_effect
from harness.types import Case, Component, Forward, Quality, Unavailable, Workload

EXAMPLE_TIMESTEP = 500  # of the 1,000 that all these models were trained on
NO_LIMIT = 10**9  # tokens: transformers gives 10**30 where tokenizer_config.json has no model_max_length


class _Part(NamedTuple):
    """A network of the pipeline: the attribute that holds it, what takes its place, what the backends get."""

    attribute: str
    stand_in: type[standins.StandIn]
    component: Component


def stable_diffusion_workload(
    pipeline: Any, case: Case, prompts: Sequence[str], weights_hash: str, quality: Quality | None = None
) -> Workload:
    """A workload of a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`. ValueError for a variant of them
    whose networks take more than text, latents and time."""
    pipeline = copy.copy(pipeline)
    batch = batch_of(case, prompts)
    cut = _cut(pipeline, batch)
    texts = _xl_texts if getattr(pipeline, "text_encoder_2", None) is not None else _texts
    parts = (*texts(pipeline, case, batch), _unet(pipeline, case), _decoder(pipeline, case))

    def call(batch: Batch) -> torch.Tensor:
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

    workload = _workload(pipeline, case, parts, call, batch, weights_hash, quality)
    return replace(
        workload,
        facts={**workload.facts, "truncation": {found.tokenizer: found.fact for found in cut}},
        warnings=(*workload.warnings, *(found.warning for found in cut if found.warning)),
    )


def dit_workload(
    pipeline: Any, case: Case, labels: Sequence[int], weights_hash: str, quality: Quality | None = None
) -> Workload:
    """A workload of a `DiTPipeline`. Raises Unavailable for a scheduler, ValueError for an image size or a
    label, that it cannot have."""
    if SCHEDULERS[str(case.scheduler)].scales_input:
        usable = ", ".join(name for name, entry in SCHEDULERS.items() if not entry.scales_input)
        raise Unavailable(
            f"DiTPipeline neither scales its first latents nor keeps the unscaled ones, which scheduler "
            f"{case.scheduler!r} needs; it can use {usable}"
        )
    pipeline = copy.copy(pipeline)
    side = pipeline.transformer.config.sample_size * _pixels_a_latent(pipeline.vae)
    if case.image_size != side:
        raise ValueError(
            f"image_size: these weights make images of {side} px, not {case.image_size} px (sample_size in "
            f"transformer/config.json): set image_size to {side}"
        )
    classes = pipeline.transformer.config.num_embeds_ada_norm
    if max(labels) >= classes:
        raise ValueError(
            f"label {max(labels)} is asked for, and these weights have the classes 0 to {classes - 1} "
            "(num_embeds_ada_norm in transformer/config.json): use weights of more classes"
        )
    if standins.PIPELINE_NULL_CLASS in labels:
        raise ValueError(f"label {standins.PIPELINE_NULL_CLASS} is DiTPipeline's null class: ask for another one")
    batch = batch_of(case, labels)
    parts = (_transformer(pipeline, case, batch), _decoder(pipeline, case))

    def call(batch: Batch) -> torch.Tensor:
        generators = batch.generators()
        # The guided half is stepped along and thrown away; its noise comes from the same generators.
        with _noise_from(pipeline.scheduler, generators * (_rows(case) // case.batch_size)):
            images: torch.Tensor = pipeline(
                class_labels=list(batch.asked),
                guidance_scale=case.guidance_scale,
                generator=generators,
                num_inference_steps=case.num_steps,
                output_type="pt",
                return_dict=False,
            )[0]
        return images

    workload = _workload(pipeline, case, parts, call, batch, weights_hash, quality)
    if classes == standins.PIPELINE_NULL_CLASS:
        return workload
    return replace(workload, identity={**workload.identity, "null_class": classes})


@contextlib.contextmanager
def _noise_from(scheduler: Any, generators: list[torch.Generator]) -> Iterator[None]:
    """DiTPipeline hands its scheduler no generator: added noise would come from the global one, for the whole batch."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        yield
        return
    scheduler.step = partial(scheduler.step, generator=generators)
    try:
        yield
    finally:
        del scheduler.step


def _cut(pipeline: Any, batch: Batch) -> tuple[truncation.Truncation, ...]:
    """What each of the pipeline's tokenizers cuts off the prompts. ValueError if one exceeds its encoder's limit."""
    found = []
    for name, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is None:
            continue
        positions = getattr(pipeline, encoder).config.max_position_embeddings
        if tokenizer.model_max_length > NO_LIMIT:
            tokenizer.model_max_length = positions
        if tokenizer.model_max_length > positions:
            raise ValueError(
                f"{name}/tokenizer_config.json: model_max_length is {tokenizer.model_max_length}, and "
                f"max_position_embeddings in {encoder}/config.json is {positions}: set model_max_length to {positions}"
            )
        found.append(truncation.counted(name, tokenizer, batch.asked))
    return tuple(found)


def _texts(pipeline: Any, case: Case, batch: Batch) -> tuple[_Part, ...]:
    encoder = pipeline.text_encoder
    if getattr(encoder.config, "use_attention_mask", False):
        raise Unavailable("a text encoder with use_attention_mask is not supported: its component takes ids only")
    component = Component(
        name="text_encoder",
        module=networks.TextEncoder(encoder),
        inputs=(_ids(pipeline.tokenizer, batch),),
        calls=2 if _is_guided(case) else 1,
    )
    return (_Part("text_encoder", standins.TextEncoderStandIn, component),)


def _xl_texts(pipeline: Any, case: Case, batch: Batch) -> tuple[_Part, ...]:
    config = pipeline.text_encoder_2.config
    if config.projection_dim != config.hidden_size:
        sizes = f"{config.hidden_size} to {config.projection_dim}"
        raise Unavailable(f"text_encoder_2 projects {sizes}; they must be equal")
    # SDXL's pipeline takes zeros for the empty negative prompt, without asking the text encoders.
    calls = 2 if _is_guided(case) and not pipeline.config.force_zeros_for_empty_prompt else 1
    first = Component(
        name="text_encoder",
        module=networks.PenultimateTextEncoder(pipeline.text_encoder),
        inputs=(_ids(pipeline.tokenizer, batch),),
        calls=calls,
    )
    second = Component(
        name="text_encoder_2",
        module=networks.PooledTextEncoder(pipeline.text_encoder_2),
        inputs=(_ids(pipeline.tokenizer_2, batch),),
        calls=calls,
    )
    return (
        _Part("text_encoder", standins.PenultimateTextEncoderStandIn, first),
        _Part("text_encoder_2", standins.PooledTextEncoderStandIn, second),
    )


def _unet(pipeline: Any, case: Case) -> _Part:
    config, rows = pipeline.unet.config, _rows(case)
    if config.time_cond_proj_dim is not None:
        raise Unavailable("a U-Net that takes the guidance scale as an input (time_cond_proj_dim) is not supported")
    sample = _latents(pipeline.vae, rows, config.in_channels, case)
    text = _normal(case, rows, pipeline.tokenizer.model_max_length, config.cross_attention_dim)
    inputs = [sample, _ticks(rows), text]
    if config.addition_embed_type == "text_time":
        pooled = _normal(case, rows, pipeline.text_encoder_2.config.projection_dim)
        inputs += [pooled, torch.full((rows, 6), float(case.image_size or 0))]
    return _denoiser("unet", standins.UNetStandIn, networks.UNet(pipeline.unet), inputs, case)


def _transformer(pipeline: Any, case: Case, batch: Batch) -> _Part:
    rows = _rows(case)
    sample = _latents(pipeline.vae, rows, pipeline.transformer.config.in_channels, case)
    labels = torch.tensor([batch.asked[item % case.batch_size] for item in range(rows)])
    inputs = [sample, _ticks(rows), labels]
    return _denoiser("transformer", standins.DiTStandIn, networks.DiT(pipeline.transformer), inputs, case)


def _denoiser(
    name: str, stand_in: type[standins.StandIn], module: nn.Module, inputs: list[torch.Tensor], case: Case
) -> _Part:
    calls = SCHEDULERS[str(case.scheduler)].evaluations(int(case.num_steps or 0))
    return _Part(name, stand_in, Component(name=name, module=module, inputs=tuple(inputs), calls=calls, repeated=True))


def _decoder(pipeline: Any, case: Case) -> _Part:
    vae = pipeline.vae
    latents = _latents(vae, case.batch_size, vae.config.latent_channels, case)
    component = Component(
        name="vae_decoder",
        module=networks.VaeDecoder(vae),
        inputs=(latents,),
        force_upcast=_upcasts(pipeline),
    )
    return _Part("vae", standins.VaeStandIn, component)


def _upcasts(pipeline: Any) -> bool:
    """Whether the pipeline itself casts its whole VAE to fp32 to decode, where the VAE is in fp16. Of these pipelines
    SDXL's alone reads `force_upcast`; the others decode in fp16, although their VAEs' configurations say the same."""
    from diffusers import StableDiffusionXLPipeline

    return isinstance(pipeline, StableDiffusionXLPipeline) and bool(pipeline.vae.config.force_upcast)


def _is_guided(case: Case) -> bool:
    return case.guidance_scale is not None and case.guidance_scale > UNGUIDED


def _rows(case: Case) -> int:
    """The denoiser's batch: guidance asks it about every item twice, with and without the condition."""
    return case.batch_size * (2 if _is_guided(case) else 1)


def _latents(vae: Any, rows: int, channels: int, case: Case) -> torch.Tensor:
    side = int(case.image_size or 0) // _pixels_a_latent(vae)
    return _normal(case, rows, channels, side, side)


def _normal(case: Case, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(case.seed))


def _pixels_a_latent(vae: Any) -> int:
    """Along one side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _ticks(rows: int) -> torch.Tensor:
    return networks.to_ticks(torch.tensor(EXAMPLE_TIMESTEP), rows)


def _ids(tokenizer: Any, batch: Batch) -> torch.Tensor:
    options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    ids: torch.Tensor = tokenizer(list(batch.asked), return_tensors="pt", **options).input_ids
    return ids


def _workload(
    pipeline: Any,
    case: Case,
    parts: Sequence[_Part],
    call: Callable[[Batch], torch.Tensor],
    batch: Batch,
    weights_hash: str,
    quality: Quality | None,
) -> Workload:
    """The workload that `call`s the pipeline, with a stand-in in the place of each part."""
    border = standins.Border()
    for part in parts:
        stand_in = part.stand_in(border, part.component.name, getattr(pipeline, part.attribute))
        setattr(pipeline, part.attribute, stand_in)
    name, own = str(case.scheduler), {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
    pipeline.scheduler = build(name, own)
    pipeline.scheduler.set_timesteps(case.num_steps)  # some classes change some of their settings here
    pipeline.set_progress_bar_config(disable=True)

    def iterate(forwards: Mapping[str, Forward], batch: Batch) -> torch.Tensor:
        with border.installed(forwards, torch.device(batch.device)):
            return call(batch)

    components = tuple(part.component for part in parts)
    return Workload(
        components=components,
        iterate=iterate,
        batch=batch,
        output_shape=(case.batch_size, 3, int(case.image_size or 0), int(case.image_size or 0)),
        identity={**facts(components, weights_hash), **_asked(pipeline, case, batch)},
        output_kind="images",
        quality=quality,
        warnings=tuple(
            f"schedule: {type(pipeline.scheduler).__name__} has no setting {setting}, so that {value!r}, which these "
            "weights ask for, has no effect"
            for setting, value in settings_without_effect(name, own).items()
        ),
    )


def _asked(pipeline: Any, case: Case, batch: Batch) -> dict[str, Any]:
    """Work identity of a pipeline: what is asked of it. The scheduler's settings are read back from the object that
    runs, after `set_timesteps`; private entries of its configuration (versions) stay out."""
    config = {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")}
    return {
        "pipeline": type(pipeline).__name__,
        "scheduler": {"class": type(pipeline.scheduler).__name__, "config": config},
        "num_steps": case.num_steps,
        "guidance_scale": case.guidance_scale,
        "image_size": case.image_size,
        "asked": list(batch.asked),
        "seeds": list(batch.seeds),
    }
