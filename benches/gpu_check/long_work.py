"""The model of the paired run: an iteration that keeps any GPU busy for more than 10 ms, in a process that starts fast.

A slow-down is planted by waiting for each iteration and then for a share of its time. Waiting costs about 0.02 ms,
because launches no longer run ahead. That is 0.2 % of such an iteration, and 10 % of an iteration of a small network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benches.gpu_check.features import features_workload
from harness.registry import MODELS
from harness.types import Case, Workload

if TYPE_CHECKING:
    import torch

WIDTH: Final = 4096
STEPS: Final = 64  # at a batch of 4096: 8.8 TFLOP, at least 10 ms on a GPU of up to 870 TFLOP/s


@MODELS.add(
    "check_long",
    family="check",
    description="64 products of one wide layer, for paired runs of GPU checks",
    axes={},
    libraries=(),
)
def check_long(case: Case) -> Workload:
    """Random features float32 (N, 4096) -> features (N, 8)."""
    return workload(case, WIDTH, STEPS)


def workload(case: Case, width: int, steps: int) -> Workload:
    """Features (N, width) -> (N, 8) by `steps` residual calls of one layer."""
    import torch

    torch.manual_seed(0)
    return features_workload(case, long_network(width, steps), width, 8, "random-0")


def long_network(width: int, steps: int) -> Any:
    """The module. The norm bounds the activations over the steps."""
    from torch import nn

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(steps):
                x = self.norm(x + self.layer(x))
            return self.head(x)

    return Long()
