"""A workload of one network from features to features, for the models of the GPU check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.types import Case, Component, Forward, Workload

if TYPE_CHECKING:
    import torch


def features_workload(case: Case, module: Any, width: int, outputs: int, weights: str) -> Workload:
    """Random features float32 (N, width) -> features (N, outputs) by `module`. `weights` names its weights."""
    import torch

    from benches.models.workloads import facts

    x = torch.randn(case.batch_size, width, generator=torch.Generator().manual_seed(case.seed))
    components = (Component(name="network", module=module.eval().requires_grad_(False), inputs=(x,)),)

    @torch.no_grad()
    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        return forwards["network"](batch)

    return Workload(
        components=components,
        iterate=iterate,
        batch=x,
        output_shape=(case.batch_size, outputs),
        identity=facts(components, weights),
        output_kind="features",
    )
