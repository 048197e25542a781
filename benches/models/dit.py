"""DiT, class-conditional latent diffusion with a transformer (Peebles, Xie 2022), in diffusers' DiTPipeline.

`weights` is "random" (the bundled configuration), "pretrained" (XL/2 alone is published in this format) or a
`save_pretrained` folder. diffusers' layout has an embedder in every block; random weights share one, as in the
original, so that the count is the published one (`share_embedder`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benches.models import architectures, folders
from benches.models.pipeline import UNGUIDED, Pipeline, denoiser, register, vae_decoder
from benches.schedulers import SCHEDULERS
from harness.reasons import Reason
from harness.registry import MODELS
from harness.types import Case, Quality, RequestError, Unavailable, Workload

if TYPE_CHECKING:
    import torch

    from benches.models.networks import Wrapped
    from benches.models.pipeline_border import StandIn
    from benches.models.pipelines import Asked
    from benches.models.workloads import Batch

LABELS = (207, 360, 387, 974, 88, 979, 417, 279)  # ImageNet classes, those of the original's sample script
NULL_CLASS = 1000  # what DiTPipeline passes for the unconditional half, whatever the network's classes


def transformer(self: Wrapped, sample: torch.Tensor, ticks: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w), ticks (N,), labels int64 (N,) -> the prediction (N, C or 2C, h, w)."""
    output: torch.Tensor = self.network(sample, self.timestep(ticks), class_labels, return_dict=False)[0]
    return output


def transformer_stand_in(
    self: StandIn, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor
) -> SimpleNamespace:
    """The network's null class is the embedding row after its last class, 1,000 only for ImageNet's classes."""
    null_class = self.config.num_embeds_ada_norm
    if null_class != NULL_CLASS:
        class_labels = class_labels.masked_fill(class_labels == NULL_CLASS, null_class)
    return SimpleNamespace(sample=self.cross(sample, self.ticks(timestep, len(sample)), class_labels))


def transformer_inputs(asked: Asked) -> tuple[torch.Tensor, ...]:
    import torch

    sample = asked.latents(asked.rows, asked.pipeline.transformer.config.in_channels)
    labels = torch.tensor([asked.batch.asked[item % asked.case.batch_size] for item in range(asked.rows)])
    return sample, asked.ticks(asked.rows), labels


def share_embedder(network: Any) -> None:
    """Gives a diffusers DiT the parameters of the published one.

    diffusers holds an embedder of timestep and class in every block (XL/2: 749.8 M parameters), filled with copies
    when it converts the published weights, which have one for all blocks (675.1 M). So random weights share one. The
    position table is a frozen parameter there and counts; in diffusers it is a buffer, so it becomes a parameter.
    The work is diffusers' own either way: every block embeds.
    """
    from torch.nn import Parameter

    first, *others = network.transformer_blocks
    for block in others:
        block.norm1.emb = first.norm1.emb
    table = network.pos_embed.pos_embed
    del network.pos_embed.pos_embed
    network.pos_embed.pos_embed = Parameter(table, requires_grad=False)


def check(asked: Asked) -> None:
    """Raises Unavailable for a scheduler, RequestError for an image size or a label, that the pipeline cannot have."""
    case, pipeline, labels = asked.case, asked.pipeline, asked.batch.asked
    if SCHEDULERS[str(case.scheduler)].scales_input:
        usable = [name for name, entry in SCHEDULERS.items() if not entry.scales_input]
        told = {"pipeline": "DiTPipeline", "scheduler": case.scheduler, "usable": usable}
        raise Unavailable(Reason("latents_not_scaled", told))
    side = pipeline.transformer.config.sample_size * asked.pixels_a_latent
    if case.image_size != side:
        raise RequestError(Reason("image_size_of_weights", {"wanted": case.image_size, "side": side}))
    classes = pipeline.transformer.config.num_embeds_ada_norm
    if max(labels) >= classes:
        raise RequestError(Reason("label_beyond_classes", {"label": max(labels), "classes": classes}))
    if NULL_CLASS in labels:
        raise RequestError(Reason("label_is_null_class", {"label": NULL_CLASS, "pipeline": "DiTPipeline"}))


def identity(asked: Asked) -> dict[str, int]:
    """The null class, if it is not the one that DiTPipeline passes."""
    classes = asked.pipeline.transformer.config.num_embeds_ada_norm
    return {} if classes == NULL_CLASS else {"null_class": classes}


def call(pipeline: Any, case: Case, batch: Batch) -> torch.Tensor:
    generators = batch.generators()
    guided = case.guidance_scale is not None and case.guidance_scale > UNGUIDED
    # The guided half is stepped too and then discarded; its noise comes from the same generators.
    with _noise_from(pipeline.scheduler, generators * (2 if guided else 1)):
        images: torch.Tensor = pipeline(
            class_labels=list(batch.asked),
            guidance_scale=case.guidance_scale,
            generator=generators,
            num_inference_steps=case.num_steps,
            output_type="pt",
            return_dict=False,
        )[0]
    return images


@contextlib.contextmanager
def _noise_from(scheduler: Any, generators: list[torch.Generator]) -> Iterator[None]:
    """Gives the scheduler the generators, which DiTPipeline does not. Its noise would else come from the global one."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        yield
        return
    scheduler.step = partial(scheduler.step, generator=generators)
    try:
        yield
    finally:
        del scheduler.step


TRANSFORMER = denoiser(
    "transformer",
    forward=transformer,
    stand_in=transformer_stand_in,
    inputs=transformer_inputs,
    network_class="DiTTransformer2DModel",
    as_published=share_embedder,
)
DIT = register(
    Pipeline(
        diffusers_class="DiTPipeline",
        networks=(TRANSFORMER, vae_decoder()),
        call=call,
        check=check,
        identity=identity,
    )
)


def dit_workload(
    pipeline: Any, case: Case, labels: Sequence[int], weights_hash: str, quality: Quality | None = None
) -> Workload:
    """A workload of a `DiTPipeline` over `labels` in turn. Raises what `check` raises."""
    from benches.models.pipelines import workload

    return workload(DIT, pipeline, case, labels, weights_hash, quality)


def build(case: Case) -> Workload:
    """The workload of a DiTPipeline over `LABELS` in turn, modulo the number of classes that its weights have."""
    pipeline, weights_hash = architectures.load(case)
    classes = pipeline.transformer.config.num_embeds_ada_norm
    return dit_workload(pipeline, case, [label % classes for label in LABELS], weights_hash)


def _register(name: str, size: str) -> None:
    published = architectures.read(name)["hub"] is not None
    count = architectures.read(name)["networks"]["transformer"]["parameters"]
    MODELS.add(
        name,
        family="DiT",
        description=f"{size}, 256 px: transformer {count / 1e6:,.1f} M, VAE 84 M",
        axes={"image_size": 256, "scheduler": "dpmpp_2m", "num_steps": 30, "guidance_scale": 4.0},
        weights=("random", "pretrained", "folder") if published else ("random", "folder"),
        parameters=architectures.parameters(name),
        folder_axes=folders.pipeline_axes,
        unguided_up_to=UNGUIDED,
    )(build)


_register("dit_s_2", "DiT-S/2")
_register("dit_b_2", "DiT-B/2")
_register("dit_l_2", "DiT-L/2")
_register("dit_xl_2", "DiT-XL/2")
