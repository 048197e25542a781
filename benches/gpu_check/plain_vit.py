"""ViTs made of torch's own layers: the models of the GPU check that need no model library.

`check_vit` has the size of ViT-B/16 (Dosovitskiy et al. 2020), with the mean over the patches in place of the class
token. `check_vit_tiny` is small, for processes that are started many times.
"""

from __future__ import annotations

from typing import Any

from harness.registry import MODELS
from harness.types import Case, Workload


@MODELS.add(
    "check_vit",
    family="check",
    description="ViT-B/16 of torch's own layers, for GPU checks without model libraries",
    axes={"image_size": 224},
    libraries=(),
)
def check_vit(case: Case) -> Workload:
    """Random images float32 (N, 3, 224, 224) -> logits (N, 1000)."""
    return workload(case, width=768, heads=12, depth=12)


@MODELS.add(
    "check_vit_tiny",
    family="check",
    description="a small ViT of torch's own layers, for GPU checks",
    axes={"image_size": 224},
    libraries=(),
)
def check_vit_tiny(case: Case) -> Workload:
    """Random images float32 (N, 3, 224, 224) -> logits (N, 1000), by four blocks of 192 channels."""
    return workload(case, width=192, heads=3, depth=4)


def workload(case: Case, width: int, heads: int, depth: int) -> Workload:
    import torch

    from benches.models.workloads import classifier_workload

    torch.manual_seed(0)
    images = torch.randn(case.batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(case.seed))
    return classifier_workload(plain_vit(width, heads, depth), case, images, "random-0", {"image_size": 224})


def plain_vit(width: int, heads: int, depth: int) -> Any:
    """The module: images (N, 3, 224, 224) -> logits (N, 1000)."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, t, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (n, heads, t, c)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
            x = x + self.proj(mixed)
            return x + self.mlp(self.norm2(x))

    class PlainViT(nn.Module):
        num_classes = 1000

        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 16, stride=16)
            self.positions = nn.Parameter(torch.randn(1, 196, width) * 0.02)
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.patches(images).flatten(2).transpose(1, 2) + self.positions  # (n, 196, width)
            return self.head(self.norm(self.blocks(x)).mean(dim=1))  # (n, 1000)

    return PlainViT()
