"""Train the two denoisers on latents: the class-conditional transformer, and the U-Net with its text encoder.

Both learn the velocity of v-prediction (T. Salimans, J. Ho, 2022) on the noise schedule of `models.SCHEDULER`. The
times of a batch are spread evenly over the schedule. One item in ten has the empty condition, for classifier-free
guidance.

    python -m benches.digits.train --only dit,sd
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from benches.digits import models, prompts
from benches.digits.fitting import fit

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DiTPipeline, StableDiffusionPipeline

BATCH = 64  # latents
RATE = 1e-3
EMPTY = 10  # the label of the empty condition in this module
EMPTY_SHARE = 0.1
NULL_ROW = 1000  # DiTPipeline's label of the empty condition


def fit_dit(vae: AutoencoderKL, latents: torch.Tensor, labels: torch.Tensor, steps: int, seed: int) -> DiTPipeline:
    """Return the class-conditional pipeline, trained on latents (N, 4, 8, 8) and labels (N,)."""
    import torch

    with models.seeded(seed):
        pipeline = models.build_dit("random")
        transformer = pipeline.transformer
        for block in transformer.transformer_blocks:  # each block begins as the identity, as in the DiT paper
            torch.nn.init.zeros_(block.norm1.linear.weight)
            torch.nn.init.zeros_(block.norm1.linear.bias)
        torch.nn.init.zeros_(transformer.proj_out_2.weight)
        torch.nn.init.zeros_(transformer.proj_out_2.bias)

        def predict(noisy: torch.Tensor, times: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
            rows = given.masked_fill(given == EMPTY, NULL_ROW)
            return transformer(noisy, timestep=times, class_labels=rows).sample

        fit_velocity("dit", transformer.parameters(), predict, latents, labels, steps, seed)
    with torch.no_grad():
        for block in transformer.transformer_blocks:  # unused rows are zero, which compresses well
            block.norm1.emb.class_embedder.embedding_table.weight[EMPTY:NULL_ROW] = 0.0
    pipeline.register_modules(vae=vae)
    return pipeline


def fit_sd(
    vae: AutoencoderKL, latents: torch.Tensor, labels: torch.Tensor, steps: int, seed: int
) -> StableDiffusionPipeline:
    """Return the text-to-image pipeline. Its U-Net and text encoder are trained together on the same latents."""
    import torch

    with models.seeded(seed):
        pipeline = models.build_sd("random")
        unet, text_encoder = pipeline.unet, pipeline.text_encoder
        choices = torch.Generator().manual_seed(seed)
        texts = [[prompts.prompt(digit, n) for digit in range(10)] + [""] for n in range(len(prompts.TEMPLATES))]
        tokens = torch.stack(
            [pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids for text in texts]
        )  # (6, 11, 77)

        def predict(noisy: torch.Tensor, times: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
            template = int(torch.randint(len(texts), (1,), generator=choices))
            states = text_encoder(tokens[template])[0]  # (11, 77, 64)
            return unet(noisy, times, states[given]).sample

        both = [*unet.parameters(), *text_encoder.parameters()]
        fit_velocity("sd", both, predict, latents, labels, steps, seed)
    pipeline.register_modules(vae=vae)
    return pipeline


def fit_velocity(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    predict: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    latents: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    seed: int,
) -> None:
    """Train `predict(noisy, times, labels)` to return the velocity sqrt(a) noise - sqrt(1 - a) latent, where a is the
    `alphas_cumprod` of the time."""
    import torch
    from diffusers import DDIMScheduler

    generator = torch.Generator().manual_seed(seed)
    alphas = DDIMScheduler(**models.SCHEDULER).alphas_cumprod  # (1000,)

    def loss_of_step() -> torch.Tensor:
        rows = torch.randint(len(latents), (BATCH,), generator=generator)
        spread = (torch.randperm(BATCH, generator=generator) + torch.rand(BATCH, generator=generator)) / BATCH
        times = (spread * len(alphas)).long().clamp(max=len(alphas) - 1)  # (64,)
        empty = torch.rand(BATCH, generator=generator) < EMPTY_SHARE
        clean, noise = latents[rows], torch.randn(latents[rows].shape, generator=generator)  # (64, 4, 8, 8)
        of_clean, of_noise = alphas[times].sqrt().view(-1, 1, 1, 1), (1 - alphas[times]).sqrt().view(-1, 1, 1, 1)
        velocity = of_clean * noise - of_noise * clean
        found = predict(of_clean * clean + of_noise * noise, times, labels[rows].masked_fill(empty, EMPTY))
        return (found - velocity).square().mean()

    fit(name, parameters, loss_of_step, steps=steps, rate=RATE)
