"""Precisions without quantisation: the weights and the activations of the whole network are in one type."""

from __future__ import annotations

from typing import Final

from harness.numerics.precisions import AMPERE, Bounds, Precision, register
from harness.reasons import Reason

FP32: Final = register(
    Precision(
        name="fp32",
        description="IEEE fp32: TF32 is off, also in cuDNN, where torch leaves it on",
        activations="float32",
        bounds={
            "logits": Bounds(cosine_floor=0.9999, error_ceiling=0.01),
            "images": Bounds(cosine_floor=0.999, error_ceiling=0.04),
        },
        symbol="circle",
        dash="solid",
    )
)
register(
    Precision(
        name="tf32",
        description="fp32 with TF32 on in matrix products and convolutions",
        activations="float32",
        bounds={
            "logits": Bounds(cosine_floor=0.999, error_ceiling=0.03),
            "images": Bounds(cosine_floor=0.99, error_ceiling=0.15),
        },
        tf32=True,
        needs_gpu=Reason("tf32_needs_gpu"),
        capability=AMPERE,
        symbol="hexagon",
        dash="longdash",
    )
)
BF16: Final = register(
    Precision(
        name="bf16",
        description="weights and activations are cast to bfloat16",
        activations="bfloat16",
        bounds={
            "logits": Bounds(cosine_floor=0.99, error_ceiling=0.1),
            "images": Bounds(cosine_floor=0.90, error_ceiling=0.4),
        },
        capability=AMPERE,
        symbol="diamond",
        dash="dash",
    )
)
FP16: Final = register(
    Precision(
        name="fp16",
        description="weights and activations are cast to float16",
        activations="float16",
        bounds={
            "logits": Bounds(cosine_floor=0.999, error_ceiling=0.03),
            "images": Bounds(cosine_floor=0.98, error_ceiling=0.2),
        },
        upcast="fp32",
        symbol="square",
        dash="dashdot",
    )
)
