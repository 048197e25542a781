"""Networks that must fail on a GPU, for the negative controls (`benches.gpu_check.controls`)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from benches.gpu_check.features import features_workload
from harness.types import Case, Workload

if TYPE_CHECKING:
    import torch

WIDTH: Final = 64
HUNGRY_WIDTH: Final = 2**16
HUNGRY_BATCH: Final = 2**14  # its activation has 2**30 elements: 4 GiB in fp32, and below TensorRT's limit of 2**31


def hungry(case: Case) -> Workload:
    """(N, 64) -> (N, 10) by a hidden layer of 65,536: 4 GiB of activation in fp32 at HUNGRY_BATCH. Two adjacent
    products only call cuBLAS, so inductor compiles no Triton kernel before the memory runs out."""
    from torch import nn

    return _workload(case, nn.Sequential(nn.Linear(WIDTH, HUNGRY_WIDTH), nn.Linear(HUNGRY_WIDTH, 10)))


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


def uncapturable(case: Case) -> Workload:
    """(N, 64) -> (N, 10), with one operator in the middle of the graph that inductor does not capture. It runs on the
    row's device, so that no code for the CPU is compiled, which would need a C++ compiler."""
    from torch import nn

    doubled = _doubled()

    class Uncapturable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(doubled(self.first(x)))

    return _workload(case, Uncapturable())


@functools.cache
def _doubled() -> Any:
    """An operator x -> 2 x with torch's tag for what must not be in a CUDA graph."""
    import torch

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x * 2.0

    # torch cannot infer the schema, because the annotations are strings in this module.
    operator = torch.library.custom_op(
        "imgbench_check::doubled",
        doubled,
        mutates_args=(),
        schema="(Tensor x) -> Tensor",
        tags=(torch.Tag.cudagraph_unsafe,),
    )
    operator.register_fake(torch.empty_like)
    return operator


def _workload(case: Case, module: Any) -> Workload:
    return features_workload(case, module, WIDTH, 10, "random")
