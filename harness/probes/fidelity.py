"""How close the output is to the fp32 eager output of the same seed: the price of a precision or a backend.

Computed on the timed batch, an item at a time. The cosine of images is taken after subtracting the reference's mean
value: two bright pictures have a raw cosine of 0.9 whatever they show. A mean cosine below the floor of the row's
precision makes the row invalid, so that a fast wrong answer never wins; the floor stands in its facts. Images of a
sampler may drift apart along the trajectory without being worse, hence their lower floors: quality says the rest.
Every process of a case is checked; the figures come from the first.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from harness import reference
from harness.probes import probe
from harness.trial import Findings, Trial
from harness.types import IDENTICAL, Metric

if TYPE_CHECKING:
    import torch

COSINE_FLOORS = {
    "logits": {"fp32": 0.9999, "tf32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.95, "fp8": 0.95},
    "images": {"fp32": 0.999, "tf32": 0.99, "fp16": 0.98, "bf16": 0.90, "int8": 0.80, "fp8": 0.80},
}

COSINE = Metric(
    name="cosine_similarity",
    unit="1",
    label="Cosine to fp32",
    better="higher",
    kind="quality_continuous",
    description="cosine between the output and the fp32 eager output of the same seed, a sample an item of the timed "
    "batch; of images after subtracting the reference's mean",
    summary="mean",
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
    description="share of items with the same top-1 class as fp32 eager; over the quality set where there is one",
    summary="mean",
)


@probe("fidelity", order=50, metrics=(COSINE, DIFFERENCE, PSNR, AGREEMENT))
def fidelity(trial: Trial) -> Findings:
    """Closeness of the timed batch's output to its fp32 eager reference."""
    names = (COSINE.name, DIFFERENCE.name, PSNR.name)
    own = trial.step().cpu()
    wanted = reference.output(trial, "timed batch", lambda: own)
    kind = trial.workload.output_kind
    samples, missing = closeness(own, wanted, kind)
    if kind == "logits" and trial.workload.quality is None:
        samples[AGREEMENT.name] = agreement(own, wanted)
    floor = COSINE_FLOORS[kind][trial.case.precision.split("_")[0]]  # all kinds of int8 have one floor
    cosine = statistics.fmean(samples[COSINE.name])
    fault = None if cosine >= floor else f"cosine {cosine:.4f} to the fp32 eager output is below {floor}"
    if reference.is_reference(trial.case):
        missing = dict.fromkeys((*names, AGREEMENT.name), "this row is the fp32 eager reference itself")
    if reference.is_reference(trial.case) or trial.replicate > 0:
        samples = {}
    return Findings(samples=samples, missing=missing, facts={"cosine_floor": floor}, invalid=fault)


def closeness(own: torch.Tensor, wanted: torch.Tensor, kind: str) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Cosine, largest difference and, for images, PSNR of two equally shaped tensors."""
    import torch

    a, b = own.double().flatten(1), wanted.double().flatten(1)  # (N, values of an item)
    centre = b.mean(dim=1, keepdim=True) if kind == "images" else torch.zeros(1)
    cosines = torch.nn.functional.cosine_similarity(a - centre, b - centre, dim=1)
    samples = {COSINE.name: cosines.tolist(), DIFFERENCE.name: [float((a - b).abs().max())]}
    if kind != "images":
        return samples, {PSNR.name: "PSNR is for images; this output is logits"}
    error = float(((a - b) ** 2).mean())
    if error == 0:
        return samples, {
            PSNR.name: IDENTICAL,
            AGREEMENT.name: "not a classifier",
        }
    return samples | {PSNR.name: [-10 * math.log10(error)]}, {AGREEMENT.name: "not a classifier"}


def agreement(own: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """1.0 for each item whose largest logit is the reference's, else 0.0. Shapes (N, C)."""
    return (own.argmax(dim=1) == wanted.argmax(dim=1)).float().tolist()
