"""How close the output is to the fp32 eager output of the same seed: the price of a precision or a backend.

The metrics are computed on the timed batch, item by item. The cosine of images is taken after the reference's mean
value is subtracted, because two bright images have a raw cosine of 0.9 whatever they show. A cosine does not show a
change of scale, and a mean does not show one wrong item in ten. The relative error is therefore checked too. It is the
norm of the difference over the norm of the reference around its mean: 0 for equal images, 1 for a constant image of
that mean, about 1.4 for an unrelated image of equal contrast. The row is invalid if the mean cosine is below its floor,
the mean error above its ceiling, or the worst item's error above ITEM times that ceiling (at most LARGEST_ITEM: an
unrelated image is wrong in any precision). The facts contain all of these figures.

The bounds are in `harness.numerics.tolerance`. Every process of a case is checked; the figures come from the first. If
the reference is not computed within its time, all figures are missing with the reason, and the row has the warning
`unchecked`.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.measuring import output_files, reference
from harness.measuring.reference_output import NoReference
from harness.measuring.repeatability import first_process_error
from harness.measuring.trial import Findings, Trial
from harness.numerics.tolerance import Tolerance, relative_errors, tolerance
from harness.probes import probe
from harness.reasons import Reason
from harness.types import IDENTICAL, Metric, Samples

if TYPE_CHECKING:
    import torch

COSINE = Metric(
    name="cosine_similarity",
    unit="1",
    label="Cosine to fp32",
    better="higher",
    kind="quality_continuous",
    description="cosine between the output and the fp32 eager output of the same seed, one sample per item of the "
    "timed batch; for images after the reference's mean is subtracted",
    summary="mean",
)
ERROR = Metric(
    name="relative_error",
    unit="1",
    label="Error to fp32",
    better="lower",
    kind="advisory",
    description="norm of the difference from the fp32 eager output over the norm of that output around its mean, one "
    "sample per item of the timed batch; the row's figure is that of the worst item",
    summary="max",
)
DIFFERENCE = Metric(
    name="max_abs_difference",
    unit="1",
    label="Largest difference",
    better="lower",
    kind="advisory",
    description="largest absolute difference from the fp32 eager output (logits, or pixels in 0..1)",
    summary="max",
)
PSNR = Metric(
    name="psnr_db",
    unit="dB",
    label="PSNR to fp32",
    better="higher",
    kind="quality_continuous",
    description="peak signal-to-noise ratio of the images against the fp32 eager images of the same seed, peak 1.0",
    summary="mean",
)
AGREEMENT = Metric(
    name="top1_agreement",
    unit="share",
    label="Top-1 agreement",
    better="higher",
    kind="quality_continuous",
    description="share of items with the same top-1 class as fp32 eager; over the quality set if there is one",
    summary="mean",
)


def fault(samples: Samples, allowed: Tolerance) -> Reason | None:
    """Why outputs with these differences from the reference are invalid, or None."""
    cosine, errors = statistics.fmean(samples[COSINE.name]), samples[ERROR.name]
    if not cosine >= allowed.cosine_floor:
        return Reason("cosine_below", {"cosine": cosine, "floor": allowed.cosine_floor})
    mean, worst = statistics.fmean(errors), max(errors)
    if not mean <= allowed.error_ceiling:
        return Reason("error_above", {"error": mean, "ceiling": allowed.error_ceiling})
    if not worst <= allowed.item_error_ceiling:
        data = {
            "item": errors.index(worst),
            "items": len(errors),
            "error": worst,
            "ceiling": allowed.item_error_ceiling,
        }
        return Reason("item_error_above", data)
    return None


@probe("fidelity", order=50, metrics=(COSINE, ERROR, DIFFERENCE, PSNR, AGREEMENT))
def fidelity(trial: Trial) -> Findings:
    """Closeness of the timed batch's output to its fp32 eager reference."""
    names = (COSINE.name, ERROR.name, DIFFERENCE.name, PSNR.name)
    own = trial.step().cpu()
    try:
        wanted = reference.output(trial, "timed batch", lambda: own)
    except NoReference as error:
        missing = dict.fromkeys((*names, AGREEMENT.name), Reason("no_reference", {"reason": error.reason}))
        return Findings(missing=missing, facts=_against_the_first(trial, own), warnings=(error.warning,))
    kind = trial.workload.output_kind
    samples, missing = closeness(own, wanted, kind)
    no_class = without_class(own, kind)
    if no_class is not None:
        missing[AGREEMENT.name] = no_class
    elif trial.workload.quality is None:
        samples[AGREEMENT.name] = agreement(own, wanted)
    elif trial.replicate == 0:
        missing[AGREEMENT.name] = Reason("of_quality_set")
    allowed = tolerance(trial.case.precision, kind)
    invalid = reference.other_weights(trial, "timed batch") or fault(samples, allowed)
    if reference.is_reference(trial.case):
        missing = dict.fromkeys((*names, AGREEMENT.name), Reason("reference_itself"))
    if reference.is_reference(trial.case) or trial.replicate > 0:
        samples = {}
    warnings = reference.device_warnings(trial, "timed batch")
    facts = {**asdict(allowed), **_against_the_first(trial, own)}
    return Findings(samples=samples, missing=missing, facts=facts, warnings=warnings, invalid=invalid)


def _against_the_first(trial: Trial, own: torch.Tensor) -> dict[str, float]:
    """The error against the output of the first process of the case, which stores it here."""
    path = output_files.first_output(trial.folder, trial.case.id)
    if not path.exists():
        output_files.save(path, own)
        return {}
    return first_process_error(trial, own)


def closeness(own: torch.Tensor, wanted: torch.Tensor, kind: str) -> tuple[dict[str, list[float]], dict[str, Reason]]:
    """Cosine, relative error, largest difference and, for images, PSNR of two equally shaped tensors.

    Items with a single value get the batch's cosine and are divided by the batch's norm, since one value has neither
    direction nor spread. Items with all values equal are divided by their own norm. Equal items: cosine 1, error 0.
    """
    import torch

    a, b = own.double().reshape(len(own), -1), wanted.double().reshape(len(wanted), -1)  # (N, values of an item)
    centre = b.mean(dim=1, keepdim=True) if kind == "images" else torch.zeros(1)
    if b.shape[1] > 1:
        cosines = torch.nn.functional.cosine_similarity(a - centre, b - centre, dim=1)
    else:
        cosines = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).expand(len(b))
    cosines = torch.where((a == b).all(dim=1), torch.ones_like(cosines), cosines)
    samples = {
        COSINE.name: cosines.tolist(),
        ERROR.name: relative_errors(own, wanted),
        DIFFERENCE.name: [float((a - b).abs().max())],
    }
    if kind != "images":
        return samples, {PSNR.name: Reason("no_images", {"output": kind})}
    error = float(((a - b) ** 2).mean())
    if error == 0:
        return samples, {PSNR.name: IDENTICAL}
    return samples | {PSNR.name: [-10 * math.log10(error)]}, {}


def without_class(output: torch.Tensor, kind: str) -> Reason | None:
    """Why an output of this kind names no class for its items, or None."""
    if kind == "images":
        return Reason("not_a_classifier")
    if kind == "features":
        return Reason("features_name_no_class")
    if not output.is_floating_point():
        return Reason("output_holds_integers")
    if output.ndim < 2 or output.shape[1] < 2:
        return Reason("single_logit")
    return None


def agreement(own: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """1.0 for each item whose largest logit is the reference's, else 0.0; in a map the share of its positions.
    Shapes (N, C) or (N, C, ...)."""
    equal = own.argmax(dim=1) == wanted.argmax(dim=1)
    return equal.reshape(len(own), -1).double().mean(dim=1).tolist()
