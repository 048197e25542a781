"""Offloading by accelerate's own hooks: which network moves when, on a stand-in for a GPU (the meta device)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from build_request_fixture import build_request
from torch import nn

from harness.backends.eager import Eager, cast_all, execution_device, offloaded
from harness.numerics import optimizations
from harness.numerics.calibration import Recorded
from harness.numerics.optimizations import OPTIMIZATIONS, Optimization
from harness.processes import measure
from harness.types import Component

GPU = torch.device("meta")


class Network(nn.Module):
    """A network that records where it is moved. The meta device keeps no weights, so the weight is restored on the way
    back."""

    def __init__(self, name: str, moves: list[str]) -> None:
        super().__init__()
        self.name, self.moves, self.weight = name, moves, nn.Parameter(torch.ones(3))

    def to(self, device: Any) -> Network:  # type: ignore[override]
        self.moves.append(f"{self.name} to {torch.device(device)}")
        self.weight = nn.Parameter(torch.ones(3, device=device))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_network_moves_once_for_its_turn_and_the_last_one_leaves_after_the_image() -> None:
    moves: list[str] = []
    text, unet, vae = networks = [Network(name, moves) for name in ("text", "unet", "vae")]
    free = offloaded(networks, "networks", GPU)
    moves.clear()
    for image in range(2):
        for network in (text, unet, unet, unet, vae):
            network(torch.ones(1))
        assert [m for m in moves if m.endswith("meta")] == ["text to meta", "unet to meta", "vae to meta"], image
        assert [m for m in moves if m.endswith("cpu")] == ["text to cpu", "unet to cpu"]
        free()
        assert {network.weight.device.type for network in networks} == {"cpu"}
        moves.clear()


def test_the_device_has_its_number_as_parameters_have() -> None:
    assert execution_device("cuda") == torch.device("cuda", 0) != torch.device("cuda")
    assert execution_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("how", ["model_cpu_offload", "sequential_cpu_offload"])
def test_a_build_says_what_follows_an_iteration_and_the_row_calls_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    module = nn.Linear(4, 4)
    x = torch.randn(2, 4)
    build = Eager().build(
        [Component(name="net", module=module, inputs=(x,))], build_request(tmp_path, optimizations=(how,))
    )
    monkeypatch.setattr(type(module), "to", lambda self, device: moved.append(str(device)) or self)
    iterate = measure._finished(lambda forwards, batch: forwards["net"](batch), build)
    with torch.no_grad():
        iterate(build.forwards, x)
    assert moved == (["cpu"] if how == "model_cpu_offload" else []), "the device here is the CPU: it is there already"


class Routed(nn.Module):
    """Two layers, of which a call takes one. Writes down where it was moved last, and is called there."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.where = nn.Linear(16, 16), nn.Linear(16, 16), "cpu"

    def to(self, device: str, dtype: torch.dtype | None = None) -> Routed:  # type: ignore[override]
        self.where = device
        return super().to(dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.where == x.device.type, f"inputs on {x.device}, weights on {self.where}"
        return self.high(x) if float(x.mean()) > 0.5 else self.low(x)


def test_a_network_that_was_calibrated_on_the_gpu_waits_on_the_host_again(tmp_path: Path) -> None:
    """The example does not reach every layer, so that the calibration calls are asked for, on the row's device."""
    module, example = Routed(), torch.zeros(2, 16)

    def calibrated() -> Recorded:
        module.to("cuda")
        return Recorded(calls={"net": [(example,), (example + 1,)]}, source="planted")

    request = build_request(tmp_path, precision="int8_weight_only", calibration=calibrated)
    cast = cast_all([Component(name="net", module=module, inputs=(example,))], request)
    assert module.where == "cpu"
    assert cast.left == {"net": {}}


def test_without_offloading_nothing_follows_an_iteration(tmp_path: Path) -> None:
    build = Eager().build([Component(name="net", module=nn.Linear(4, 4), inputs=())], build_request(tmp_path))

    def iterate(forwards: Any, batch: Any) -> Any:
        return batch

    assert measure._finished(iterate, build) is iterate


@pytest.mark.usefixtures("registries")
def test_a_name_alone_offloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record decides, whatever the optimisation is called."""
    named = Optimization(label="l", description="d", group="g")
    for name, record in (("my_cpu_offload", named), ("mine", replace(named, offload="layers"))):
        monkeypatch.setitem(OPTIMIZATIONS._entries, name, record)
    assert optimizations.offload(("my_cpu_offload",)) is None
    assert optimizations.offload(("my_cpu_offload", "mine")) == "layers"
    module = nn.Linear(4, 4)
    component = Component(name="net", module=module, inputs=(torch.ones(1, 4),))
    build = Eager().build([component], build_request(tmp_path, optimizations=("my_cpu_offload",)))
    assert build.after_iteration is None
    assert {p.device.type for p in module.parameters()} == {"cpu"}
