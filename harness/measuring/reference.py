"""The fp32 eager output of the same seed, with which every other row is compared.

A reference is computed once for all rows that share it, by the first worker that needs it. It is stored in the run
folder as `references/<key>.npy`, where the key is a hash of the case with backend eager and precision fp32. An eager
fp32 row stores its own output, so no output is computed twice. `<key>.json` says how the reference was computed
(`Origin`), or why it could not be computed. In the second case no other row tries again.

The row's time-out is paused while a reference is computed (from `BEGUN` to `ENDED`; `harness.processes.worker`). The
reference has a time limit of its own, equal to the row's `timeout_s`. If it takes longer, the reference and the metrics
that compare with it are missing, with the reason, and the row keeps what was measured. On the row's own device the
limit is checked before each call of a network. If the CPU computes the reference for a row of a GPU, a separate process
computes it, which can be killed (`harness.measuring.reference_process`). In a job with `reference_until_s` the row's
time-out is not paused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import reasons
from harness.files import write_atomically
from harness.measuring import output_files
from harness.measuring.out_of_memory import is_out_of_memory
from harness.measuring.reference_output import NoReference, What, computed_on, reference_case
from harness.measuring.trial import Mismatch, Trial
from harness.reasons import Reason
from harness.timing import perf_counter
from harness.types import Case

if TYPE_CHECKING:
    import torch

BEGUN: Final = "reference"  # the phases that a worker reports
ENDED: Final = "reference done"
REASON: Final = "reason"  # the stored key of the reason why there is no reference


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a reference was computed. `weights_hash` is the hash of its weights, and `on_cpu` is true if the CPU computed
    it for rows of a GPU. `missing` is the reason if there is no reference."""

    weights_hash: str
    on_cpu: bool = False
    missing: Reason | None = None


def is_reference(case: Case) -> bool:
    return case == reference_case(case)


def output(trial: Trial, what: What, own: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The reference of the timed batch or of the whole quality set, on the CPU in fp32.

    `own` returns the trial's own output, which becomes the reference if the trial is itself eager and fp32. Raises
    NoReference.
    """
    path = _path(trial.folder, trial.case, what)
    if path.exists():
        return output_files.load(path)
    if is_reference(trial.case):
        _store(path, Origin(weights_hash=trial.weights_hash), own())
    elif (origin := _origin(trial, what)) is not None and origin.missing is not None:
        raise NoReference(origin.missing)
    else:
        trial.report(BEGUN)
        try:
            _store(path, *_compute(trial, what))
        except NoReference as error:
            _store(path, Origin(weights_hash=trial.weights_hash, missing=error.reason))
            raise
        finally:
            trial.report(ENDED)
    return output_files.load(path)


def _store(path: Path, origin: Origin, found: torch.Tensor | None = None) -> None:
    """Stores a reference, or, without `found`, only the reason why there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The array is written last, because readers check for the array.
    document: dict[str, Any] = {"weights_hash": origin.weights_hash, "on_cpu": origin.on_cpu}
    if origin.missing is not None:
        document |= {"missing": str(origin.missing), REASON: origin.missing.to_json()}  # older versions read the text
    write_atomically(path.with_suffix(".json"), json.dumps(document))
    if found is not None:
        output_files.save(path, found)


def device_warnings(trial: Trial, what: What) -> tuple[Reason, ...]:
    """The warning of a row whose reference was computed on another device than the row; empty if there is none."""
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
    document = json.loads(path.read_text(encoding="utf-8"))
    # An older version stored only the text of the reason.
    missing = reasons.from_json(document[REASON]) if REASON in document else document.get("missing")
    return Origin(
        weights_hash=document["weights_hash"],
        on_cpu=document["on_cpu"],
        missing=None if missing is None else reasons.of(missing),
    )


def _compute(trial: Trial, what: What) -> tuple[Origin, torch.Tensor]:
    """Builds the model again, eager and in fp32, and runs the batches once, on the CPU if the GPU has too little
    memory. Raises NoReference if that takes longer than the row's `timeout_s`, or if the CPU gives no result."""
    import torch

    from harness.measuring import reference_process

    device = trial.device.torch_device
    limit_s = round(min(trial.protocol.timeout_s, trial.reference_until - perf_counter()), 1)
    if limit_s <= 0:
        raise NoReference(Reason("no_time_left"))
    try:
        found, weights_hash = computed_on(device, trial.case, what, limit_s)
        return Origin(weights_hash=weights_hash), found
    except Exception as error:  # the timed model takes memory too, and its measurements must not be lost
        if not trial.device.is_gpu or not is_out_of_memory(error):
            raise
    trial.device.release_memory()
    request = reference_process.Request(
        case=trial.case, what=what, plugins=trial.plugins, threads=torch.get_num_threads()
    )
    result = reference_process.computed(request, limit_s)
    if result.mismatch is not None:
        raise Mismatch(result.mismatch)
    if result.missing is not None:
        raise NoReference(Reason("reference_not_on_gpu", {"reason": result.missing}))
    return Origin(weights_hash=result.weights_hash, on_cpu=True), torch.from_numpy(result.output)


def _path(folder: Path, case: Case, what: What) -> Path:
    canonical = json.dumps([reference_case(case).axes(), what], sort_keys=True)
    return folder / output_files.FOLDER / f"{hashlib.sha256(canonical.encode()).hexdigest()[:16]}.npy"
