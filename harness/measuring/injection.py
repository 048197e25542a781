"""Deliberate slow-downs, which test whether the gate detects them. A measurement stores them in its facts.

busy=0.05       after each iteration, a busy-wait of 5 % of the iteration's own duration
copy=1          one extra copy of all parameters in each iteration (a needless cast or clone)
tail=0.5        a busy-wait of 50 % of the duration in one iteration in ten, at random: the median does not change
startup=0.2     a busy-wait of 20 % of loading and building, once
busy=0.05@digits_vit*   only in the cases whose id matches the pattern
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from harness.backends import Build
from harness.timing import Timer
from harness.types import Workload

if TYPE_CHECKING:
    import torch

KINDS: Final = ("busy", "copy", "tail", "startup")
TAIL_SHARE: Final = 0.1  # at random: in a fixed rhythm, the slow iteration of each turn could always be a discarded one

Iterate = Callable[[Mapping[str, Any], Any], "torch.Tensor"]


class InjectionError(ValueError):
    """The kind of a slow-down is not one of KINDS, or its size is no number. `str()` is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Injection:
    kind: str
    size: float
    pattern: str = "*"

    def applies_to(self, case_id: str) -> bool:
        return fnmatchcase(case_id, self.pattern)


def parse(text: str) -> Injection:
    """`KIND=SIZE[@PATTERN]` as an injection. Raises InjectionError."""
    given, _, pattern = text.partition("@")
    kind, _, size = given.partition("=")
    if kind not in KINDS:
        raise InjectionError(f"unknown injection {kind!r}; known: {', '.join(KINDS)}")
    try:
        number = float(size)
    except ValueError:
        number = -1.0
    if not 0 < number < 100:
        raise InjectionError(f"injection {text!r}: the size must be a number above 0, as in {kind}=0.05")
    return Injection(kind=kind, size=number, pattern=pattern or "*")


def injected(
    texts: tuple[str, ...], case_id: str, workload: Workload, build: Build, load_s: float, timer: Timer
) -> tuple[Workload, Build]:
    """`workload` and `build` with the slow-downs that apply to this case; the facts name them."""
    active = [i for i in map(parse, texts) if i.applies_to(case_id)]
    for injection in active:
        if injection.kind == "startup":
            waited = busy_wait(timer, injection.size * (load_s + build.build_s + (build.capture_s or 0.0)))
            build = replace(build, build_s=build.build_s + waited)
        else:
            workload = replace(workload, iterate=_slowed(injection, workload, timer))
    if active:
        build = replace(build, facts={**build.facts, "injected": [f"{i.kind}={i.size:g}" for i in active]})
    return workload, build


def busy_wait(timer: Timer, seconds: float) -> float:
    """Keeps the core busy for `seconds` and returns how long it took."""
    start = now = timer.clock()
    while now - start < seconds:
        now = timer.clock()
    return now - start


def _slowed(injection: Injection, workload: Workload, timer: Timer) -> Iterate:
    if injection.kind == "copy":
        return _copying(workload, round(injection.size))
    random_numbers = random.Random(0)

    def iterate(forwards: Mapping[str, Any], batch: Any) -> torch.Tensor:
        output, seconds = timer.timed(lambda: workload.iterate(forwards, batch))
        if injection.kind == "busy" or random_numbers.random() < TAIL_SHARE:
            busy_wait(timer, injection.size * seconds)
        return output

    return iterate


def _copying(workload: Workload, times: int) -> Iterate:
    """Every iteration clones the parameters of all components `times` times."""
    parameters = [p for component in workload.components for p in component.module.parameters()]

    def iterate(forwards: Mapping[str, Any], batch: Any) -> torch.Tensor:
        for _ in range(times):
            for parameter in parameters:
                parameter.detach().clone()
        return workload.iterate(forwards, batch)

    return iterate
