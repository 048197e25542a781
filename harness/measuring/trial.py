"""A trial: one case, built, in one worker process. Probes get it and run its step.

The calls of every network are counted, and their shapes are compared with the component's example inputs, also while
latency is measured. So another number of steps, another batch size and another image size are detected.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.devices import Device
from harness.reasons import Reason, ReasonedError
from harness.timing import Timer
from harness.types import Case, Component, Forward, Protocol, Samples, Workload

if TYPE_CHECKING:
    import torch

    from harness.backends import Build
    from harness.measuring.repeatability import Snapshot
    from harness.measuring.turns import Interleaving, Turns
CONSTANT = 1e-6  # of an item's largest value: a smaller spread is rounding


@dataclass(frozen=True, kw_only=True)
class Startup:
    """Seconds before the first steady iteration, by part: load, build, capture of CUDA graphs (None where there are
    none), first call."""

    load_s: float
    build_s: float
    first_call_s: float
    capture_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a probe found: samples by metric, and the reason for each of its metrics that it could not measure. `state`
    is the state of the machine during its pass, if the figures count only without contention
    (`harness.measuring.contention`)."""

    samples: Samples = field(default_factory=dict)
    warmup: Samples = field(default_factory=dict)
    missing: Mapping[str, Reason | str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason | str, ...] = ()
    images: tuple[str, ...] = ()
    invalid: Reason | str | None = None
    state: dict[str, Any] = field(default_factory=dict)


class Mismatch(ReasonedError, RuntimeError):
    """What would run is not what was requested: the row is `invalid`, with this as the reason (a `Reason`, or
    text)."""


class Counter:
    """Counts the calls of each component. A call with other shapes than those of the case raises Mismatch before it
    runs: a backend of fixed shapes would raise its own error, which would look like a fault of the backend."""

    def __init__(self, components: tuple[Component, ...], forwards: Mapping[str, Forward]) -> None:
        self.calls = dict.fromkeys((c.name for c in components), 0)
        self.iterations = 0
        self._expected = {c.name: c.calls for c in components}
        self.forwards = {c.name: self._counted(c, forwards[c.name]) for c in components}

    def _counted(self, component: Component, forward: Forward) -> Forward:
        name, shapes = component.name, [x.shape for x in component.inputs]

        def counted(*inputs: torch.Tensor) -> torch.Tensor:
            self.calls[name] += 1
            if [x.shape for x in inputs] != shapes:
                found, wanted = [str(tuple(x.shape)) for x in inputs], [str(tuple(shape)) for shape in shapes]
                raise Mismatch(Reason("shapes_differ", {"component": name, "found": found, "wanted": wanted}))
            return forward(*inputs)

        return counted

    def mismatch(self) -> Reason | None:
        """How the number of calls differs from the expected number, or None."""
        for name, count in self.calls.items():
            wanted = self._expected[name] * self.iterations
            if count != wanted:
                calls = {"component": name, "count": count, "iterations": self.iterations, "wanted": wanted}
                return Reason("calls_differ", calls)
        return None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a probe may use. `folder` is the run folder, and `report` sends the phase that begins to the driver.

    `turns` is set if another process takes turns with this one on the machine, and `interleaving` has the counts of the
    turns. `first_output` (on the CPU) and `batch_before` are the output and the input of the first iteration.
    `weights_hash` covers what was loaded (`harness.measuring.content_hashes`). `reference_until` is the time by which
    the fp32 reference must be computed, if the job sets one (`harness.processes.measure.Job`)."""

    case: Case
    replicate: int
    workload: Workload
    build: Build
    device: Device
    timer: Timer
    protocol: Protocol
    startup: Startup
    folder: Path
    counter: Counter
    first_output: torch.Tensor
    batch_before: Snapshot
    weights_hash: str
    turns: Turns | None = None
    interleaving: Interleaving | None = None
    plugins: tuple[str, ...] = ()
    reference_until: float = math.inf
    report: Callable[[str], None] = lambda _phase: None

    def step(self, batch: Any = None) -> torch.Tensor:
        """Runs one iteration over `batch` (the timed one unless given) and returns its output."""
        self.counter.iterations += 1
        given = self.workload.batch if batch is None else batch.to(self.device.torch_device)
        return self.workload.iterate(self.counter.forwards, given)

    def observed_step(self, observe: Any) -> torch.Tensor:
        """Runs one iteration in which `observe(name, forward)` may wrap each counted forward."""
        self.counter.iterations += 1
        forwards = {name: observe(name, forward) for name, forward in self.counter.forwards.items()}
        return self.workload.iterate(forwards, self.workload.batch)


def output_fault(output: torch.Tensor, workload: Workload) -> Reason | None:
    """Why an output cannot be right (shape, NaN or infinity, constant items), or None.

    An item with a single value is never called constant. Integers and booleans may be constant unless they are images,
    because the mask of an image without objects is constant.
    """
    import torch

    if tuple(output.shape) != workload.output_shape:
        shapes = {"found": str(tuple(output.shape)), "wanted": str(workload.output_shape)}
        return Reason("output_of_other_shape", shapes)
    if output.numel() == 0:
        return Reason("output_empty", {"shape": str(tuple(output.shape))})
    flat = output.detach().reshape(output.shape[0], -1)
    may_be_constant = not output.is_floating_point() and workload.output_kind != "images"
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    bad = int((~torch.isfinite(flat)).sum())
    if bad:
        return Reason("output_not_finite", {"count": bad})
    if flat.shape[1] == 1 or may_be_constant:
        return None
    spread, scale = flat.amax(dim=1) - flat.amin(dim=1), flat.abs().amax(dim=1)
    constant = int((spread <= CONSTANT * scale.clamp_max(1.0)).sum())
    if constant:
        return Reason("outputs_constant", {"count": constant, "items": flat.shape[0]})
    return None


def digest(output: torch.Tensor) -> str:
    """Short SHA-256 of an output's bytes: equal exactly when two runs gave bit-identical results."""
    import torch

    raw = output.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()[:16]
