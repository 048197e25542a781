"""What is stored of a set of images, so that two sets can be compared image by image after the run.

FID and KID are one figure each for a whole set. Whether two of them differ by more than the choice of seeds
explains can only be decided from each image: its features, and its mean kernel with the reference set.

    stored = encode(features, reference)       # JSON types, about 130 bytes for each image of 48 features
    decode(stored).features.shape              # (N, F)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

DTYPES: Final = {"features": "<f2", "cross": "<f8", "mean": "<f8", "root": "<f4"}


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """N images with F features against a reference set.

    `features` (N, F); `cross` (N,) is each image's mean kernel with the reference set; `mean` (F,) and `root` (F, F)
    are the reference's mean and the square root of its covariance.
    """

    features: Array
    cross: Array
    mean: Array
    root: Array


def kernel(a: ArrayLike, b: ArrayLike) -> Array:
    """(x y / F + 1)^3 of every two rows, (N, M): the kernel of KID (Binkowski et al., ICLR 2018)."""
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return np.asarray((left @ right.T / left.shape[1] + 1.0) ** 3)


def image_set(features: ArrayLike, reference: ArrayLike) -> ImageSet:
    """The set of features (N, F) and the reference set's features (M, F). Raises ValueError where F differs, or one is
    not finite."""
    mine, theirs = np.asarray(features, dtype=float), np.asarray(reference, dtype=float)
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        raise ValueError("a feature is not finite")
    if mine.ndim != 2 or theirs.ndim != 2 or mine.shape[1] != theirs.shape[1]:
        raise ValueError(f"features of shapes {mine.shape} and {theirs.shape} are not from the same extractor")
    values, vectors = np.linalg.eigh(np.cov(theirs, rowvar=False))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return ImageSet(features=mine, cross=kernel(mine, theirs).mean(axis=1), mean=theirs.mean(axis=0), root=root)


def encode(features: ArrayLike, reference: ArrayLike) -> dict[str, Any]:
    """The image set in JSON types: base64 of little-endian floats, with their shapes."""
    found = image_set(features, reference)
    return {name: _packed(getattr(found, name), dtype) for name, dtype in DTYPES.items()}


def decode(stored: Mapping[str, Any]) -> ImageSet:
    """Inverse of `encode`, up to the rounding of some. Raises ValueError, KeyError or TypeError on anything else."""
    return ImageSet(**{name: _unpacked(stored[name]) for name in DTYPES})


def _packed(array: Array, dtype: str) -> dict[str, Any]:
    with np.errstate(over="ignore"):
        small = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(small).all():  # beyond half precision
        return _packed(array, "<f8")
    data = small.tobytes()
    return {"shape": list(array.shape), "dtype": dtype, "base64": base64.b64encode(data).decode("ascii")}


def _unpacked(stored: Mapping[str, Any]) -> Array:
    if stored["dtype"] not in {"<f2", "<f4", "<f8"}:
        raise ValueError(f"the dtype {stored['dtype']!r} is not supported")
    flat = np.frombuffer(base64.b64decode(stored["base64"], validate=True), dtype=stored["dtype"])
    array: Array = flat.reshape(stored["shape"]).astype(float)
    if not np.isfinite(array).all():
        raise ValueError("a feature is not finite")
    return array
