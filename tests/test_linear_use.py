"""Which linear layers are quantised: the same ones in every precision, and each that is left has its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.numerics import linear_use, precision, quantisation, share
from harness.numerics.calibration import Recorded
from harness.numerics.linear_use import Left, Range

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 32
PRECISIONS = ("int8_dynamic", "int8_dynamic_classic", "int8_static", "int8_weight_only")


class Bypassed(nn.Module):
    """Multiplies by its layer's weight without calling the layer, as BEiT's and EVA's attention do."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(functional.linear(x, weight=self.qkv.weight))


class Fused(Bypassed):
    """Calls its layer, and reads its weight for another product as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.qkv(x) + x @ torch.cat([self.qkv.weight, self.qkv.weight])[:SIDE])


class DtypeOnly(Bypassed):
    """Asks its layer's weight for its type, as transformers does, and passes the input by keyword."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.qkv(input=x.to(self.qkv.weight.dtype)))


class Turned(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight * 2)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


class Branch(Bypassed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(SIDE, 2, 64, batch_first=True), 2)


MADE: dict[str, tuple[Callable[[], nn.Module], int, dict[str, Left]]] = {
    "plain": (lambda: nn.Sequential(nn.Linear(SIDE, SIDE)), 1, {}),
    "a network that is one layer": (lambda: nn.Linear(SIDE, SIDE), 1, {}),
    "a weight that two layers share": (Tied, 2, {}),
    "attention": (encoder, 4, {f"layers.{i}.self_attn.out_proj": Left.ATTENTION for i in range(2)}),
    "bypassed": (Bypassed, 1, {"qkv": Left.BYPASSED}),
    "called, and read as well": (Fused, 1, {"qkv": Left.OTHERWISE}),
    "multiplied in its own way": (lambda: nn.Sequential(Turned(SIDE, SIDE)), 0, {"0": Left.OTHERWISE}),
    "scaled in every call": (lambda: nn.Sequential(Scaled(SIDE, SIDE)), 0, {"0": Left.OTHERWISE}),
    "never reached": (Branch, 1, {"qkv": Left.NOT_REACHED}),
    "weight_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(SIDE, SIDE))), 0, {"0": Left.COMPUTED},
    ),
    "spectral_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(SIDE, SIDE))), 0, {"0": Left.COMPUTED},
    ),
    "spectral_norm by a hook": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(SIDE, SIDE))), 0, {"0": Left.COMPUTED},
    ),
}  # fmt: skip


def tokens() -> torch.Tensor:
    return torch.randn(2, 5, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("wanted", PRECISIONS)
@pytest.mark.parametrize("name", MADE)
def test_one_rule_for_every_precision(name: str, wanted: str) -> None:
    make, quantised, left = MADE[name]
    torch.manual_seed(0)
    module, x = make().eval().requires_grad_(False), tokens()
    expected = module(x)
    seen = linear_use.observed(module, [(x,)])
    found = quantisation.left_out(module, wanted, seen.ranges, seen.unfit)
    assert found == left
    cast = precision.cast(module, wanted, seen.ranges, found)
    census = quantisation.census(cast, found)
    assert (len(census.quantised), census.fault("net")) == (quantised, None)
    assert (share.of_module(cast).quantised > 0) == (quantised > 0)
    with torch.no_grad():
        output = cast(x)
    assert float(functional.cosine_similarity(output, expected, dim=-1).min()) > 0.99
    assert torch.equal(output, expected) == (quantised == 0), "int8 by name only"


def test_a_weight_that_is_only_asked_for_its_type_is_quantised() -> None:
    module = DtypeOnly().eval()
    seen = linear_use.observed(module, [(tokens(),)])
    assert seen.unfit == {}
    assert seen.ranges["qkv"] == Range(largest=float(tokens().abs().max()), ndim=3, rows=10)
    assert not any(layer._forward_pre_hooks for layer in module.modules())


class Routed(nn.Module):
    """Two layers, of which a call takes one: its example input takes the first."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.high(x) if float(x.mean()) > 0.5 else self.low(x)


@pytest.mark.parametrize("wanted", ["int8_dynamic", "int8_weight_only", "int8_static"])
def test_a_layer_that_the_example_does_not_reach_is_looked_for_in_real_calls(wanted: str) -> None:
    from build_request_fixture import build_request

    from harness.backends.eager import cast_all
    from harness.types import Component

    example = torch.zeros(2, SIDE)
    recorded = Recorded(calls={"net": [(example,), (example + 1,)]}, source="planted")
    request: Any = build_request(None, precision=wanted, calibration=lambda: recorded)  # type: ignore[arg-type]
    cast = cast_all([Component(name="net", module=Routed(), inputs=(example,))], request)
    assert cast.left == {"net": {}}


def test_eager_looks_at_a_copy_of_the_example_inputs() -> None:
    """A network that writes into its input must not change what the row is measured on."""
    from build_request_fixture import build_request

    from harness.backends.eager import cast_all
    from harness.types import Component

    class InPlace(Branch):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mul_(2))

    x = tokens()
    recorded = Recorded(calls={"net": [(tokens(),)]}, source="planted")
    request: Any = build_request(None, precision="int8_dynamic", calibration=lambda: recorded)  # type: ignore[arg-type]
    cast_all([Component(name="net", module=InPlace(), inputs=(x,))], request)
    assert torch.equal(x, tokens())


def test_nothing_is_observed_where_nothing_is_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    from build_request_fixture import build_request

    from harness.backends.eager import cast_all
    from harness.types import Component

    monkeypatch.setattr(linear_use, "observed", lambda *_: pytest.fail("a call of a network that is only cast"))
    component = Component(name="net", module=Branch(), inputs=())
    request: Any = build_request(None, precision="bf16")  # type: ignore[arg-type]
    assert cast_all([component], request).left == {"net": {}}
