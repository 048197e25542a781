"""The quality of images of digits, by two metrics, each with the conditions that it depends on.

`recognised` says whether the digits classifier, a support vector machine, recognises the requested digit. The
classifier is fitted at run time, in a fraction of a second, on the raw training scans of scikit-learn. The models are
trained without it. (The default guidance scale was chosen among 1.5, 2.5 and 4 by this metric and the FID. The tests
use other noise seeds than that choice.)

`fid_and_kid` is the distance of a set of images from the training scans: FID and KID by torch-fidelity, on the
features of the small network in `extractor`. The figures are comparable only with others of the same extractor,
reference and number of images, so a row should store `conditions()`. FID in particular is larger with fewer images.

    python -c "from benches.digits import quality; print(quality.noise_floor(), quality.conditions())"
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from benches.digits import data, models

if TYPE_CHECKING:
    import torch
    from sklearn.svm import SVC
    from torch.utils.data import Dataset

CLASSIFIER = {"kernel": "rbf", "gamma": 0.001, "C": 10.0}  # of scikit-learn's SVC, on scans of 0 to 16
COUNT = 200  # images for FID and KID, equally many of each digit
KID_SUBSETS, KID_SUBSET_SIZE = 50, 100


@functools.cache
def digits_classifier() -> SVC:
    """Return the support vector machine, fitted on the raw training scans (1400, 64)."""
    from sklearn.svm import SVC

    return SVC(**CLASSIFIER).fit(*data.scans_of("train"))


def recognised(images: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """Return, for each image of uint8 (N, 3, 32, 32), 1 if `digits_classifier()` predicts its
    label in (N,), else 0.

    Raises ValueError if the counts differ.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    return [int(right) for right in digits_classifier().predict(data.to_8x8(images)) == labels.numpy()]


def fid_and_kid(images: torch.Tensor, seed: int = 0) -> dict[str, float]:
    """Return `fid`, `kid_mean` and `kid_std` of uint8 (N, 3, 32, 32), N at least 2, against the training split.

    0 is the best value, but the unbiased KID may be negative. `seed` selects the subsets of KID. Nothing is written to
    disk. Raises ValueError for fewer than 2 images.
    """
    import torch_fidelity

    from benches.digits import extractor

    if len(images) < 2:
        raise ValueError(f"FID and KID need at least 2 images, not {len(images)}")
    extractor.register()
    with models.one_thread():
        found = torch_fidelity.calculate_metrics(
            input1=dataset(images),
            input2=dataset(data.load("train").images),
            feature_extractor=extractor.NAME,
            fid=True,
            kid=True,
            kid_subsets=KID_SUBSETS,
            kid_subset_size=min(KID_SUBSET_SIZE, len(images)),
            rng_seed=seed,
            batch_size=100,
            cuda=False,
            cache=False,
            save_cpu_ram=True,  # reads the images in this process
            verbose=False,
        )
    return {
        "fid": found["frechet_inception_distance"],
        "kid_mean": found["kernel_inception_distance_mean"],
        "kid_std": found["kernel_inception_distance_std"],
    }


def features(images: torch.Tensor) -> torch.Tensor:
    """Return the features, float64 (N, 48), of uint8 (N, 3, 32, 32), as FID and KID use them."""
    import torch

    from benches.digits import extractor

    with models.one_thread(), torch.no_grad():
        found: torch.Tensor = extractor.DigitsExtractor(extractor.NAME, [extractor.LAYER])(images)[0]
    return found


@functools.cache
def reference() -> torch.Tensor:
    """Return the features, float64 (1400, 48), of the training scans."""
    return features(data.load("train").images)


def dataset(images: torch.Tensor) -> Dataset[torch.Tensor]:
    """Return images (N, 3, 32, 32) as a dataset of single images, as torch-fidelity requires."""
    import torch
    from torch.utils.data import Dataset

    class Images(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, row: int) -> torch.Tensor:
            return images[row]

    return Images()


@functools.cache
def noise_floor() -> dict[str, float]:
    """Return FID and KID of `COUNT` real held-out scans, equally many of each digit. A perfect model would have
    this distance."""
    import torch

    held_out = data.load("held_out")
    rows = [torch.nonzero(held_out.labels == digit)[: COUNT // 10, 0] for digit in range(10)]
    return fid_and_kid(held_out.images[torch.cat(rows)])


def conditions() -> dict[str, Any]:
    """Return what FID and KID depend on besides the images. It belongs beside every value that is shown."""
    from benches.digits import extractor

    return {
        "extractor": extractor.NAME,
        "extractor_hash": models.weights_hash("extractor"),
        "features": extractor.FEATURES,
        "reference": "load_digits, 1,400 training scans",
        "reference_hash": data.content_hash(),
        "pictures": COUNT,  # the stored key
        "kid_subsets": KID_SUBSETS,
        "kid_subset_size": KID_SUBSET_SIZE,
    }
