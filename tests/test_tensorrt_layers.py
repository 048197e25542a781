"""The layers of an engine, read from the inspector's text in the form of TensorRT 11 and in the earlier one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.backends.tensorrt import layers as tensorrt_layers
from harness.backends.tensorrt.layers import Layers


def described(layers: list[Any]) -> Layers:
    return tensorrt_layers.described(json.dumps({"Layers": layers, "I/O Tensors": [{"DataType": "Float"}]}))


def tensor(word: str) -> dict[str, Any]:
    """A layer as TensorRT 11 prints it: the type by itself, and a format, which names a type only in some cases."""
    return {
        "Name": "x",
        "Dimensions": [2, 197, 768],
        "Datatype": word,
        "Format": "Row major linear FP32 format (kLINEAR)",
    }


def layer(kind: str, name: str, given: list[str], gives: str, **more: Any) -> dict[str, Any]:
    inputs = [tensor(word) for word in given]
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": [tensor(gives)], "Metadata": "", **more}


FP8 = [
    layer("kgen", "__myl_CastMulRoundQuant_myl0_3", ["Float"], "FP8"),
    layer("gemm", "node_MatMul_12_myl0_4", ["FP8"], "Float", TacticName="sm90_xmma_e4m3"),
    layer("kgen", "__myl_FcMulAdd_myl0_5", ["FP8", "Float"], "Float"),
    layer("fusion", "__myl_FcCastAddErf_myl0_6", ["Float8E4M3"], "Half"),
    layer("kgen", "__myl_CastMulResh_myl0_7", ["FP8"], "Float"),
    layer("fusion", "__myl_AddRelu_myl0_8", ["FP8"], "Half"),
    layer("kgen", "_gemm_mha_v2_myl0_9", ["Half", "Half", "Half"], "Half"),
    layer("copy", "copy_myl0_10", ["FP8"], "FP8"),
    layer("gemm", "node_MatMul_13_myl0_11", ["Half"], "BFloat16"),
    layer("kgen", "__myl_Scale_myl0_12", ["None"], "UnknownType"),
]


def test_the_form_of_tensorrt_11_and_products_in_generated_kernels() -> None:
    found = described(FP8)
    assert found.types == {"FP8": 2, "Float": 3, "Half": 3, "BFloat16": 1, "unknown": 1}
    assert found.quantised == {"FP8": 3}, "one gemm, one generated kernel with a product, one fusion with a product"
    assert found.read


def test_int8_in_tensorrt_11s_own_layers() -> None:
    layers = [
        layer("Reformat", "to Int8", ["Float"], "Int8", TacticValue="0x0"),
        layer("CaskConvolution", "conv", ["Int8"], "Int8", Weights={"Type": "Int8", "Count": 64}),
        layer("CaskGemmMatrixMultiply", "fc", ["Int8"], "Float"),
        layer("Reformat", "from Int8", ["Int8"], "Float"),
    ]
    assert described(layers) == Layers(types={"Int8": 2, "Float": 2}, quantised={"Int8": 2})


def old(kind: str, given: list[str], gives: str, **more: Any) -> dict[str, Any]:
    tensors = [{"Format/Datatype": text} for text in given]
    return {"LayerType": kind, "Inputs": tensors, "Outputs": [{"Format/Datatype": gives}], **more}


def test_the_form_before_tensorrt_11() -> None:
    layers = [
        old("CaskGemmMatrixMultiply", ["Row major Int8 format"], "Row major linear Half"),
        old("CaskConvolution", ["Half"], "Half", Weights={"Type": "Int8", "Count": 64}),
        old("Reformat", ["Thirty-two wide channel vectorized row major Int8 format"], "Row major linear FP32"),
        old("kgen", ["Half"], "Row major Int8 format", Weights={}),
        old("kgen", ["UInt8"], "N/A due to dynamic shapes"),
        old("gemm", ["Row major FP8", "Row major FP8"], "Row major linear FP32"),
        old("Quantize", ["Row major linear FP32"], "Row major FP8"),
        old("kgen", ["Row major FP8"], "Row major linear FP32"),
        {"Name": "b", "Outputs": []},
        "a layer without details",
    ]
    found = described(layers)
    assert found.types == {"Half": 2, "FP32": 3, "Int8": 1, "FP8": 1, "unknown": 1}
    assert found.quantised == {"Int8": 2, "FP8": 1}


@pytest.mark.parametrize(
    "layers", [[], ["names only"], [{"Outputs": [{"Type of data": "Half"}]}], [layer("gemm", "a", ["Half"], "F12")]]
)
def test_a_text_of_which_no_type_is_understood_is_not_read(layers: list[Any]) -> None:
    assert not described(layers).read
