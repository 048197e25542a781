"""The fp32 eager output of a case: what it is, and how it is computed. `harness.measuring.reference` decides when it is
computed, and stores it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.measuring.trial import Mismatch
from harness.reasons import Reason, ReasonedError
from harness.timing import perf_counter
from harness.types import Case, Forward

if TYPE_CHECKING:
    import torch

What = Literal["timed batch", "quality set"]


class NoReference(ReasonedError, RuntimeError):
    """There is no fp32 reference, for `reason`."""

    @property
    def warning(self) -> Reason:
        """The warning of a row whose output was not compared with a reference."""
        return Reason("unchecked", {"reason": self.reason})


def reference_case(case: Case) -> Case:
    return case.with_(backend="eager", precision="fp32", optimizations=None)


def computed_on(device: str, wanted: Case, what: What, limit_s: float = float("inf")) -> tuple[torch.Tensor, str]:
    """(the output, the hash of the weights that produced it). Raises NoReference at the first call of a network after
    `limit_s` seconds."""
    import torch

    from harness.measuring import content_hashes, loading
    from harness.measuring.repeatability import private_batch
    from harness.numerics import attention, precision

    case, deadline = reference_case(wanted), perf_counter() + limit_s

    def in_time(forward: Forward) -> Forward:
        def called(*inputs: torch.Tensor) -> torch.Tensor:
            if perf_counter() > deadline:
                raise NoReference(Reason("reference_too_slow", {"limit_s": limit_s}))
            return forward(*inputs)

        return called

    loaded = loading.own(loading.built(case))
    workload = loaded.workload
    batches = [workload.batch] if what == "timed batch" else workload.quality.batches()  # type: ignore[union-attr]
    with precision.applied("fp32"), attention.torchs_own():
        modules = {c.name: precision.cast(c.module.to(device), "fp32").eval() for c in workload.components}
        forwards = {n: in_time(_on_copies(precision.bordered(m, "fp32", device))) for n, m in modules.items()}
        before = [content_hashes.checksum(m) for m in modules.values()]
        batches = [private_batch(batch).to(device) for batch in batches]
        found = torch.cat([workload.iterate(forwards, batch).cpu() for batch in batches])
        if [content_hashes.checksum(m) for m in modules.values()] != before:
            raise Mismatch(Reason("reference_changes_weights"))
    return found, loaded.weights_hash


def _on_copies(forward: Forward) -> Forward:
    """`forward` on copies of its inputs, so that a network that writes to them gets the original values."""
    return lambda *inputs: forward(*(x.clone() for x in inputs))
