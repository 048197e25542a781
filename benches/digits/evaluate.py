"""The quality table of the digits models, measured from the weights. The model card contains it.

python -m benches.digits.evaluate
python -m benches.digits.evaluate --weights /tmp/digits --steps 20
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.digits import data, models, quality

if TYPE_CHECKING:
    import torch

GENERATORS = ("dit", "sd")
SOLVERS = ("dpmpp_2m", "ddim")
STEPS = (3, 5, 10, 20)
BATCH = 8  # images


@dataclass(frozen=True, kw_only=True)
class Row:
    """The quality of one generator with one solver and number of steps. `recognised` is a share of 1, and `seconds` are
    those of all images."""

    generator: str
    solver: str
    steps: int
    guidance: float
    images: int
    recognised: float
    fid: float
    kid_mean: float
    kid_std: float
    seconds: float


def top_1(weights: str | Path = "digits") -> float:
    """Return the classifier's top-1 accuracy on the 397 held-out scans."""
    import torch

    held_out = data.load("held_out")
    with torch.inference_mode():
        answers = models.build_vit(weights)(models.preprocess(held_out.images)).argmax(dim=1)  # (397,)
    return float((answers == held_out.labels).float().mean())


def with_solver(pipeline: Any, solver: str) -> Any:
    """Give `pipeline` the scheduler `solver`, made from the config of its stored scheduler, and return the pipeline.
    Raises KeyError for an unknown solver."""
    import diffusers

    kinds = {
        "ddim": diffusers.DDIMScheduler,
        "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "heun": diffusers.HeunDiscreteScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
    }
    pipeline.scheduler = kinds[solver].from_config(pipeline.scheduler.config)
    return pipeline


def generate(
    pipeline: Any,
    labels: Sequence[int],
    steps: int,
    *,
    guidance: float | None = None,
    seed: int = 0,
    batch: int = BATCH,
) -> torch.Tensor:
    """Return one image per label, uint8 (N, 3, 32, 32), from noise that is seeded by the index of each image.

    `pipeline` is one of the two generators. `guidance` is by default its default scale.
    """
    import torch

    made = []
    for start in range(0, len(labels), batch):
        part = list(labels[start : start + batch])
        arguments: dict[str, Any] = {"guidance_scale": guidance or models.DIT_GUIDANCE, "class_labels": part}
        if hasattr(pipeline, "text_encoder"):
            arguments = {
                "guidance_scale": guidance or models.SD_GUIDANCE,
                "prompt": [models.prompt(digit) for digit in part],
                "height": data.IMAGE_SIDE,
                "width": data.IMAGE_SIDE,
            }
        noise = [torch.Generator().manual_seed(seed * 1_000_003 + start + place) for place in range(len(part))]
        made.append(pipeline(**arguments, num_inference_steps=steps, generator=noise, output_type="np").images)
    return torch.cat([torch.from_numpy(part) for part in made]).mul(255).round().to(torch.uint8).permute(0, 3, 1, 2)


def measure(pipeline: Any, name: str, solver: str, steps: int, *, count: int = quality.COUNT, seed: int = 0) -> Row:
    """Return the quality of `count` images, equally many of each digit, from `pipeline` with `solver`."""
    import torch

    labels = [place % 10 for place in range(count)]
    begun = time.perf_counter()
    generated = generate(with_solver(pipeline, solver), labels, steps, seed=seed)
    seconds = time.perf_counter() - begun
    right = quality.recognised(generated, torch.tensor(labels))
    guidance = models.DIT_GUIDANCE if name == "dit" else models.SD_GUIDANCE
    return Row(
        generator=name,
        solver=solver,
        steps=steps,
        guidance=guidance,
        images=count,
        recognised=sum(right) / count,
        seconds=seconds,
        **quality.fid_and_kid(generated),
    )


def table(weights: Path | None = None, steps: Sequence[int] = STEPS, *, images: int = quality.COUNT) -> str:
    """Return the quality of all models in `weights`, the stored ones by default, as a Markdown table."""
    root = weights or models.WEIGHTS
    floor = quality.noise_floor()
    lines = [
        f"Classifier: {top_1(root / 'vit'):.2%} of the {data.HELD_OUT_COUNT} held-out digits right (top-1).",
        "",
        "| generator | solver | steps | guidance | recognised | FID | KID mean | KID std |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in GENERATORS:
        pipeline = (models.build_dit if name == "dit" else models.build_sd)(root / name)
        for solver in SOLVERS:
            for calls in steps:
                row = measure(pipeline, name, solver, calls, count=images)
                lines.append(
                    f"| {name} | {solver} | {calls} | {row.guidance} | {row.recognised:.1%} | {row.fid:.2f} "
                    f"| {row.kid_mean:.4f} | {row.kid_std:.4f} |"
                )
    lines.append(
        f"| real held-out digits |  |  |  |  | {floor['fid']:.2f} | {floor['kid_mean']:.4f} | {floor['kid_std']:.4f} |"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the quality table of the weights that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benches.digits.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    given = parser.parse_args(arguments)
    with models.one_thread():
        print(table(given.weights, given.steps))


if __name__ == "__main__":
    main()
