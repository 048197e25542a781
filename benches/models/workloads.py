"""What workloads of all models share: the timed batch, the seeds of its items, the identity of the work.

An image depends on its item's seed and prompt (or label) alone, not on the batch that contains it: each item has a
generator of its own on the CPU, for the initial latents and for the noise that some schedulers add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benches.models.weights import count
from harness.reasons import Reason
from harness.types import Case, Component, Forward, Quality, RequestError, Workload

SEEDS_PER_CASE = 1_000_000  # items of one case seed: two case seeds never share an image


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The input of one iteration of a generator: a prompt or a class label for each item, and each item's seed.

    The pipeline's own tensors (latents, embeddings) are made on `device`. Like a tensor, a batch has `to(device)`.
    """

    asked: tuple[Any, ...]
    seeds: tuple[int, ...]
    device: str = "cpu"

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, device=str(device))

    def generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]


def item_seeds(case: Case, number: int) -> tuple[int, ...]:
    """The seeds of a case's first items."""
    return tuple(case.seed * SEEDS_PER_CASE + item for item in range(number))


def batch_of(case: Case, asked: Sequence[Any]) -> Batch:
    """The timed batch: batch_size items with the prompts or labels of `asked` in turn."""
    repeated = tuple(asked[item % len(asked)] for item in range(case.batch_size))
    return Batch(asked=repeated, seeds=item_seeds(case, case.batch_size))


def facts(components: Sequence[Component], weights_hash: str) -> dict[str, Any]:
    """Work identity that holds for any model: sizes, shapes and calls of all networks, and the weights."""
    shapes = {c.name: [[list(t.shape), str(t.dtype).removeprefix("torch.")] for t in c.inputs] for c in components}
    return {
        "weights_hash": weights_hash,
        "parameters": {c.name: count(c.module) for c in components},
        "inputs": shapes,
        "calls": {c.name: c.calls for c in components},
    }


def classifier_workload(
    module: nn.Module,
    case: Case,
    images: torch.Tensor,
    weights_hash: str,
    identity: Mapping[str, Any] | None = None,
    quality: Quality | None = None,
    num_classes: int | None = None,
) -> Workload:
    """A workload of one forward: float32 images (N, C, H, W), N the batch size -> logits (N, num_classes).

    If `num_classes` is not given, the module's own attribute is used, which timm's modules have; ValueError if there is
    none. 0 means a module without its last layer: the output is features, in the shape that the module returns.
    """
    classes = num_classes if num_classes is not None else getattr(module, "num_classes", None)
    if classes is None:
        raise RequestError(Reason("no_num_classes", {"network": type(module).__name__}))
    module = module.eval().requires_grad_(False)
    shape = (int(classes),) if classes else _feature_shape(module, images)
    component = Component(name="classifier", module=module, inputs=(images,))

    @torch.no_grad()
    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        return forwards["classifier"](batch)

    return Workload(
        components=(component,),
        iterate=iterate,
        batch=images,
        output_shape=(case.batch_size, *shape),
        identity={**facts((component,), weights_hash), **(identity or {})},
        output_kind="logits" if classes else "features",
        quality=quality,
    )


@torch.no_grad()
def _feature_shape(module: nn.Module, images: torch.Tensor) -> tuple[int, ...]:
    """The shape of one image's features: (D,) if the module pools its tokens, (T, D) if it does not."""
    features: torch.Tensor = module(images[:1])
    return tuple(features.shape[1:])
