"""Real inputs of a workload's networks, from which the ranges of int8_static and of fp8 in ONNX are computed: the
inputs that the networks get in eager iterations. The networks run in the type of their weights: fp32, or the type that
the precision names for the rest of an int8 network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.types import Workload

if TYPE_CHECKING:
    import torch

MAX_CALLS: Final = 32  # of a network, spread evenly over the denoising steps of all batches

Calls = Mapping[str, Sequence[tuple["torch.Tensor", ...]]]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """`calls` are the inputs, on the CPU, of up to MAX_CALLS calls of each component; `source` says what was run."""

    calls: Calls
    source: str


def recorded(workload: Workload, device: str) -> Recorded:
    """Runs the workload's calibration batches, or the timed batch if it has none, without changing its networks."""
    import torch

    from harness.numerics import precision

    data = workload.calibration
    batches: Sequence[Any] = [workload.batch] if data is None else data.batches()
    modules = {c.name: c.module.to(device).eval() for c in workload.components}
    kept: dict[str, list[tuple[torch.Tensor, ...]]] = {c.name: [] for c in workload.components}
    counts = dict.fromkeys(kept, 0)

    def watched(name: str, calls: int) -> Any:
        forward = precision.cast_at_border(modules[name], _dtype(modules[name]), device)
        total = max(calls * len(batches), 1)
        wanted = {round(i * (total - 1) / max(min(MAX_CALLS, total) - 1, 1)) for i in range(min(MAX_CALLS, total))}

        def observed(*inputs: torch.Tensor) -> torch.Tensor:
            if counts[name] in wanted:
                kept[name].append(tuple(x.detach().cpu().clone() for x in inputs))
            counts[name] += 1
            return forward(*inputs)

        return observed

    forwards = {c.name: watched(c.name, c.calls) for c in workload.components}
    with precision.applied("fp32"), torch.no_grad():
        for batch in batches:
            workload.iterate(forwards, batch.to(device))
    return Recorded(calls=kept, source="the timed batch" if data is None else data.source)


def _dtype(module: torch.nn.Module) -> torch.dtype:
    """The type of a network's weights. All of its floating-point weights have the same type."""
    import torch

    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
