"""The model card: how the stored weights were made, and their measured quality. `benches.digits.train` writes it.

python -m benches.digits.train
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benches.digits import data, evaluate, quality
from benches.digits.training_steps import STEPS, steps_of

CARD = """# Digits: the embedded models

`python -m benches.digits.train` trains these models (seed {seed}; steps: {steps}). The
data are the scans of handwritten digits that scikit-learn contains (E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI, 1998), enlarged from 8x8 to 32x32. Of the 1,797 scans, {train:,} train everything here, and
{held_out} are held out. The sha256 of the data and the split is
`{data_hash}`.
The licence is Apache-2.0, as that of the whole project.

| folder | what | library class | MB |
|---|---|---|--:|
| `vit` | classifier | timm `VisionTransformer` | {vit_size:.2f} |
| `dit` | generator, conditioned on the class | diffusers `DiTPipeline` | {dit_size:.2f} |
| `sd` | generator, conditioned on text | diffusers `StableDiffusionPipeline` | {sd_size:.2f} |
| `extractor` | features of FID and KID | `benches.digits.extractor.Network` | {extractor_size:.2f} |

## Measured quality

`python -m benches.digits.evaluate` measures the table: {count} images per row, {each} of each digit, noise seed 0,
fp32. "Recognised" is the share of images in which a support vector machine sees the requested digit. It is fitted on
the raw training scans and is no part of the training. It recognises {recognised:.1%} of the real held-out digits.
FID and KID compare with the {train:,} training scans in the extractor's 48 standardised features. They are comparable
with no other FID or KID. The last line is that of {floor} real held-out digits. A generator may be below it: guidance
makes a set less varied, and the scatter of a small set raises FID.

{table}

## Limits

The models are trained on 1,400 small scans. The generators know ten digits, and ten English number words in a few
templates. They show what a change to a sampler, a precision or a kernel does to an image. They show nothing about the
quality of large models.
"""


def write(
    folder: Path,
    share: float,
    seed: int,
    images: int = quality.COUNT,
    steps: Sequence[int] = evaluate.STEPS,
) -> Path:
    """Measure the models in `folder`, print the table, write README.md there, and return its path. `share` is the share
    of the steps that were trained, and `images` is the number of images per row."""
    table = evaluate.table(folder, steps, images=images)
    held_out = data.load("held_out")
    right = quality.recognised(held_out.images, held_out.labels)
    print(table, flush=True)
    text = CARD.format(
        seed=seed,
        steps=", ".join(f"{name} {steps_of(name, share):,}" for name in STEPS),
        train=data.TRAIN_COUNT,
        held_out=data.HELD_OUT_COUNT,
        data_hash=data.content_hash(),
        count=images,
        each=images // 10,
        floor=quality.COUNT,
        recognised=sum(right) / len(right),
        table=table,
        **{f"{name}_size": megabytes(folder / name) for name in ("vit", "dit", "sd", "extractor")},
    )
    card = folder / "README.md"
    card.write_text(text)
    return card


def megabytes(folder: Path) -> float:
    """Return the size of all files below `folder`, in 10^6 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
