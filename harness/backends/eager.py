"""PyTorch as it is: the module's own forward, operator by operator. The reference for every other backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness import devices
from harness.backends import Build, BuildRequest
from harness.numerics import linear_use, optimizations, precision, quantisation, share
from harness.numerics.linear_use import Calls, Left, Observed
from harness.numerics.optimizations import EACH_CALL, GRAD_MODE, MODULE, Offload
from harness.reasons import Reason
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Component

if TYPE_CHECKING:
    import torch


@BACKENDS.add("eager")
class Eager:
    label = "PyTorch eager"
    description = "the module's own forward, operator by operator"
    precisions: ClassVar[Collection[str]] = PRECISIONS
    features: ClassVar[frozenset[str]] = frozenset({MODULE, EACH_CALL, GRAD_MODE})
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    colour: ClassVar[str] = "#2f7ec7"

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        if reason := precision.unsupported_by_torch(wanted, device):
            return reason
        if devices.is_gpu(device) and precision.waits_for_gpu(wanted):
            return Reason("waits_for_gpu", {"precision": wanted})
        return None

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Casts each module in place and moves it to the device; an offloaded one stays in host memory."""
        offload = optimizations.offload(request.optimizations)
        where = "cpu" if offload else request.device
        cast, seconds = request.timer.timed(lambda: cast_all(components, replace(request, device=where)))
        modules, proof = cast.modules, read_back(cast, request.precision)
        if offload:
            size = proof["disk_bytes"]()  # now, because a state dict lacks what accelerate's hooks hold
            proof["disk_bytes"] = lambda: size
            proof["after_iteration"] = offloaded(list(modules.values()), offload, execution_device(request.device))
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
    """Modules by component, changed in place. `left` holds by component the linear layers left unquantised, with the
    reasons. `upcast` gives the precision of each component that does not run in the row's (`precision.upcast`)."""

    modules: Mapping[str, torch.nn.Module]
    left: Mapping[str, Mapping[str, Reason]]
    upcast: Mapping[str, str] = field(default_factory=dict)


def cast_all(components: Sequence[Component], request: BuildRequest) -> Cast:
    """Every component's module, cast and on the device; with ranges from real inputs if the precision is calibrated.

    A network is moved to the device in its base type, and it is observed and calibrated in that type. A network that
    fits on the GPU only in fp16 therefore never has to fit there in fp32.
    """
    modules = {c.name: precision.placed(c.module, request.of(c).precision, request.device).eval() for c in components}
    upcast = precision.upcast(components, request.precision)
    wanted = request.precision
    if precision.recipe_of(wanted) is None:
        return Cast(modules=modules, left={name: {} for name in modules}, upcast=upcast)
    seen = _seen(components, request)
    left = {n: quantisation.left_out(modules[n], wanted, found.ranges, found.unfit) for n, found in seen.items()}
    quantised = {n: quantisation.quantise(m, wanted, seen[n].ranges, left[n]).eval() for n, m in modules.items()}
    return Cast(modules=quantised, left=left, upcast=upcast)


def _seen(components: Sequence[Component], request: BuildRequest) -> dict[str, Observed]:
    """What calls of each network show about its linear layers. A calibrated precision uses the calibration calls; the
    other quantised ones use one call with the example inputs, or the calibration calls if that one does not reach every
    layer."""
    if not PRECISIONS[request.precision].quantiser.calibrated:
        seen = {c.name: _observed(c, [c.inputs], request.of(c)) for c in components}
        if not any(Left.NOT_REACHED in found.unfit.values() for found in seen.values()):
            return seen
    recorded = request.calibration().calls
    for component in components:  # calibration runs on the row's device, and offloaded networks wait on the host
        component.module.to(request.device)
    return {c.name: _observed(c, recorded[c.name], request.of(c)) for c in components}


def _observed(component: Component, calls: Calls, request: BuildRequest) -> Observed:
    """What `calls` show. They run on the device with copies of their inputs, cast as in the run. `request` is that of
    the component."""
    dtype = precision.dtype_of(request.precision)
    given = [
        tuple(x.to(request.device, dtype if x.is_floating_point() else None, copy=True) for x in call) for call in calls
    ]
    return linear_use.observed(component.module, given)


def read_back(cast: Cast, wanted: str) -> dict[str, Any]:
    """`weights_bytes`, `disk_bytes`, facts, shares and the precision check for modules that torch itself runs."""
    weights = {name: precision.weights_of(module) for name, module in cast.modules.items()}
    by_precision: dict[str, Counter[str]] = {}
    for name, found in weights.items():
        by_precision.setdefault(cast.upcast.get(name, wanted), Counter()).update(found["elements_by_dtype"])
    elements = dict(sum(by_precision.values(), Counter()))
    facts: dict[str, Any] = {"elements_by_dtype": elements}
    shares: share.Shares = {}
    faults = (precision.mismatch(found, own, row=elements) for own, found in by_precision.items())
    fault: Reason | None = next(filter(None, faults), None)
    if precision.recipe_of(wanted) is not None:
        layers = {name: quantisation.census(module, cast.left[name]) for name, module in cast.modules.items()}
        facts["quantised_layers"] = {name: found.in_words() for name, found in layers.items()}
        layers_said = _listed(facts["quantised_layers"])
        fault = Reason("quantised_layers", {"reason": fault, "layers": layers_said}) if fault else None
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


def execution_device(device: str) -> torch.device:
    """`device` with its index, which the device of a parameter also has. In every call, accelerate compares the two.
    Where they differ ("cuda" is not "cuda:0"), it moves the network again, parameter by parameter."""
    import torch

    return torch.device(device) if device == "cpu" else torch.device(device, 0)


def offloaded(modules: Sequence[torch.nn.Module], how: Offload, device: torch.device) -> Callable[[], None]:
    """Sets accelerate's hooks, as diffusers does.

    For "networks", a network is moved to the device when it is called and the previous one is moved back; for "layers",
    each layer is. Returns the function to call after each iteration. Like diffusers' maybe_free_model_hooks, it also
    moves the last network back. Not yet proven on hardware.
    """
    import torch
    from accelerate import cpu_offload, cpu_offload_with_hook

    hooks: list[Any] = []
    for module in modules:
        if how == "networks":
            hooks.append(cpu_offload_with_hook(module, device, prev_module_hook=hooks[-1] if hooks else None)[1])
        else:
            cpu_offload(module, device, offload_buffers=bool(module._parameters))

    def free() -> None:
        for hook in hooks:
            hook.offload()
        if hooks and device.type == "cuda":
            torch.cuda.empty_cache()

    return free


class _Counter:
    """A file object that only counts the bytes written to it."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing: no bytes are kept."""


def saved_bytes(module: torch.nn.Module) -> int:
    """The size of the file that `torch.save(module.state_dict())` writes, in bytes."""
    import torch

    counter = _Counter()
    with quantisation.quiet():
        torch.save(module.state_dict(), counter)  # type: ignore[arg-type]
    return counter.bytes
