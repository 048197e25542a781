"""Stable Diffusion whole: text encoder(s), U-Net and VAE in diffusers' own pipeline.

`weights` is "random" (the bundled configuration, nothing downloaded), "pretrained" (the hub repository) or a
`save_pretrained` folder. The safety checker and the watermark are left out: they are no part of the generation.
"""

from __future__ import annotations

from typing import Any

from benches.models import architectures, folders
from harness.registry import MODELS
from harness.types import Case, Workload

UNGUIDED = 1.0  # up to this scale diffusers' pipelines run without guidance
PROMPTS = (
    "a photograph of an astronaut riding a horse",
    "a red fox asleep in fresh snow, morning light",
    "an oil painting of a harbour at dusk, fishing boats",
    "a bowl of ripe oranges on a blue checked tablecloth",
)


def build(case: Case) -> Workload:
    """The workload of a text-to-image pipeline: `case.prompt` for every item, or `PROMPTS` in turn."""
    from benches.models.pipelines import stable_diffusion_workload

    pipeline, weights_hash = load(case)
    prompts = PROMPTS if case.prompt is None else (case.prompt,)
    return stable_diffusion_workload(pipeline, case, prompts, weights_hash)


def load(case: Case) -> tuple[Any, str]:
    """The pipeline that `case.weights` names, and the weights' name; for any model with a bundled architecture."""
    import diffusers

    from benches.models.weights import RANDOM_SEED, load_pipeline

    if case.weights == "random":
        return architectures.random_pipeline(case.model), f"random-{RANDOM_SEED}"
    entry = architectures.read(case.model)
    options = architectures.pipeline_options(entry["pipeline"])
    return load_pipeline(getattr(diffusers, entry["pipeline"]), case.weights, entry["hub"], **options)


def _register(name: str, description: str, image_size: int, guidance_scale: float) -> None:
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
        image_size_multiple=8,  # pixels a latent pixel, along one side
        parameters=architectures.parameters(name),
        folder_axes=folders.pipeline_axes,
        unguided_up_to=UNGUIDED,
    )(build)


_register("sd15", "Stable Diffusion v1.5: CLIP ViT-L text encoder 123 M, U-Net 860 M, VAE 84 M", 512, 7.5)
_register("sd21", "Stable Diffusion 2.1: OpenCLIP ViT-H text encoder 340 M, U-Net 866 M, VAE 84 M", 768, 7.5)
_register("sdxl", "Stable Diffusion XL base 1.0: text encoders 123 M and 695 M, U-Net 2.57 B, VAE 84 M", 1024, 5.0)
