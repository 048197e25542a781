"""A network goes to the device in the type in which it runs there, so that it need not fit there in a wider one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from build_request_fixture import build_request
from planted import workload
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.backends.eager import cast_all
from harness.devices import cuda
from harness.numerics import calibration
from harness.types import Case, Component, Workload

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 32
BASES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3": torch.bfloat16,
    "int8_static_bf16": torch.bfloat16,
    "int8_dynamic_fp16": torch.float16,
    "int8_weight_only_bf16": torch.bfloat16,
}


class Arrivals(TorchDispatchMode):
    """The dtypes of all tensors that are created on the meta device, which takes the place of a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type == "meta":
            self.dtypes.add(result.dtype)
        return result


def component() -> Component:
    module = nn.Sequential(nn.Linear(SIDE, SIDE), nn.BatchNorm1d(SIDE), nn.Linear(SIDE, SIDE)).eval()
    return Component(name="net", module=module.requires_grad_(False), inputs=(torch.randn(4, SIDE),))


@pytest.mark.parametrize("wanted", ["bf16", "fp16"])
def test_no_weight_arrives_on_the_device_in_fp32(wanted: str, tmp_path: Path) -> None:
    with Arrivals() as seen:
        cast_all([component()], build_request(tmp_path, precision=wanted, device="meta"))
    assert seen.dtypes == {BASES[wanted], torch.int64}, "the count of batches is an integer"


@pytest.mark.parametrize("wanted", BASES)
def test_whatever_moves_a_network_casts_it_too(wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration and observation move nothing again, and run in the base type."""
    moved: list[tuple[Any, ...]] = []
    real, net = nn.Module.to, component()

    def to(module: nn.Module, *wanted: Any, **named: Any) -> nn.Module:
        moved.append((*wanted, *named.values()))
        return real(module, *wanted, **named)

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr("harness.numerics.quantisation.quantise", lambda module, *_: module)
    ran: set[torch.dtype] = set()
    net.module.register_forward_pre_hook(lambda _module, inputs: ran.update(x.dtype for x in inputs))
    request = build_request(tmp_path, precision=wanted, calibration=lambda: calibration.recorded(around(net), "cpu"))
    cast_all([net], request)
    assert moved[0] == ("cpu", BASES[wanted])
    assert all(given == ("cpu",) for given in moved[1:]), "it is there by now"
    assert {p.dtype for p in net.module.parameters()} == {BASES[wanted]}
    assert ran == (set() if wanted in {"bf16", "fp16"} else {BASES[wanted]})


def around(net: Component) -> Workload:
    return workload(
        Case(model="m", batch_size=4),
        lambda forwards, batch: forwards["net"](batch),
        components=(net,),
        batch=net.inputs[0],
    )


def test_what_the_build_left_is_given_back_before_a_peak_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("gc.collect", lambda *_: done.append("collect"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: done.append("reset"))
    cuda.Cuda().reset_memory_peaks()
    assert done == ["collect", "empty", "reset"]
