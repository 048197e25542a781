"""The fp32 eager output of the same seed, with which every other row is compared.

Computed once for all rows that share it, in whichever worker needs it first, and kept in the run folder as
`references/<key>.npy`; the key is the hash of the case with backend eager and precision fp32. An eager fp32 row
adopts its own output, so it is never computed twice. `<key>.json` beside it says how it was computed (`Origin`), or why
it could not be: then no other row tries again.

The row's time-out is paused while a reference is computed (from `BEGUN` to `ENDED`; `harness.processes.worker`). The
reference has a time limit of its own, equal to the row's `timeout_s`. A reference that takes longer is missing, with
the reason, and so are the metrics that compare with it; the row keeps what was measured. On the row's own device the
limit is checked before each call of a network. Where the CPU computes the reference for a row of a GPU, it does so in a
process that can be killed (`harness.measuring.reference_process`). In a job with `reference_until_s` the row's time-out
is not paused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from harness import reasons
from harness.files import write_atomically
from harness.measuring import output_files, reference_process
from harness.measuring.out_of_memory import is_out_of_memory
from harness.measuring.trial import Mismatch, Trial
from harness.reasons import Reason, ReasonedError
from harness.timing import perf_counter
from harness.types import Case, Forward

if TYPE_CHECKING:
    import torch

BEGUN: Final = "reference"  # the phases that a worker reports
ENDED: Final = "reference done"
REASON: Final = "reason"  # the stored key of the reason why there is no reference

What = Literal["timed batch", "quality set"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a reference was computed: the hash of its weights, and whether the CPU computed it for the rows of a GPU; or
    `missing`, the reason why there is none."""

    weights_hash: str
    on_cpu: bool = False
    missing: Reason | None = None


class NoReference(ReasonedError, RuntimeError):
    """There is no fp32 reference, for `reason`."""

    @property
    def warning(self) -> Reason:
        """The warning of a row whose output was not compared with a reference."""
        return Reason("unchecked", {"reason": self.reason})


def reference_case(case: Case) -> Case:
    return case.with_(backend="eager", precision="fp32", optimizations=None)


def is_reference(case: Case) -> bool:
    return case == reference_case(case)


def output(trial: Trial, what: What, own: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The reference of the timed batch or of the whole quality set, on the CPU in fp32.

    `own` gives the trial's own output, which is adopted where the trial is the reference itself. Raises NoReference.
    """
    path = _path(trial.folder, trial.case, what)
    if path.exists():
        return output_files.load(path)
    if is_reference(trial.case):
        _keep(path, Origin(weights_hash=trial.weights_hash), own())
    elif (origin := _origin(trial, what)) is not None and origin.missing is not None:
        raise NoReference(origin.missing)
    else:
        trial.report(BEGUN)
        try:
            _keep(path, *_compute(trial, what))
        except NoReference as error:
            _keep(path, Origin(weights_hash=trial.weights_hash, missing=error.reason))
            raise
        finally:
            trial.report(ENDED)
    return output_files.load(path)


def _keep(path: Path, origin: Origin, found: torch.Tensor | None = None) -> None:
    """Stores a reference, or, without `found`, only the reason why there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # before the array, since readers look for the array
    told: dict[str, Any] = {"weights_hash": origin.weights_hash, "on_cpu": origin.on_cpu}
    if origin.missing is not None:
        told |= {"missing": str(origin.missing), REASON: origin.missing.to_json()}  # older versions read the text
    write_atomically(path.with_suffix(".json"), json.dumps(told))
    if found is not None:
        output_files.save(path, found)


def told(trial: Trial, what: What) -> tuple[Reason, ...]:
    """The warning of every row that is compared with a reference of another device, or nothing."""
    origin = _origin(trial, what)
    return (Reason("reference_on_cpu", {"what": what}),) if origin is not None and origin.on_cpu else ()


def other_weights(trial: Trial, what: What) -> Reason | None:
    """A reason if the reference was loaded with other weights than the row, else None. The comparison of the outputs
    then means nothing, however close they are."""
    origin = _origin(trial, what)
    if origin is None or origin.missing is not None or origin.weights_hash == trial.weights_hash:
        return None
    hashes = {"reference": origin.weights_hash[:12], "row": trial.weights_hash[:12]}
    return Reason("reference_of_other_weights", hashes)


def _origin(trial: Trial, what: What) -> Origin | None:
    path = _path(trial.folder, trial.case, what).with_suffix(".json")
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    missing = reasons.from_json(told[REASON]) if REASON in told else told.get("missing")  # an older version: the text
    return Origin(
        weights_hash=told["weights_hash"],
        on_cpu=told["on_cpu"],
        missing=None if missing is None else reasons.of(missing),
    )


def _compute(trial: Trial, what: What) -> tuple[Origin, torch.Tensor]:
    """Builds the model again, eager and in fp32, and runs the batches once; on the CPU if the GPU memory does not
    suffice. Raises NoReference where that takes longer than the row's `timeout_s`, and where the CPU gives no
    result."""
    import torch

    device = trial.device.torch_device
    limit_s = round(min(trial.protocol.timeout_s, trial.reference_until - perf_counter()), 1)
    if limit_s <= 0:
        raise NoReference(Reason("no_time_left"))
    try:
        found, weights_hash = computed_on(device, trial.case, what, limit_s)
        return Origin(weights_hash=weights_hash), found
    except Exception as error:  # the timed model is in memory, too, and its measurements must not be lost
        if not trial.device.is_gpu or not is_out_of_memory(error):
            raise
    trial.device.release_memory()
    order = reference_process.Order(case=trial.case, what=what, plugins=trial.plugins, threads=torch.get_num_threads())
    answer = reference_process.computed(order, limit_s)
    if answer.mismatch is not None:
        raise Mismatch(answer.mismatch)
    if answer.missing is not None:
        raise NoReference(Reason("reference_not_on_gpu", {"reason": answer.missing}))
    return Origin(weights_hash=answer.weights_hash, on_cpu=True), torch.from_numpy(answer.output)


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


def _path(folder: Path, case: Case, what: What) -> Path:
    canonical = json.dumps([reference_case(case).axes(), what], sort_keys=True)
    return folder / output_files.FOLDER / f"{hashlib.sha256(canonical.encode()).hexdigest()[:16]}.npy"
