"""How far an output may be from the fp32 eager output of the same seed, by precision and kind of output.

Sampled images may drift along the trajectory without becoming worse, so their bounds are wider. The quality metrics
show whether they became worse. The bounds are far above what was measured on a CPU with AVX-512, in all of its backends
(the column `relative_error`, worst item, of `imgbench run precision`): digits_vit fp32 0.0000, fp16 0.0009, bf16 0.014,
int8 0.023; digits_dit and digits_sd at 10 steps fp32 0.0000, fp16 0.0007, bf16 0.0098, int8 0.033. With random weights
(`imgbench run precision_full`): ViT-B/16 fp16 0.0011, bf16 0.0090, int8 0.044; DiT-S/2 at 2 steps fp32 0.0000, bf16
0.032, int8 0.15. OpenVINO's bf16 has 0.029 there. It had 0.42, beyond its bound, when it rounded the angles of the
timestep's sinusoid to bf16, which turns 999 into 1000. The bounds of fp8 and tf32 follow from their mantissas, not from
measurement.

int8 over bf16 or fp16 has the bounds of int8, because its errors are as far below them: digits_vit 0.026 over bf16 and
0.016 over fp16, digits_dit at 10 steps 0.016 and 0.015, ViT-B/16 0.028 over bf16 (the worst recipe measured, eager,
CPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.numerics.precisions import Bounds
from harness.registry import PRECISIONS

if TYPE_CHECKING:
    import torch

ITEM = 3.0
LARGEST_ITEM = 0.9
REPEAT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The bounds for a precision and an output kind: on two means over the items, and on the error of each item."""

    cosine_floor: float
    error_ceiling: float
    item_error_ceiling: float


def tolerance(precision: str, kind: str) -> Tolerance:
    """The tolerance of "logits", "features" or "images" in a precision. The features of a classifier without its last
    layer have that of logits."""
    bounds: Bounds = PRECISIONS[precision].bounds["logits" if kind == "features" else kind]
    return Tolerance(
        cosine_floor=bounds.cosine_floor,
        error_ceiling=bounds.error_ceiling,
        item_error_ceiling=min(ITEM * bounds.error_ceiling, LARGEST_ITEM),
    )


def repeat_ceiling(precision: str, kind: str) -> float:
    """The largest allowed relative error between two outputs of one network for one input. Summation in another order
    causes no larger one. It is a fraction of the tolerance of the precision."""
    return REPEAT_SHARE * tolerance(precision, kind).error_ceiling


def relative_errors(own: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """By item, the norm of the difference over the norm of `wanted` around its mean. Equal shapes (N, ...).

    Items of a single value are divided by the batch's root mean square, since one value has no spread; items with all
    values equal are divided by their own norm. Equal items have the error 0.
    """
    import torch

    a, b = own.double().reshape(len(own), -1), wanted.double().reshape(len(wanted), -1)  # (N, values of an item)
    if b.shape[1] > 1:
        length, spread = b.norm(dim=1), (b - b.mean(dim=1, keepdim=True)).norm(dim=1)
        spread = torch.where(spread > 1e-12 * length, spread, length)
    else:
        spread = b.square().mean().sqrt().expand(len(b))
    errors: list[float] = ((a - b).norm(dim=1) / spread.clamp_min(1e-12)).tolist()
    return errors
