"""Train the autoencoder that both generators share: 32x32 images <-> 8x8 latents of unit variance.

The loss is the squared error of the decoded sample plus a small weight on the divergence from a unit normal, which
keeps the latents smooth. At the end, each channel's mean and deviation over the training scans are folded into the 1x1
convolutions before and after the latents, so that the pipelines' `scaling_factor` is 1.

    python -m benches.digits.train --only vae
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.digits import augment, data, models
from benches.digits.fitting import fit

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

BATCH = 32  # images
RATE = 2e-3
DIVERGENCE = 1e-3  # weight of the divergence, nats per latent value
STRENGTH = 1.0  # of the jitter; larger than that of the generators, so that training covers all of their latents
GENERATOR_STRENGTH = 0.35  # of the jitter for the generators, small enough to look like handwriting
VARIANTS = 8  # jittered copies of each scan, in addition to the scan itself


def fit_autoencoder(steps: int, seed: int) -> AutoencoderKL:
    """Return the autoencoder in eval mode, trained on the training split alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with models.seeded(seed):
        vae = models.build_vae()
    ink = data.load("train").images[:, :1].float() / 255.0  # (1400, 1, 32, 32)

    def loss_of_step() -> torch.Tensor:
        rows = torch.randint(len(ink), (BATCH,), generator=generator)
        images = augment.jitter(ink[rows], generator, STRENGTH).repeat(1, 3, 1, 1) * 2 - 1  # (32, 3, 32, 32)
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample
        error = (decoded - images).square().mean()
        return error + DIVERGENCE * posterior.kl().mean() / posterior.mean[0].numel()

    fit("vae", vae.parameters(), loss_of_step, steps=steps, rate=RATE, average=0.99)
    normalise(vae, ink)
    return vae.eval()


def normalise(vae: AutoencoderKL, ink: torch.Tensor) -> None:
    """Fold the latents' mean and deviation per channel into `quant_conv` and `post_quant_conv`.

    The deviation is that of sampled latents, because the means alone are near zero in a channel with little
    information.
    """
    import torch

    with torch.no_grad():
        posteriors = [vae.encode(part.repeat(1, 3, 1, 1) * 2 - 1).latent_dist for part in ink.split(100)]
    means = torch.cat([posterior.mean for posterior in posteriors])  # (N, 4, 8, 8)
    variances = torch.cat([posterior.var for posterior in posteriors])  # (N, 4, 8, 8)
    mean = means.mean(dim=(0, 2, 3))  # (4,)
    deviation = (means.var(dim=(0, 2, 3)) + variances.mean(dim=(0, 2, 3))).sqrt()  # (4,)
    channels = len(mean)
    into, out = vae.quant_conv, vae.post_quant_conv
    with torch.no_grad():
        into.weight[:channels] /= deviation.view(-1, 1, 1, 1)
        into.bias[:channels] = (into.bias[:channels] - mean) / deviation
        into.bias[channels:] -= 2 * deviation.log()  # the log variances
        out.bias += out.weight[:, :, 0, 0] @ mean
        out.weight *= deviation.view(1, -1, 1, 1)


def encode(vae: AutoencoderKL, ink: torch.Tensor) -> torch.Tensor:
    """Return the latents' means, float (N, 4, 8, 8), of images, float (N, 1, 32, 32) of 0 to 1."""
    import torch

    with torch.no_grad():
        parts = [vae.encode(part.repeat(1, 3, 1, 1) * 2 - 1).latent_dist.mean for part in ink.split(100)]
    return torch.cat(parts)


def training_latents(vae: AutoencoderKL, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the generators' training data: latents (12600, 4, 8, 8) of the scans and their variants, labels (12600,).

    With a `share` below 1 there are fewer variants, but at least one.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    digits = data.load("train")
    ink = digits.images[:, :1].float() / 255.0
    copies = max(1, round(VARIANTS * share))
    variants = [augment.jitter(ink, generator, GENERATOR_STRENGTH) for _ in range(copies)]
    return encode(vae, torch.cat([ink, *variants])), digits.labels.repeat(copies + 1)
