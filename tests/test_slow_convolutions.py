"""fp16 convolutions that a CPU cannot do in the row's time: seen, timed, refused before the row begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from build_request_fixture import build_request

from harness import slow_convolutions
from harness.backends import BuildRequest
from harness.registry import BACKENDS
from harness.slow_convolutions import Convolution
from harness.timing import Timer
from harness.types import Component, Protocol, Unsupported

CONVOLUTION = Convolution(
    images=(2, 3, 8, 8), weights=(32, 3, 3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1
)
DEPTHWISE = replace(CONVOLUTION, images=(2, 32, 8, 8), weights=(32, 1, 3, 3), padding="same", groups=32)


class Told(Timer):
    """A timer whose calls all take two seconds."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.shapes: list[tuple[int, ...]] = []

    def timed(self, call: Callable[[], Any]) -> tuple[Any, float]:
        result = call()
        self.shapes.append(tuple(getattr(result, "shape", ())))
        return result, 2.0


def component(calls: int = 1) -> Component:
    first, second = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.Conv2d(32, 32, 3, padding="same", groups=32)
    module = torch.nn.Sequential(first, second, second, torch.nn.Flatten(), torch.nn.Linear(32 * 64, 5))
    return Component(name="net", module=module.eval(), inputs=(torch.zeros(2, 3, 8, 8),), calls=calls)


def uncallable() -> Component:
    return Component(name="plain", module=torch.nn.Linear(4, 4), inputs=())


def test_every_call_of_a_convolution_is_seen_and_nothing_else_is_called() -> None:
    seen = component()
    assert list(slow_convolutions.convolutions_of(seen)) == [CONVOLUTION, DEPTHWISE, DEPTHWISE]
    assert not any(module._forward_pre_hooks for module in seen.module.modules())
    assert list(slow_convolutions.convolutions_of(uncallable())) == []


@pytest.mark.parametrize(("convolution", "computed", "seconds"), [(CONVOLUTION, 8, 8.0), (DEPTHWISE, 32, 2.0)])
def test_eight_channels_are_computed_and_the_rest_is_reckoned(
    convolution: Convolution, computed: int, seconds: float
) -> None:
    assert convolution.seconds_in_fp16(timer := Told()) == seconds
    assert timer.shapes == [(2, computed, 8, 8)]


def asked(folder: Path, limit_s: float, **changes: Any) -> BuildRequest:
    return build_request(folder, **{"precision": "fp16", "longest_iteration_s": limit_s, "timer": Told(), **changes})


def test_the_limit_is_of_a_whole_iteration(tmp_path: Path) -> None:
    one_s = 8.0 + 2 * 2.0
    slow_convolutions.check([component(), uncallable()], asked(tmp_path, one_s))
    slow_convolutions.check([component(calls=3)], asked(tmp_path, 3 * one_s, timer=(timer := Told())))
    assert len(timer.shapes) == 2  # what is the same is timed once
    with pytest.raises(Unsupported, match=r"one iteration would take more than 35\.9 s"):
        slow_convolutions.check([component(calls=3)], asked(tmp_path, 35.9))


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"precision": "fp32"}, {"device": "cuda"}])
def test_only_fp16_on_a_cpu_is_asked(tmp_path: Path, changes: dict[str, str]) -> None:
    slow_convolutions.check([component()], asked(tmp_path, 0.0, timer=(timer := Told()), **changes))
    assert timer.shapes == []


@pytest.mark.parametrize("backend", ["eager", "torch_compile"])
def test_the_torch_backends_ask_before_they_cast_and_begin_to_time(tmp_path: Path, backend: str) -> None:
    module = (unchanged := component()).module
    with pytest.raises(Unsupported, match="no fast fp16 convolutions"):
        BACKENDS[backend].build([unchanged], asked(tmp_path, 0.0))
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    built = BACKENDS["eager"].build([unchanged], asked(tmp_path, 1e9, timer=(timer := Told())))
    assert built.build_s == 2.0  # the casts alone
    assert {p.dtype for p in module.parameters()} == {torch.float16}
    assert timer.shapes[:2] == [(2, 8, 8, 8), (2, 32, 8, 8)]


def test_what_a_row_has_time_for() -> None:
    protocol = Protocol(timeout_s=120.0, warmup_min_iterations=1, min_samples=10)
    assert slow_convolutions.longest_iteration_s(protocol) == 10.0
