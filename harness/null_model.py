"""The model `null`, which does no work: the time of its iteration is what imgbench and the backend themselves cost.

Its network multiplies a few values by the identity matrix. Less would not do: exporters remove a network that returns
its input, and a backend proves by a matrix product in which precision it runs. Each run measures it in every backend
that it uses (`harness.sweeping.overhead`), and a suite may name it like any other model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from harness.registry import MODELS
from harness.types import Case, Component, Forward, Workload

if TYPE_CHECKING:
    import torch

NAME: Final = "null"
SIZE: Final = 16  # values of an item: the least that the kernels of every precision take


@MODELS.add(
    NAME,
    family="null model",
    description=f"no work: multiplies {SIZE} values per item by the identity matrix. Its latency is imgbench's own",
    axes={},
    parameters=SIZE * SIZE,
    libraries=(),
)
def null(case: Case) -> Workload:
    """Random float32 values (N, SIZE), N the batch size -> the same values (N, SIZE)."""
    import torch

    batch = torch.randn(case.batch_size, SIZE)
    identity = torch.nn.Linear(SIZE, SIZE, bias=False).eval().requires_grad_(False)
    torch.nn.init.eye_(identity.weight)
    component = Component(name=NAME, module=identity, inputs=(batch,))

    @torch.no_grad()
    def iterate(forwards: Mapping[str, Forward], values: torch.Tensor) -> torch.Tensor:
        return forwards[NAME](values)

    return Workload(
        components=(component,),
        iterate=iterate,
        batch=batch,
        output_shape=(case.batch_size, SIZE),
        identity={
            "parameters": {NAME: SIZE * SIZE},
            "inputs": {NAME: [[[case.batch_size, SIZE], "float32"]]},
            "calls": {NAME: 1},
        },
        output_kind="features",
    )
