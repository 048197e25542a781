"""int8: linear layers with int8 weights per output channel, and the rest of the network in fp32, bf16 or fp16.

int8_dynamic          activations are quantised at run time from their own range
int8_dynamic_classic  the same by torch.ao.quantization.quantize_dynamic: one range for all rows (FBGEMM), CPU only
int8_static           int8 activations with calibrated ranges: one scale for all activations of a layer, from the
                      largest absolute input that calibration saw (Q/DQ in ONNX)
int8_weight_only      the weights are multiplied in the activations' own dtype

With the suffix _bf16 or _fp16 the rest of the network is in that type, which is how such networks are run on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from harness import devices
from harness.numerics.linear_use import Left, Range, Ranges
from harness.numerics.precisions import Bounds, Precision, Quantiser, register
from harness.numerics.precisions.floating import BF16, FP16, FP32
from harness.reasons import Reason

if TYPE_CHECKING:
    import torch

LARGEST: Final = 127.0
# What torch._int_mm accepts on a GPU (ATen's cuda/Blas.cpp). With other shapes eager torchao multiplies on the CPU or
# in fp32 (its kernel/intmm.py). inductor calls the same operator; in max-autotune it also tries a Triton kernel without
# a limit on rows (torch/_inductor/kernel/mm.py, tuned_int_mm). All of its modes leave the same layers unquantised.
INT_MM_MULTIPLE: Final = 8
INT_MM_ROWS: Final = 17
BOUNDS: Final = {
    "logits": Bounds(cosine_floor=0.95, error_ceiling=0.3),
    "images": Bounds(cosine_floor=0.80, error_ceiling=0.6),
}


def _unfit_for_int_mm(layer: torch.nn.Linear, seen: Range | None) -> Reason | None:
    from harness.numerics.quantisation import on_gpu

    if not on_gpu(layer):
        return None
    if any(side % INT_MM_MULTIPLE for side in layer.weight.shape):
        return Left.GPU_SIDES
    return Left.GPU_ROWS if seen is not None and seen.rows < INT_MM_ROWS else None


def _dynamic(module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear], _ranges: Ranges) -> torch.nn.Module:
    from torchao import quantization as ao

    from harness.numerics.quantisation import with_torchao

    return with_torchao(module, layers, lambda _name, _layer: ao.Int8DynamicActivationInt8WeightConfig())


def _weight_only(module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear], _ranges: Ranges) -> torch.nn.Module:
    from torchao import quantization as ao

    from harness.numerics.quantisation import with_torchao

    return with_torchao(module, layers, lambda _name, _layer: ao.Int8WeightOnlyConfig())


def _static(module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear], ranges: Ranges) -> torch.nn.Module:
    from harness.numerics.quantisation import with_torchao

    return with_torchao(module, layers, lambda name, layer: _static_config(ranges[name], layer))


def _static_config(seen: Range, layer: torch.nn.Linear) -> Any:
    import torch
    from torchao import quantization as ao

    size, weight = max(seen.largest, 1e-12) / LARGEST, layer.weight
    # In fp32 under any base, as torchao's own scales are: bf16 would round it by up to 0.4 %.
    scale = torch.full([1] * seen.ndim, size, dtype=torch.float32, device=weight.device)
    return ao.Int8StaticActivationInt8WeightConfig(act_quant_scale=scale, granularity=[ao.PerTensor(), ao.PerRow()])


def _classic(module: torch.nn.Module, layers: Mapping[str, torch.nn.Linear], _ranges: Ranges) -> torch.nn.Module:
    import torch

    if not layers:
        return module
    if isinstance(module, torch.nn.Linear):  # a network that is a single layer: only children are replaced
        return next(_classic(torch.nn.Sequential(module), {"0": module}, _ranges).children())
    _without_fused_encoder(module)
    recipe = torch.ao.quantization.default_dynamic_qconfig
    quantised: torch.nn.Module = torch.ao.quantization.quantize_dynamic(
        module, dict.fromkeys(layers, recipe), dtype=torch.qint8, inplace=True
    )
    return quantised


def _without_fused_encoder(module: torch.nn.Module) -> None:
    """Makes every nn.TransformerEncoderLayer call its layers: its fused kernel would read their weights, which are no
    longer plain tensors. The result is the same."""
    import torch

    for layer in module.modules():
        if isinstance(layer, torch.nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0


def _not_plain(layer: torch.nn.Linear, _seen: Range | None) -> Reason | None:
    import torch

    return None if type(layer) is torch.nn.Linear else Left.NOT_PLAIN


def _classic_unsupported(device: str) -> Reason | None:
    import torch

    if devices.kind(device) != "cpu":
        return Reason("classic_on_cpu_only")
    if not hasattr(torch.ao.quantization, "quantize_dynamic"):
        return Reason("classic_gone", {"version": torch.__version__})
    engine = torch.backends.quantized.engine
    return None if engine not in {"none", ""} else Reason("no_quantised_engine")


DYNAMIC: Final = Quantiser(
    name="int8_dynamic", quantise=_dynamic, unfit=_unfit_for_int_mm, products="int8", waits_for_gpu=True
)
CLASSIC: Final = Quantiser(
    name="int8_dynamic_classic",
    quantise=_classic,
    unfit=_not_plain,
    products="int8",
    untraceable=Reason("not_traceable"),
    unsupported=_classic_unsupported,
    packages=(),  # torchao is imported nevertheless, because the peak memory of stored runs includes it
)
STATIC: Final = Quantiser(
    name="int8_static", quantise=_static, unfit=_unfit_for_int_mm, products="int8", calibrated=True, waits_for_gpu=True
)
WEIGHT_ONLY: Final = Quantiser(name="int8_weight_only", quantise=_weight_only)


def _register(quantiser: Quantiser, base: Precision, symbol: str, dash: str, description: str = "") -> None:
    """Registers `quantiser` over `base`. If the base is fp32, the name is that of the quantiser alone."""
    register(
        Precision(
            name=quantiser.name if base is FP32 else f"{quantiser.name}_{base.name}",
            description=description or f"{quantiser.name}, with the rest of the network in {base.name}",
            activations=base.activations,
            stored="int8",
            quantiser=quantiser,
            upcast=quantiser.name if base.upcast else None,
            bounds=BOUNDS,
            capability=base.capability,
            symbol=symbol,
            dash=dash,
        )
    )


_register(DYNAMIC, FP32, "triangle-up", "dot", "int8 weights; activations are quantised at run time")
_register(CLASSIC, FP32, "triangle-down", "2px,6px", "torch.ao.quantization.quantize_dynamic, on a CPU only")
_register(STATIC, FP32, "star", "8px,2px,2px,2px", "int8 weights; activations are quantised by ranges from real inputs")
_register(WEIGHT_ONLY, FP32, "pentagon", "4px,8px", "int8 weights; activations are not quantised")
_register(DYNAMIC, BF16, "triangle-left", "2px,4px")
_register(DYNAMIC, FP16, "triangle-right", "2px,10px")
_register(STATIC, BF16, "hexagram", "12px,2px,2px,2px")
_register(STATIC, FP16, "star-diamond", "8px,2px,2px,2px,2px,2px")
_register(WEIGHT_ONLY, BF16, "hexagon2", "4px,4px")
_register(WEIGHT_ONLY, FP16, "octagon", "4px,12px")
