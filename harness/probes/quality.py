"""How good the outputs are: the model's quality metrics on its evaluation set, in the row's backend and precision.

The model defines what to run and how to score it (`Workload.quality`). This probe runs it through the forwards that
were timed, at the row's batch size. Random weights have no quality, which the row has as a fact.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.measuring import reference
from harness.measuring.reference_output import NoReference
from harness.measuring.trial import Findings, Trial
from harness.probes import probe
from harness.probes.fidelity import AGREEMENT, agreement, without_class
from harness.reasons import Reason
from harness.types import Quality

if TYPE_CHECKING:
    import torch

MAX_IMAGES = 10


@probe("quality", order=60, metrics=(), first_process_only=True, further=(AGREEMENT.name,), of_workload=True)
def quality(trial: Trial) -> Findings:
    """Samples of the model's own quality metrics, images for the report, and agreement with fp32 eager."""
    quality_set = trial.workload.quality
    if quality_set is None:
        return Findings(facts={"quality": "none: imgbench has no quality metric for these weights"})
    if not trial.protocol.quality:
        return Findings(missing={m.name: Reason("quality_off") for m in quality_set.metrics})
    outputs = _cat([trial.step(batch).cpu() for batch in quality_set.batches()])
    samples = quality_set.score(outputs)
    warnings: tuple[Reason, ...] = ()
    invalid: Reason | None = None
    missing: dict[str, Reason] = {}
    if without_class(outputs, trial.workload.output_kind) is None:
        try:
            wanted = reference.output(trial, "quality set", lambda: outputs)
            warnings = reference.device_warnings(trial, "quality set")
            invalid = reference.other_weights(trial, "quality set")
            if not reference.is_reference(trial.case):
                count = int(quality_set.conditions["items"])
                samples[AGREEMENT.name] = agreement(outputs[:count], wanted[:count])
        except NoReference as error:
            missing = {AGREEMENT.name: Reason("no_reference_of_quality_set", {"reason": error.reason})}
    return Findings(
        samples=samples,
        missing=missing,
        facts={"quality_conditions": dict(quality_set.conditions), **_kept(quality_set, outputs)},
        warnings=warnings,
        invalid=invalid,
        images=_save_images(trial.folder, trial.case.id, outputs, quality_set),
    )


def _kept(quality_set: Quality, outputs: torch.Tensor) -> dict[str, Any]:
    """What a later comparison of FID and KID needs; `baselines.stored.fid_and_kid` reads it."""
    return {} if quality_set.keep is None else {"picture_set": dict(quality_set.keep(outputs))}


def _cat(tensors: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(tensors)


def _save_images(folder: Path, case_id: str, outputs: torch.Tensor, quality_set: Quality) -> tuple[str, ...]:
    """Writes one strip of the first images as a PNG. Returns its name relative to the run folder."""
    if quality_set.images is None:
        return ()
    import numpy as np
    from PIL import Image

    strip = quality_set.images(outputs[:MAX_IMAGES]).numpy()  # (n, H, W, 3) uint8
    name = f"images/{case_id}.png"
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(list(strip), axis=1)).save(folder / name)
    return (name,)
