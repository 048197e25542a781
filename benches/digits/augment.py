"""Small random shifts, rotations, scalings and shears, which augment the 1,400 training scans.

python -c "from benches.digits import augment, data; help(augment.jitter)"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def jitter(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Return float images (N, C, 32, 32), positive ink on zero paper, each moved by its own random affine map.

    At strength 1 the uniform ranges are: rotation +-8.6 degrees, scale and shear +-10 %, shift +-1.6 pixels of 32.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    count = len(images)
    turn, wide, high, lean, right, down = (torch.rand(6, count, generator=generator) * 2 - 1) * strength * 0.1
    turn, wide, high = turn * 1.5, 1 + wide, 1 + high
    rows = (
        torch.stack([turn.cos() * wide, -turn.sin() * high + lean, right], dim=1),
        torch.stack([turn.sin() * wide, turn.cos() * high, down], dim=1),
    )
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (N, 32, 32, 2)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
