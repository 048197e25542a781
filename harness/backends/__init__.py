"""Backends by name. A backend turns the networks of a workload into forwards: tensors in, one fp32 tensor out.

A new backend is one file here, or in a plugin: `@BACKENDS.add("name")` on a class as `Backend` describes it. What a
backend does not declare is refused: `unavailable` gives the reason. Heavy imports are inside the methods, so listing
the backends is fast, and a missing package becomes a reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from harness import drawing, entries, reasons
from harness.entries import BadEntry
from harness.numerics import precision as precisions
from harness.numerics.calibration import Recorded
from harness.numerics.share import Shares
from harness.quoting import quoted
from harness.reasons import Reason, ReasonedError
from harness.registry import BACKENDS, DEVICES, PRECISIONS
from harness.timing import Timer
from harness.types import Component, Forward


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What a backend needs besides the components.

    `cache` is a folder that the processes of one case share. `exports` is a folder that all cases of the run share. Its
    files are named by `work()` and, if they were calibrated, by `calls`. `work()` is equal where networks, values and
    shapes are equal; it must be called before anything is cast. `optimizations` are those of the case; the ones that
    change modules, attention and grad mode are already in force. `calibration()` runs the workload eagerly to record
    real inputs of its networks, in the type that the networks have at that time; it must be called before anything is
    quantised. Its results depend on the whole case: steps, scheduler, guidance, prompt, seed. `precision` is the
    precision of the row, and `of(component).precision` is that of one component.
    """

    precision: str
    device: str
    cache: Path
    exports: Path
    work: Callable[[], str]
    calls: str
    timer: Timer
    optimizations: tuple[str, ...]
    calibration: Callable[[], Recorded]

    def of(self, component: Component) -> BuildRequest:
        """The request for one component alone, in the precision in which that component runs."""
        return replace(self, precision=precisions.of_component(component, self.precision))


@dataclass(frozen=True, kw_only=True)
class Build:
    """Forwards by component name, and proof of what was built.

    `weights_bytes` and `elements_by_dtype` are read back from what will run. `build_s` is the time for compiling,
    exporting or quantising. `capture_s` is the time for capturing CUDA graphs after that; None means that the backend
    captures none. `cached` says that an artefact of an earlier process was used. `disk_bytes()` is the size of the file
    that one would ship: the saved state dict, the ONNX file, the engine. `keeps` says that something was left on disk
    that a later process finds. `verify()` is called after the last pass. It returns why what ran is not what the row
    requests (a recompile, a fallback), or None. `shares` gives, by component, the share of the weights that is
    quantised, if the precision quantises. `warnings` are those of the row; text has the form "short name: what was
    found". `after_iteration()`, if there is one, is called at the end of each iteration and is timed as a part of it.
    """

    forwards: Mapping[str, Forward]
    build_s: float
    cached: bool
    weights_bytes: int
    disk_bytes: Callable[[], int]
    capture_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    keeps_modules: bool = True
    replays: bool = False
    keeps: bool = False
    verify: Callable[[], Reason | str | None] = lambda: None
    shares: Shares = field(default_factory=dict)
    warnings: tuple[Reason | str, ...] = ()
    after_iteration: Callable[[], None] | None = None


class Backend(Protocol):
    """A backend declares `label`, `description` and `precisions`, and may declare more.

    precisions    the names of those that it supports; `harness.registry.PRECISIONS` for one that runs torch modules,
                  since the record of a precision says how torch applies it
    features      what it offers to optimisations (`harness.numerics.optimizations.MODULE` and others); none by default
    packages      the distributions whose versions can change its figures: speed is compared only where they are equal
    gpu_only      whether it runs on GPUs only, so that its packages change no figure of a CPU
    libraries     modules to import once for all workers. They must not use CUDA when they are imported
    colour        its colour in the charts; by default one that follows from its name
    """

    label: str
    description: str
    precisions: Collection[str]

    def unavailable(self, precision: str, device: str) -> Reason | str | None:
        """The reason why `precision`, which it declares or not, cannot run on the device here, or None."""
        ...

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build: ...


def built(backend: str, components: Sequence[Component], request: BuildRequest) -> Build:
    """What the backend builds of the components. Raises BadEntry if it builds none, or no forward for one of them."""
    found: Any = BACKENDS[backend].build(components, request)
    if not isinstance(found, Build):
        raise BadEntry(f"the backend {backend!r} builds {quoted(found)} instead of a harness.backends.Build")
    if absent := [c.name for c in components if not callable(found.forwards.get(c.name))]:
        raise BadEntry(f"the backend {backend!r} builds no forward for the network {absent[0]!r}")
    return found


def unavailable(backend: str, precision: str, device: str) -> Reason | None:
    """Why a backend cannot run `precision` on the device here, or None. What it does not declare is refused."""
    entry = BACKENDS[backend]
    reason: Reason | str | None = entry.unavailable(precision, device)
    if reason is not None:
        return reasons.of(reason)
    return None if precision in getattr(entry, "precisions", ()) else undeclared(backend, precision)


def undeclared(backend: str, precision: str) -> Reason:
    """The refusal of a precision that a backend does not declare."""
    return Reason("precision_undeclared", {"backend": backend, "precision": precision})


def speed_packages(on_gpu: bool) -> tuple[str, ...]:
    """The distributions whose versions can change a figure on this kind of device, as the registered backends declare
    them, each once."""
    able = [b for b in BACKENDS.values() if on_gpu or not getattr(b, "gpu_only", False)]
    return tuple(dict.fromkeys(name for backend in able for name in getattr(backend, "packages", ())))


def packages() -> tuple[str, ...]:
    """The distributions that the registered backends and precisions name, each once."""
    of_precisions = [p.quantiser.packages for p in PRECISIONS.values() if p.quantiser is not None]
    of_backends = [getattr(backend, "packages", ()) for backend in BACKENDS.values()]
    return tuple(dict.fromkeys(name for names in (*of_precisions, *of_backends) for name in names))


class CaptureFailed(ReasonedError, RuntimeError):
    """A network could not be captured as a CUDA graph, for `reason`; its kind begins with "capture_"."""


def is_capture(reason: Reason) -> bool:
    """Whether a reason says that a network was not run as one CUDA graph."""
    return reason.kind.startswith("capture_")


def missing_package(name: str, purpose: str) -> Reason | None:
    """Why package `name` cannot be imported, or None; looks it up without importing it."""
    if importlib.util.find_spec(name):
        return None
    return Reason("missing_package", {"package": name, "purpose": purpose})


def cannot_import(name: str, label: str) -> Reason | None:
    """Why package `name` cannot be imported, or None: it is not installed, or a library that it loads is missing."""
    if reason := missing_package(name, label):
        return reason
    try:
        importlib.import_module(name)
    except Exception as error:
        return Reason("package_broken", {"package": label, "error": f"{type(error).__name__}: {error}"})
    return None


def missing_device(device: str) -> Reason | None:
    """Why this machine cannot run anything on `device`, or None."""
    reason: Reason | str | None = DEVICES[device].unavailable()
    return None if reason is None else Reason("no_device", {"why": reason})


def cached_before(request: BuildRequest) -> bool:
    """Whether an earlier process of this case has completed its build, so that this one finds its artefacts."""
    return _mark(request).exists()


def note_built(request: BuildRequest) -> None:
    """Call it when the build is done, because a later process must not rely on an interrupted build."""
    _mark(request).touch()


def _mark(request: BuildRequest) -> Path:
    return request.cache / "built"


NEEDED: Final = {
    "label": entries.LINE,
    "description": entries.LINE,
    "precisions": entries.NAMES,
    "unavailable": entries.FUNCTION,
    "build": entries.FUNCTION,
}
OPTIONAL: Final = {
    "features": entries.NAMES,
    "packages": entries.NAMES,
    "gpu_only": entries.BOOLEAN,
    "libraries": entries.NAMES,
    "colour": drawing.COLOUR,
}


@BACKENDS.checked_by
def _check(subject: str, _name: str, entry: Any) -> None:
    entries.demand(subject, entry, NEEDED, OPTIONAL)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
