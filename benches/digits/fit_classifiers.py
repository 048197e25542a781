"""Train the classifier that is benchmarked, and the network whose features FID and KID compare.

python -m benches.digits.train --only vit,extractor
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from benches.digits import augment, data, models
from benches.digits.fitting import fit

if TYPE_CHECKING:
    import torch
    from timm.models import VisionTransformer

    from benches.digits.extractor import Network

BATCH = 64  # images
RATE = 1e-3
LABEL_SMOOTHING = 0.1  # of the classifier
RECONSTRUCTION_WEIGHT = 20.0  # of the squared error of the extractor's reconstruction; its cross-entropy has weight 1


def batch_of(digits: data.Digits, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return jittered images, float (64, 3, 32, 32) of -1 to 1, and their labels (64,)."""
    import torch

    rows = torch.randint(len(digits.labels), (BATCH,), generator=generator)
    ink = digits.images[rows, :1].float() / 255.0  # (64, 1, 32, 32)
    images = augment.jitter(ink, generator, strength=1.0).repeat(1, 3, 1, 1)
    return (images - models.MEAN) / models.STD, digits.labels[rows]


def fit_vit(steps: int, seed: int) -> VisionTransformer:
    """Return the classifier in eval mode, trained on the training split."""
    import torch
    from torch.nn.functional import cross_entropy

    digits, generator = data.load("train"), torch.Generator().manual_seed(seed)
    with models.seeded(seed):
        vit = models.build_vit("random").train()

        def loss_of_step() -> torch.Tensor:
            images, labels = batch_of(digits, generator)
            return cross_entropy(vit(images), labels, label_smoothing=LABEL_SMOOTHING)

        fit("vit", vit.parameters(), loss_of_step, steps=steps, rate=RATE, decay=0.05, average=0.99)
    return vit.eval()


def fit_extractor(steps: int, seed: int) -> Network:
    """Return the feature network in eval mode, trained on the training split."""
    import torch
    from torch.nn.functional import avg_pool2d, cross_entropy

    from benches.digits.extractor import Network

    digits, generator = data.load("train"), torch.Generator().manual_seed(seed)
    with models.seeded(seed):
        network = Network().train()

        def loss_of_step() -> torch.Tensor:
            images, labels = batch_of(digits, generator)
            features = network(images)  # (64, 48)
            scans = avg_pool2d(images[:, :1], 4).flatten(1) * models.STD + models.MEAN  # (64, 64) of 0 to 1
            error = (network.redraw(features) - scans).square().mean()
            return cross_entropy(network.classify(features), labels) + RECONSTRUCTION_WEIGHT * error

        fit("extractor", network.parameters(), loss_of_step, steps=steps, rate=RATE, average=0.99)
    standardise(network.eval(), digits)
    return network


def standardise(network: Network, digits: data.Digits) -> None:
    """Give each feature mean 0 and deviation 1 over `digits`, so that FID and KID weigh the features alike.

    The heads do not change, because only training uses them.
    """
    import torch

    last = cast("torch.nn.Linear", network.trunk[-1])
    with torch.no_grad():
        features = network(models.preprocess(digits.images))  # (N, 48)
        mean, deviation = features.mean(dim=0), features.std(dim=0)  # (48,), (48,)
        last.bias.copy_((last.bias - mean) / deviation)
        last.weight /= deviation[:, None]
