"""How many optimiser steps each digits model is trained for: the training runs them, and the model card states them."""

from __future__ import annotations

from typing import Final

STEPS: Final = {"vit": 1000, "extractor": 1000, "vae": 1200, "dit": 2000, "sd": 1500}


def steps_of(name: str, share: float) -> int:
    """The steps of a model in a training of this share of the steps; at least 2."""
    return max(2, round(STEPS[name] * share))
