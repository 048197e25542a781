"""The fp32 eager output of the same seed, with which every other row is compared.

Computed once for all rows that share it, in whichever worker needs it first, and kept in the run folder as
`references/<key>.npy`; the key is the hash of the case with backend eager and precision fp32. An eager fp32 row
adopts its own output, so it is never computed twice. `<key>.json` beside it says how it was computed (`Origin`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness import kept_outputs
from harness.files import write_atomically
from harness.trial import Mismatch, Trial
from harness.types import Case, Forward

if TYPE_CHECKING:
    import torch

ON_CPU = "the GPU had no room for fp32 eager beside the timed model, so the CPU computed it"

What = Literal["timed batch", "quality set"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a reference was computed with: the hash of the weights, and whether the CPU computed it for a GPU's rows."""

    weights_hash: str
    on_cpu: bool = False


def reference_case(case: Case) -> Case:
    return case.with_(backend="eager", precision="fp32", optimizations=None)


def is_reference(case: Case) -> bool:
    return case == reference_case(case)


def output(trial: Trial, what: What, own: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The reference of the timed batch or of the whole quality set, on the CPU in fp32.

    `own` gives the trial's own output, which is adopted where the trial is the reference itself.
    """
    path = _path(trial.folder, trial.case, what)
    if not path.exists():
        adopted = is_reference(trial.case)
        found, origin = (own(), Origin(weights_hash=trial.weights_hash)) if adopted else _compute(trial, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.with_suffix(".json"), json.dumps(asdict(origin)))  # before the array, which is looked for
        kept_outputs.save(path, found)
    return kept_outputs.load(path)


def told(trial: Trial, what: What) -> tuple[str, ...]:
    """The warning of every row that is held against a reference of another device, or nothing."""
    origin = _origin(trial, what)
    return (f"reference of the {what}: {ON_CPU}",) if origin is not None and origin.on_cpu else ()


def other_weights(trial: Trial, what: What) -> str | None:
    """A sentence if the reference was loaded with other weights than the row, else None. The comparison of the outputs
    then means nothing, however close they are."""
    origin = _origin(trial, what)
    if origin is None or origin.weights_hash == trial.weights_hash:
        return None
    return (
        f"the fp32 reference was computed with other weights ({origin.weights_hash[:12]}) than this row loaded "
        f"({trial.weights_hash[:12]}): the model must load the same weights each time"
    )


def _origin(trial: Trial, what: What) -> Origin | None:
    path = _path(trial.folder, trial.case, what).with_suffix(".json")
    return Origin(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _compute(trial: Trial, what: What) -> tuple[torch.Tensor, Origin]:
    """Builds the model anew, eager and fp32, and runs the batches once; on the CPU where the GPU has no room for it."""
    import torch

    device = trial.device.torch_device
    try:
        found, weights_hash = _computed_on(device, trial.case, what)
        return found, Origin(weights_hash=weights_hash)
    except torch.OutOfMemoryError:  # the timed model lies beside it, and what was measured of that is not to be lost
        if device == "cpu":
            raise
    torch.cuda.empty_cache()
    found, weights_hash = _computed_on("cpu", trial.case, what)
    return found, Origin(weights_hash=weights_hash, on_cpu=True)


def _computed_on(device: str, wanted: Case, what: What) -> tuple[torch.Tensor, str]:
    """(the output, the hash of the weights that produced it)."""
    import torch

    from harness import attention, content, loading, precision
    from harness.repeatability import private_batch

    case = reference_case(wanted)
    loaded = loading.own(loading.built(case))
    workload = loaded.workload
    batches = [workload.batch] if what == "timed batch" else workload.quality.batches()  # type: ignore[union-attr]
    with precision.applied("fp32"), attention.torchs_own():
        modules = {c.name: precision.cast(c.module.to(device), "fp32").eval() for c in workload.components}
        forwards = {n: _on_copies(precision.bordered(m, "fp32", device)) for n, m in modules.items()}
        before = [content.checksum(m) for m in modules.values()]
        batches = [private_batch(batch).to(device) for batch in batches]
        found = torch.cat([workload.iterate(forwards, batch).cpu() for batch in batches])
        if [content.checksum(m) for m in modules.values()] != before:
            raise Mismatch("the network changes its own weights while it runs, so that there is no fp32 reference")
    return found, loaded.weights_hash


def _on_copies(forward: Forward) -> Forward:
    """`forward` on copies of its inputs, so that a network that writes to them gets the original values."""
    return lambda *inputs: forward(*(x.clone() for x in inputs))


def _path(folder: Path, case: Case, what: What) -> Path:
    canonical = json.dumps([reference_case(case).axes(), what], sort_keys=True)
    return folder / kept_outputs.FOLDER / f"{hashlib.sha256(canonical.encode()).hexdigest()[:16]}.npy"
