"""Networks that must fail on a GPU, for the negative controls (`benches.gpu_check.controls`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from harness.types import Case, Component, Forward, Workload

if TYPE_CHECKING:
    import torch

WIDTH: Final = 64
HUNGRY_WIDTH: Final = 2**16
HUNGRY_BATCH: Final = 2**14  # its activation has 2**30 elements: 4 GiB in fp32, and below TensorRT's limit of 2**31


def hungry(case: Case) -> Workload:
    """(N, 64) -> (N, 10) by a hidden layer of 65,536: 4 GiB of activation in fp32 at HUNGRY_BATCH."""
    from torch import nn

    return _workload(case, nn.Sequential(nn.Linear(WIDTH, HUNGRY_WIDTH), nn.GELU(), nn.Linear(HUNGRY_WIDTH, 10)))


def reads_back(case: Case) -> Workload:
    """(N, 64) -> (N, 10), scaled by a number that the host reads from the device in every call."""
    from torch import nn

    class ReadsBack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * (1.0 + abs(x.mean().item()))

    return _workload(case, ReadsBack())


def partly_on_the_host(case: Case) -> Workload:
    """(N, 64) -> (N, 10), with one step on the CPU in the middle of the graph."""
    from torch import nn

    class PartlyOnTheHost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x)
            return self.second((hidden.cpu() * 2.0).to(x.device) + hidden)

    return _workload(case, PartlyOnTheHost())


def _workload(case: Case, module: Any) -> Workload:
    import torch

    from benches.models.workloads import facts

    x = torch.randn(case.batch_size, WIDTH, generator=torch.Generator().manual_seed(case.seed))
    module = module.eval().requires_grad_(False)
    components = (Component(name="network", module=module, inputs=(x,)),)

    @torch.no_grad()
    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        return forwards["network"](batch)

    return Workload(
        components=components,
        iterate=iterate,
        batch=x,
        output_shape=(case.batch_size, 10),
        identity=facts(components, "random"),
        output_kind="features",
    )
