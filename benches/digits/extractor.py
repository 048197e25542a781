"""The small network whose features FID and KID compare, registered with torch-fidelity.

`benches.digits.train` trains it on the training split alone. It learns to classify the digit and to reconstruct the 8x8
scan from its 48 features, so that the features describe the handwriting and not only the class. (The usual Inception
network does not suit 32x32 digits and needs a download, and its 2,048 features need more than 200 images.)

    python -c "from benches.digits import extractor; print(extractor.load_network())"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from benches.digits.models import weights_folder

NAME = "imgbench-digits-cnn"  # torch-fidelity's name of the extractor
FEATURES = 48
LAYER = "features"


class Network(nn.Module):
    """Images of -1 to 1 -> features. Training also uses two heads: features -> logits (`classify`), and features ->
    scan of 0 to 1 (`redraw`)."""

    def __init__(self) -> None:
        """Build with torch's default random weights."""
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2, padding=1),  # (N, 16, 16, 16)
            nn.GELU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),  # (N, 32, 8, 8)
            nn.GELU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),  # (N, 64, 4, 4)
            nn.GELU(),
            nn.Flatten(),  # (N, 1024)
            nn.Linear(1024, FEATURES),  # (N, 48)
        )
        self.classify = nn.Linear(FEATURES, 10)
        self.redraw = nn.Linear(FEATURES, 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features, (N, 48), of float images (N, 3, 32, 32) of -1 to 1."""
        features: torch.Tensor = self.trunk(images)
        return features


class DigitsExtractor(FeatureExtractorBase):
    """The stored `Network` with the interface that torch-fidelity requires."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        """Load the stored network. torch-fidelity passes options, which this extractor ignores."""
        super().__init__(name, features_list)
        self.network = load_network()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Return the only layer."""
        return (LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Return the only layer for each metric."""
        return LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        """Return False: the network must not be compiled."""
        return False

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features, float64 (N, 48), of uint8 images (N, 3, 32, 32), in a tuple as torch-fidelity
        requires."""
        if images.dtype != torch.uint8 or images.shape[1:] != (3, 32, 32):
            raise ValueError(f"the images must be uint8 (N, 3, 32, 32), not {images.dtype} {tuple(images.shape)}")
        return (self.network(images.float() / 127.5 - 1.0).double(),)


def load_network(weights: str | Path = "digits") -> Network:
    """Return the stored network in eval mode; FileNotFoundError if it has not been trained."""
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(weights_folder("extractor", weights) / "model.safetensors"))
    return network.eval()


def register() -> None:
    """Register the extractor with torch-fidelity as `NAME`, once per process."""
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

    if NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(NAME, DigitsExtractor)
