"""A plugin of tiny networks that keep something: between calls, between builds, or between processes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import planted
import torch

from harness.types import Case, Component, Forward, Workload


def register(name: str, make: Callable[[], torch.nn.Module]) -> None:
    @planted.add(name)
    def build(case: Case) -> Workload:
        torch.manual_seed(0)
        images = torch.randn(case.batch_size, 3, planted.SIZE, planted.SIZE) * 100
        component = Component(name="classifier", module=make().eval(), inputs=(images,))
        return planted.workload(case, components=(component,), batch=images)


class Fresh(planted.Mean):
    """A network whose parameters depend on nothing but the seed."""

    def __init__(self, seed: int = 1) -> None:
        torch.manual_seed(seed)
        super().__init__()


KEPT = Fresh()


class Uncopyable(Fresh):
    """A network that does not let itself be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.events = (event for event in ())  # a generator cannot be copied


UNCOPYABLE = Uncopyable()


class WritesInput(Fresh):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images.div_(2.0)
        return super().forward(images)


class WritesInputLater(Fresh):
    """The first call leaves its input as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.called = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.called:
            images.mul_(1.0001)
        self.called = True
        return super().forward(images)


class Counts(Fresh):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(images) * (1 + 0.01 * self.calls)


class DropsOut(Fresh):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(images), 0.5, training=True)


class Jitters(Fresh):
    """Random in the last digits, as kernels are that add up in any order."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(images)
        return outputs * (1 + 1e-6 * torch.rand_like(outputs))


class Learns(Fresh):
    """A network that changes its weights, and not its output."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(images)
        self.head.weight.data.mul_(1.0)
        self.unused.data.add_(1.0)
        return outputs

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(3), requires_grad=False)


class SetsThreads(Fresh):
    """A network that asks for one thread more than the process has, once."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = torch.get_num_threads() + 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(self.threads)
        return super().forward(images)


class DoubleDefault(Fresh):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(images)
        torch.set_default_dtype(torch.float64)
        return outputs


class OfProcess(Fresh):
    """The same weights in each process, and another output."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1 + os.getpid() % 211 * 4e-5

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.factor


class Scaled(Fresh):
    """Equal parameters; what differs is a plain attribute."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.factor


class Wrapped(torch.nn.Module):
    """A new module round a layer that is kept and does not let itself be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = UNCOPYABLE_INNER

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images)


UNCOPYABLE_INNER = Uncopyable()


class CopiesToItself(Fresh):
    def __deepcopy__(self, memo: Any) -> CopiesToItself:
        return self


COPIES_TO_ITSELF = CopiesToItself()


def patched() -> torch.nn.Module:
    """A network whose forward is a function that closes over it, as monkey patches are."""
    module = Fresh()
    plain = module.forward
    module.forward = lambda images: plain(images)  # type: ignore[method-assign]
    return module


class MediumProducts(Fresh):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.set_float32_matmul_precision("medium")
        return super().forward(images)


class SwitchesAutocast(Fresh):
    def __init__(self) -> None:
        super().__init__()
        torch.set_autocast_enabled("cpu", True)


class Cache(Fresh):
    """A buffer of no value before the first call, which is no part of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.empty(4, 33).uniform_() if os.getpid() % 2 else torch.empty(4, 33), False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.cache.zero_()
        return super().forward(images) + self.cache[:, :1]


@functools.cache
def cached() -> torch.nn.Module:
    return Fresh()


MADE: dict[str, Callable[[], Any]] = {
    "planted_fresh": Fresh,
    "planted_cached": cached,
    "planted_global": lambda: KEPT,
    "planted_uncopyable": lambda: UNCOPYABLE,
    "planted_wrapped": Wrapped,
    "planted_copies_to_itself": lambda: COPIES_TO_ITSELF,
    "planted_patched": patched,
    "planted_medium_products": MediumProducts,
    "planted_autocast": SwitchesAutocast,
    "planted_cache": Cache,
    "planted_writes_input": WritesInput,
    "planted_writes_input_later": WritesInputLater,
    "planted_counts": Counts,
    "planted_drops_out": DropsOut,
    "planted_jitters": Jitters,
    "planted_learns": Learns,
    "planted_of_process": OfProcess,
    "planted_threads": SetsThreads,
    "planted_double_default": DoubleDefault,
    "planted_weights_of_process": lambda: Fresh(os.getpid()),
}
for _name, _make in MADE.items():
    register(_name, _make)


@planted.add("planted_by_seed")
def by_seed(case: Case) -> Workload:
    """Other weights for each seed, under one name that the plugin gives them."""
    images = torch.randn(case.batch_size, 3, planted.SIZE, planted.SIZE, generator=torch.Generator().manual_seed(0))
    component = Component(name="classifier", module=Fresh(case.seed).eval(), inputs=(images,))
    return planted.workload(case, components=(component,), batch=images)


@planted.add("planted_scaled_by_seed")
def scaled_by_seed(case: Case) -> Workload:
    """The same weights for each seed, and another network."""
    images = torch.randn(case.batch_size, 3, planted.SIZE, planted.SIZE, generator=torch.Generator().manual_seed(0))
    component = Component(name="classifier", module=Scaled(1.0 + case.seed).eval(), inputs=(images,))
    return planted.workload(case, components=(component,), batch=images)


SCALE = 1.0


class ScaledByModule(Fresh):
    """What its forward computes depends on a number of the module, which no attribute shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * SCALE


@planted.add("planted_scaled_by_global")
def scaled_by_global(case: Case) -> Workload:
    global SCALE
    SCALE = 1.0 + case.seed
    images = torch.randn(case.batch_size, 3, planted.SIZE, planted.SIZE, generator=torch.Generator().manual_seed(0))
    component = Component(name="classifier", module=ScaledByModule().eval(), inputs=(images,))
    return planted.workload(case, components=(component,), batch=images)


class Halves(Fresh):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.mul_(0.5))


@planted.add("planted_calls_thrice")
def calls_thrice(case: Case) -> Workload:
    """Three calls an iteration, of a network that writes into its input."""
    images = torch.randn(case.batch_size, 3, planted.SIZE, planted.SIZE, generator=torch.Generator().manual_seed(0))
    component = Component(name="classifier", module=Halves().eval(), inputs=(images,), calls=3)

    def iterate(forwards: Mapping[str, Forward], batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([forwards["classifier"](batch) for _ in range(3)]).mean(dim=0)

    return planted.workload(case, iterate, components=(component,), batch=images)


class Batch:
    """A batch of a plain class."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def to(self, device: str) -> Batch:
        return self


@planted.add("planted_plain_batch")
def plain_batch(case: Case) -> Workload:
    """The iteration itself writes into its batch."""
    images = torch.randn(case.batch_size, 3, planted.SIZE, planted.SIZE, generator=torch.Generator().manual_seed(0))
    component = Component(name="classifier", module=Fresh().eval(), inputs=(images,))

    def iterate(forwards: Mapping[str, Forward], batch: Batch) -> torch.Tensor:
        return forwards["classifier"](batch.images.add_(0.0001))

    return planted.workload(case, iterate, components=(component,), batch=Batch(images))
