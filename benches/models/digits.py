"""The embedded digits models as workloads: small models, trained in this repository, whose quality is measured.

digits_vit classifies scans. digits_dit and digits_sd generate them, by class and from text. `weights` is "digits" (the
trained ones in the repository), "random" (the same architecture, seeded) or a folder in the same format. The quality of
the trained ones is measured: the classifier on the held-out scans, the generators on 200 images, 20 of each digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.digits import models as digits
from benches.models import folders, reading
from benches.models.pipeline import UNGUIDED
from harness.registry import MODELS
from harness.types import CalibrationData, Case, Metric, Quality, Samples, Workload

if TYPE_CHECKING:
    import torch

IMAGES = 200  # 20 per digit, in turn; item i has seed i whatever the case's seed is
CALIBRATION = 64  # scans
FIRST_CALIBRATION_SEED = 500_000  # half of workloads.SEEDS_PER_CASE: beyond the timed and evaluated items of seed 0
WEIGHTS = ("digits", "random", "folder")

TOP1 = Metric(
    name="top1",
    unit="share",
    label="top-1 accuracy",
    better="higher",
    kind="quality_item",
    summary="mean",
    description="Share of the 397 held-out scans that are classified correctly. A sample is one scan, 0 or 1",
)
RECOGNISED = Metric(
    name="recognised",
    unit="share",
    label="recognised as requested",
    better="higher",
    kind="quality_item",
    summary="mean",
    description="Share of 200 generated images, 20 of each digit, in which a support vector machine fitted on the "
    "training scans reads the requested digit. A sample is one image, 0 or 1",
)
FID = Metric(
    name="fid",
    unit="1",
    label="FID (digits features)",
    better="lower",
    kind="quality_set",
    summary="last",
    description="Frechet distance of 200 generated images to the 1,400 training scans, in the features of the "
    "repository's own digits network. Comparable only with the same extractor, reference and number of images",
)
KID = Metric(
    name="kid",
    unit="1",
    label="KID (digits features)",
    better="lower",
    kind="quality_set",
    summary="last",
    description="Kernel distance (unbiased squared maximum mean discrepancy, so about 0 at best and sometimes below) "
    "of 200 generated images to the 1,400 training scans, mean over subsets of 100, in the same features as FID",
)

QUALITY_METRICS = (TOP1, RECOGNISED, FID, KID)


def _generator_axes(guidance_scale: float) -> dict[str, Any]:
    return {"image_size": 32, "scheduler": "dpmpp_2m", "num_steps": 20, "guidance_scale": guidance_scale}


@MODELS.add(
    "digits_vit",
    family="ViT classifier",
    description="a timm ViT with patches of 4 px, trained here on 1,400 scanned digits: 32 px -> 10 classes",
    axes={"image_size": 32},
    weights=WEIGHTS,
    libraries=("timm", "sklearn.datasets"),
)
def digits_vit(case: Case) -> Workload:
    """One forward over the first held-out scans."""
    import torch

    from benches.digits import data
    from benches.models.workloads import classifier_workload

    scans = data.load("held_out")
    images = digits.preprocess(scans.images)
    first = images[torch.arange(case.batch_size) % len(images)]
    identity = {"image_size": case.image_size, "images": f"held out, {data.content_hash()}"}
    quality = _top1(images, scans.labels, case.batch_size) if case.weights == "digits" else None
    if case.weights not in ("digits", "random"):
        folders.check_digits_vit(Path(case.weights).expanduser(), int(case.image_size or 0))
    with reading.by("timm", Path(case.weights).expanduser()):
        module = digits.build_vit(_source(case))
    workload = classifier_workload(module, case, first, _weights_hash("vit", case), identity, quality)
    return replace(workload, calibration=_training_scans(case.batch_size))


@MODELS.add(
    "digits_dit",
    family="DiT",
    description="a diffusers DiTPipeline trained here on scanned digits, class-conditional: transformer 2.9 M, 32 px",
    axes=_generator_axes(digits.DIT_GUIDANCE),
    weights=WEIGHTS,
    folder_axes=folders.pipeline_axes,
    unguided_up_to=UNGUIDED,
)
def digits_dit(case: Case) -> Workload:
    """The digits 0 to 9 in turn, by class."""
    from benches.models.dit import dit_workload

    quality = _generated_quality(case, range(10)) if case.weights == "digits" else None
    pipeline = _pipeline("DiTPipeline", digits.build_dit, case)
    workload = dit_workload(pipeline, case, range(10), _weights_hash("dit", case), quality=quality)
    return replace(workload, calibration=_other_pictures(case, range(10)))


@MODELS.add(
    "digits_sd",
    family="Stable Diffusion",
    description='a diffusers StableDiffusionPipeline trained here, conditioned on text ("a handwritten seven"): '
    "CLIP text encoder, U-Net 2.2 M, VAE, 32 px",
    axes={**_generator_axes(digits.SD_GUIDANCE), "prompt": None},
    weights=WEIGHTS,
    folder_axes=folders.pipeline_axes,
    unguided_up_to=UNGUIDED,
)
def digits_sd(case: Case) -> Workload:
    """The digits zero to nine in turn, as text; or `case.prompt` for every item, and then without quality."""
    from benches.models.stable_diffusion import stable_diffusion_workload

    asked = digits.PROMPTS if case.prompt is None else (case.prompt,)
    judged = case.weights == "digits" and case.prompt is None
    quality = _generated_quality(case, digits.PROMPTS) if judged else None
    pipeline = _pipeline("StableDiffusionPipeline", digits.build_sd, case)
    workload = stable_diffusion_workload(pipeline, case, asked, _weights_hash("sd", case), quality=quality)
    return replace(workload, calibration=_other_pictures(case, asked))


def _training_scans(batch_size: int) -> CalibrationData:
    """At least CALIBRATION training scans, in whole batches. No held-out scan is among them."""

    def batches() -> Sequence[torch.Tensor]:
        import torch

        from benches.digits import data

        scans = digits.preprocess(data.load("train").images)
        number = -(-CALIBRATION // batch_size)
        return tuple(scans[torch.arange(i * batch_size, (i + 1) * batch_size) % len(scans)] for i in range(number))

    return CalibrationData(batches=batches, source=f"{-(-CALIBRATION // batch_size) * batch_size} training scans")


def _other_pictures(case: Case, asked: Sequence[Any]) -> CalibrationData:
    """One batch of images from seeds that no quality figure and no timed batch uses."""

    def batches() -> Sequence[Any]:
        from benches.models.workloads import Batch

        items = range(case.batch_size)
        seeds = tuple(FIRST_CALIBRATION_SEED + item for item in items)
        return (Batch(asked=tuple(asked[item % len(asked)] for item in items), seeds=seeds),)

    return CalibrationData(batches=batches, source=f"{case.batch_size} images of other seeds")


def _pipeline(class_name: str, build: Callable[[str], Any], case: Case) -> Any:
    """The generator with the weights of the repository, with random weights, or from a folder."""
    if case.weights in ("digits", "random"):
        return build(case.weights)
    import diffusers

    from benches.models.architectures import pipeline_options
    from benches.models.weights import pipeline_from_folder

    folder = Path(case.weights).expanduser()
    return pipeline_from_folder(getattr(diffusers, class_name), folder, **pipeline_options(class_name))


def _source(case: Case) -> str | Path:
    return case.weights if case.weights in ("digits", "random") else Path(case.weights).expanduser()


def _weights_hash(name: str, case: Case) -> str:
    return digits.weights_hash(name, _source(case)) or f"random-{digits.RANDOM_SEED}"


def _top1(images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> Quality:
    from benches.digits import data

    def batches() -> Sequence[torch.Tensor]:
        import torch

        indices = torch.arange(-(-len(images) // batch_size) * batch_size) % len(images)
        return tuple(images[part] for part in indices.reshape(-1, batch_size))

    def score(logits: torch.Tensor) -> Samples:
        right = logits[: len(labels)].float().argmax(dim=1).cpu() == labels
        return {"top1": right.double().tolist()}

    conditions = {"items": len(images), "data": data.content_hash()}
    return Quality(metrics=(TOP1,), batches=batches, score=score, conditions=conditions)


def _generated_quality(case: Case, asked: Sequence[Any]) -> Quality:
    """The quality of a generator, for the ten labels or prompts of `asked` in turn, digit 0 first."""
    from benches.digits import quality
    from harness import image_sets

    def batches() -> Sequence[Any]:
        from benches.models.workloads import Batch

        filled = -(-IMAGES // case.batch_size) * case.batch_size
        starts = range(0, filled, case.batch_size)
        parts = [[item % IMAGES for item in range(start, start + case.batch_size)] for start in starts]
        return tuple(Batch(asked=tuple(asked[i % 10] for i in part), seeds=tuple(part)) for part in parts)

    def score(images: torch.Tensor) -> Samples:
        import torch

        scored = _bytes(images[:IMAGES])
        distance = quality.fid_and_kid(scored)
        hits = quality.recognised(scored, torch.arange(IMAGES) % 10)
        return {"recognised": [float(hit) for hit in hits], "fid": [distance["fid"]], "kid": [distance["kid_mean"]]}

    conditions: Mapping[str, Any] = {"items": IMAGES, "seeds": f"0 to {IMAGES - 1}", **quality.conditions()}
    return Quality(
        metrics=(RECOGNISED, FID, KID),
        batches=batches,
        score=score,
        conditions=conditions,
        images=lambda images: _bytes(images).permute(0, 2, 3, 1),
        keep=lambda images: image_sets.encode(quality.features(_bytes(images[:IMAGES])), quality.reference()),
        captions=tuple(str(asked[item % 10]) for item in range(IMAGES)),
    )


def _bytes(images: torch.Tensor) -> torch.Tensor:
    """Images float (N, 3, H, W) of 0 to 1 as uint8 of the same shape, on the CPU."""
    import torch

    return (images.float() * 255.0).round().clamp(0.0, 255.0).to(torch.uint8).cpu()
