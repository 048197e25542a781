"""PyTorch as it is: the module's own forward, operator by operator. The reference for every other backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness import linear_use, precision, quantisation, share
from harness.backends import Build, BuildRequest
from harness.linear_use import Calls, Left, Observed
from harness.registry import BACKENDS
from harness.types import Component

if TYPE_CHECKING:
    import torch


@BACKENDS.add("eager")
class Eager:
    label = "PyTorch eager"
    description = "the module's own forward, operator by operator"

    def unavailable(self, wanted: str, device: str) -> str | None:
        return precision.unsupported_by_torch(wanted, device)

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Casts each module in place and moves it to the device; an offloaded one waits in the host's memory."""
        offload = next((name for name in request.optimizations if name.endswith("_cpu_offload")), None)
        where = "cpu" if offload else request.device
        cast, seconds = request.timer.timed(lambda: cast_all(components, replace(request, device=where)))
        modules, proof = cast.modules, read_back(cast, request.precision)
        if request.precision in quantisation.INT8_PRODUCTS:
            rows, other = quantisation.watch_rows(modules), proof["verify"]
            proof["verify"] = lambda: other() or quantisation.too_few_rows(rows)
        if offload:
            size = proof["disk_bytes"]()  # now: what waits in accelerate's hooks is no part of a state dict
            proof["disk_bytes"] = lambda: size
            offloaded(list(modules.values()), offload, request.device)
        return Build(
            forwards={
                c.name: precision.bordered(modules[c.name], request.of(c).precision, request.device) for c in components
            },
            build_s=seconds,
            cached=False,
            **proof,
        )


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Modules by component, changed in place; by component the linear layers left unquantised, with the reason; and the
    precision of the components that do not have the row's (`precision.upcast`)."""

    modules: Mapping[str, torch.nn.Module]
    left: Mapping[str, Mapping[str, Left]]
    upcast: Mapping[str, str] = field(default_factory=dict)


def cast_all(components: Sequence[Component], request: BuildRequest) -> Cast:
    """Every component's module, cast and on the device; for int8_static with ranges from real inputs."""
    wanted = precision.of_components(components, request.precision)
    seen = _seen(components, request)
    placed = {c.name: c.module.to(request.device) for c in components}
    left = {
        name: quantisation.left_out(placed[name], wanted[name], found.ranges, found.unfit)
        for name, found in seen.items()
    }
    modules = {n: precision.cast(m, wanted[n], seen[n].ranges, left[n]).eval() for n, m in placed.items()}
    return Cast(modules=modules, left=left, upcast=precision.upcast(components, request.precision))


def _seen(components: Sequence[Component], request: BuildRequest) -> dict[str, Observed]:
    """What calls of each network show about its linear layers. int8_static uses the calibration calls; the other
    quantised precisions use one call with the example inputs, or the calibration calls if that one does not reach every
    layer; all other precisions use none."""
    if request.precision not in precision.QUANTISED:
        return {c.name: Observed() for c in components}
    if request.precision != "int8_static":
        seen = {c.name: _observed(c, [c.inputs], request) for c in components}
        if not any(Left.NOT_REACHED in found.unfit.values() for found in seen.values()):
            return seen
    recorded = request.calibration().calls
    return {c.name: _observed(c, recorded[c.name], request) for c in components}


def _observed(component: Component, calls: Calls, request: BuildRequest) -> Observed:
    """What `calls` show, run on the device with copies of their inputs."""
    given = [tuple(x.to(request.device, copy=True) for x in call) for call in calls]
    return linear_use.observed(component.module.to(request.device).eval(), given)


def read_back(cast: Cast, wanted: str) -> dict[str, Any]:
    """`weights_bytes`, `disk_bytes`, facts, shares and the precision check for modules that torch itself runs."""
    weights = {name: precision.weights_of(module) for name, module in cast.modules.items()}
    by_precision: dict[str, Counter[str]] = {}
    for name, found in weights.items():
        by_precision.setdefault(cast.upcast.get(name, wanted), Counter()).update(found["elements_by_dtype"])
    elements = dict(sum(by_precision.values(), Counter()))
    facts: dict[str, Any] = {"elements_by_dtype": elements}
    shares: share.Shares = {}
    fault = next(filter(None, (precision.mismatch(dict(found), own) for own, found in by_precision.items())), None)
    if wanted in precision.QUANTISED:
        layers = {name: quantisation.census(module, cast.left[name]) for name, module in cast.modules.items()}
        facts["quantised_layers"] = {name: found.in_words() for name, found in layers.items()}
        fault = f"{fault}; linear layers quantised: {_listed(facts['quantised_layers'])}" if fault else None
        fault = fault or next(filter(None, (found.fault(name) for name, found in layers.items())), None)
        shares = {name: share.of_module(module) for name, module in cast.modules.items()}
    return {
        "weights_bytes": sum(found["bytes"] for found in weights.values()),
        "disk_bytes": lambda: sum(saved_bytes(module) for module in cast.modules.values()),
        "facts": facts,
        "verify": lambda: fault,
        "shares": shares,
    }


def _listed(by_network: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in by_network.items())


def offloaded(modules: Sequence[torch.nn.Module], how: str, device: str) -> None:
    """Hooks of accelerate, as diffusers sets them: "model_cpu_offload" moves a network to the device when it is called,
    and the one before back; "sequential_cpu_offload" does so layer by layer."""
    from accelerate import cpu_offload, cpu_offload_with_hook

    hook = None
    for module in modules:
        if how == "model_cpu_offload":
            _, hook = cpu_offload_with_hook(module, device, prev_module_hook=hook)
        else:
            cpu_offload(module, device, offload_buffers=bool(module._parameters))


class _Counter:
    """A file that only counts."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept."""


def saved_bytes(module: torch.nn.Module) -> int:
    """How large the file is that `torch.save(module.state_dict())` makes."""
    import torch

    counter = _Counter()
    with quantisation.quiet():
        torch.save(module.state_dict(), counter)  # type: ignore[arg-type]
    return counter.bytes
