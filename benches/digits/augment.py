"""Augments the 1,400 training scans by small random shifts, rotations, scalings and shears.

python -c "from benches.digits import augment, data; help(augment.jitter)"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def jitter(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Return float images (N, C, 32, 32), each transformed by a random affine map of its own. Paper has the value 0.

    At strength 1 the ranges of the uniform draws are ±8.6 degrees of rotation, ±10 % of scale and shear, and ±1.6
    pixels (of 32) of shift.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    count = len(images)
    angle, width, height, shear, right, down = (torch.rand(6, count, generator=generator) * 2 - 1) * strength * 0.1
    angle, width, height = angle * 1.5, 1 + width, 1 + height
    rows = (
        torch.stack([angle.cos() * width, -angle.sin() * height + shear, right], dim=1),
        torch.stack([angle.sin() * width, angle.cos() * height, down], dim=1),
    )
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (N, 32, 32, 2)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
