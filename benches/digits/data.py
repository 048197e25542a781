"""The digits: 1,797 real 8x8 scans that scikit-learn contains, split once and enlarged to 32x32.

Source: the test part of the UCI "Optical Recognition of Handwritten Digits" set (E. Alpaydin, C. Kaynak, 1998), read
from the installed scikit-learn (`sklearn.datasets.load_digits`), so nothing is downloaded and nothing is copied here.
Each scan counts ink on an 8x8 grid, 0 (paper) to 16 (full), and is shown white on black.

Split: stratified and seeded, with 1,400 scans to train and 397 held out. No training uses the held-out scans.

Enlarging: bicubic, so that the 32x32 image looks like a pen stroke. The small input is corrected until the mean of each
4x4 block equals the scan. So the area mean of the image is still the scan (`to_8x8`), within rounding and clipping.

    python -c "from benches.digits import data; print(data.load('held_out').images.shape, data.content_hash()[:16])"
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

Split = Literal["train", "held_out"]

TRAIN_COUNT = 1400  # images
HELD_OUT_COUNT = 397  # images
SPLIT_SEED = 0
SCAN_SIDE = 8  # pixels
IMAGE_SIDE = 32  # pixels
FULL_INK = 16.0  # the scan's largest value
CORRECTIONS = 4  # rounds of the correction; further rounds change less than the rounding to 8 bits


@dataclass(frozen=True, kw_only=True)
class Digits:
    """One split: `images` uint8 (N, 3, 32, 32) with three equal channels, `labels` int64 (N,) of 0 to 9."""

    images: torch.Tensor
    labels: torch.Tensor


@functools.cache
def load(split: Split) -> Digits:
    """Return the images and labels of `split`, always in the same order. Cached: treat the tensors as read-only.

    Reads only scikit-learn's installed file. Raises ValueError for a name other than "train" or "held_out".
    """
    import torch

    scans, labels = scans_of(split)
    return Digits(images=enlarge(scans), labels=torch.from_numpy(labels))


@functools.cache
def scans_of(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the raw scans of `split`: float64 (N, 64) of 0 to 16, and int64 labels (N,)."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if split not in ("train", "held_out"):
        raise ValueError(f'unknown split {split!r}; known: "train", "held_out"')
    scans, labels = load_digits(return_X_y=True)
    kept, held = train_test_split(
        np.arange(len(labels)), train_size=TRAIN_COUNT, random_state=SPLIT_SEED, stratify=labels
    )
    rows = np.sort(kept if split == "train" else held)
    return scans[rows], labels[rows].astype(np.int64)


def enlarge(scans: np.ndarray) -> torch.Tensor:
    """Return scans (N, 64) of 0 to 16 as images, uint8 (N, 3, 32, 32), white ink on black."""
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    def bicubic(small: torch.Tensor) -> torch.Tensor:
        big = interpolate(small, size=(IMAGE_SIDE, IMAGE_SIDE), mode="bicubic", align_corners=False)
        return big.clamp(0.0, 1.0)

    wanted = torch.from_numpy(scans).float().reshape(-1, 1, SCAN_SIDE, SCAN_SIDE) / FULL_INK  # (N, 1, 8, 8)
    small = wanted.clone()
    for _ in range(CORRECTIONS):
        small = small + wanted - avg_pool2d(bicubic(small), IMAGE_SIDE // SCAN_SIDE)
    images = (bicubic(small) * 255.0).round().to(torch.uint8)  # (N, 1, 32, 32)
    return images.repeat(1, 3, 1, 1)  # (N, 3, 32, 32)


def to_8x8(images: torch.Tensor) -> np.ndarray:
    """Return images, uint8 (N, 3, 32, 32), as scans: the area mean of all channels, float64 (N, 64) of 0 to 16."""
    from torch.nn.functional import avg_pool2d

    grey = images.double().mean(dim=1, keepdim=True)  # (N, 1, 32, 32) of 0 to 255
    scans: np.ndarray = (avg_pool2d(grey, IMAGE_SIDE // SCAN_SIDE) * (FULL_INK / 255.0)).flatten(1).numpy()  # (N, 64)
    return scans


@functools.cache
def content_hash() -> str:
    """Return sha256 (hex) of both splits' raw scans and labels in order, which identifies the data and the split."""
    digest = hashlib.sha256()
    for split in ("train", "held_out"):
        scans, labels = scans_of(split)
        digest.update(scans.astype("uint8").tobytes())
        digest.update(labels.astype("uint8").tobytes())
    return digest.hexdigest()
