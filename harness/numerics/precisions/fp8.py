"""fp8: linear layers in e4m3 and the rest of the network in bf16. Not yet proven on hardware.

torch multiplies with a scale per output channel of the weights and per row of the activations. TensorRT has one scale
per tensor, with calibrated ranges (Q/DQ nodes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from harness.numerics.linear_use import Left, Range, Ranges
from harness.numerics.precisions import ADA, Bounds, Precision, Quantiser, register
from harness.reasons import Reason

if TYPE_CHECKING:
    import torch

MULTIPLE: Final = 16  # torchao leaves a layer of another size in bf16, and only logs it


def quantise(module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear], _ranges: Ranges) -> torch.nn.Module:
    from torchao import quantization as ao

    from harness.numerics.quantisation import with_torchao

    def config(_name: str, _layer: torch.nn.Linear) -> Any:
        return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())

    return with_torchao(module, layers, config)


def unfit(layer: torch.nn.Linear, _seen: Range | None) -> Reason | None:
    return Left.FP8_SIDES if any(side % MULTIPLE for side in layer.weight.shape) else None


register(
    Precision(
        name="fp8_e4m3",
        description="linear layers in fp8 and the rest in bf16; needs compute capability 8.9 or newer",
        activations="bfloat16",
        stored="float8_e4m3fn",
        quantiser=Quantiser(name="fp8_e4m3", quantise=quantise, unfit=unfit, products="fp8"),
        bounds={
            "logits": Bounds(cosine_floor=0.95, error_ceiling=0.3),
            "images": Bounds(cosine_floor=0.80, error_ceiling=0.6),
        },
        needs_gpu=Reason("fp8_needs_gpu"),
        capability=ADA,
        symbol="cross",
        dash="longdashdot",
    )
)
