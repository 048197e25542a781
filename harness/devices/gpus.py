"""What vendors publish about their GPUs: memory, bandwidth, power and dense peaks, beside the measured figures.

A new GPU is one record here, or in a plugin: `register(Gpu(name="...", ...))`. The figures are the dense ones of the
vendor's document, with fp32 accumulation if the document distinguishes it. A clock above that of the data sheet can
exceed them, and under full load most GPUs stay below them.

    gpus.find("NVIDIA H100 80GB HBM3").figures()     # "80 GB, 3350 GB/s, 700 W, dense bf16 989.4 TFLOP/s"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness import entries
from harness.registry import GPUS

OTHER_CHIPS: Final = frozenset({"D", "Laptop", "Max", "Ti", "SUPER"})  # in names that are otherwise alike
# The vendors' documents.
NVIDIA: Final = "https://www.nvidia.com"
SHEETS: Final = f"{NVIDIA}/content/dam/en-zz/Solutions/Data-Center"
IMAGES: Final = "https://images.nvidia.com"
VOLTA: Final = f"{IMAGES}/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
TURING: Final = f"{SHEETS}/tesla-t4/t4-tensor-core-datasheet-951643.pdf"
A10: Final = f"{SHEETS}/a10/pdf/a10-datasheet.pdf"
A10G: Final = "https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf"
A100: Final = f"{SHEETS}/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
AMPERE: Final = f"{IMAGES}/aem-dam/en-zz/Solutions/data-center/nvidia-ampere-architecture-whitepaper.pdf"
H100: Final = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
L40S: Final = "https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413"
CENTER: Final = f"{NVIDIA}/en-us/data-center"
GEFORCE: Final = f"{IMAGES}/aem-dam/Solutions/geforce"
RTX_3090: Final = (
    f"{IMAGES}/aem-dam/en-zz/Solutions/geforce/ampere/pdf/NVIDIA-ampere-GA102-GPU-Architecture-Whitepaper-V1.pdf"
)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU model.

    driver_name     the words that the driver's name of it contains ("H100 80GB HBM3")
    memory_bytes    as published, in decimal units; a little less is usable
    bytes_per_s     bandwidth of its memory
    power_w         the limit of the whole board
    flops           precision -> dense FLOP/s (int8: operations), if the vendor gives a figure
    """

    name: str
    driver_name: str
    memory_bytes: float
    bytes_per_s: float
    power_w: float
    flops: Mapping[str, float]
    source: str

    def figures(self) -> str:
        """ "80 GB, 3350 GB/s, 700 W, dense bf16 989.4 TFLOP/s"."""
        narrow = next((name for name in ("bf16", "fp16") if name in self.flops), None)
        peak = f", dense {narrow} {self.flops[narrow] * 1e-12:g} TFLOP/s" if narrow else ""
        size, speed = f"{self.memory_bytes * 1e-9:g} GB", f"{self.bytes_per_s * 1e-9:g} GB/s"
        return f"{size}, {speed}, {self.power_w:g} W{peak}"


FIELDS: Final = {
    "driver_name": entries.LINE,
    "memory_bytes": entries.POSITIVE,
    "bytes_per_s": entries.POSITIVE,
    "power_w": entries.POSITIVE,
    "flops": entries.Rule(
        lambda value: isinstance(value, Mapping) and all(map(entries.POSITIVE.holds, value.values())),
        "a mapping of precisions to operations per second",
    ),
    "source": entries.LINE,
}


@GPUS.checked_by
def _check(subject: str, name: str, entry: Any) -> None:
    entries.demand_kind(subject, entry, Gpu)
    entries.demand_name(subject, entry, name)
    entries.demand(subject, entry, FIELDS)


def register(gpu: Gpu) -> Gpu:
    """Adds `gpu` under its name. Raises DuplicateName, and BadEntry for a field that is not valid."""
    return GPUS.register(gpu.name, gpu)


def find(device_name: str) -> Gpu | None:
    """The record of a GPU by the driver's name of it, or None. The most specific one is chosen: an "H200 NVL" is not an
    H200."""
    found = [gpu for gpu in GPUS.values() if is_in(gpu.driver_name, device_name)]
    return max(found, key=lambda gpu: len(gpu.driver_name), default=None)


def is_in(gpu: str, device_name: str) -> bool:
    """Whether the device's name contains the GPU's, word by word. An A10G is not an A10, and a 4090 D is not a 4090."""
    words, wanted = (re.split(r"[ -]", name) for name in (device_name, gpu))
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words))) and not OTHER_CHIPS & {*words}


def _register(
    name: str, driver_name: str, gigabytes: float, gigabytes_per_s: float, power_w: float, source: str, **tera: float
) -> None:
    """`tera`: precision -> dense peak in units of 10**12 per second."""
    register(
        Gpu(
            name=name,
            driver_name=driver_name,
            memory_bytes=gigabytes * 1e9,
            bytes_per_s=gigabytes_per_s * 1e9,
            power_w=power_w,
            flops={precision: peak * 1e12 for precision, peak in tera.items()},
            source=source,
        )
    )


# fmt: off
_register("V100 SXM2 32 GB", "V100-SXM2-32GB", 32, 900, 300, VOLTA, fp32=15.7, fp16=125)
_register("V100 PCIe 32 GB", "V100-PCIE-32GB", 32, 900, 250, VOLTA, fp32=14.0, fp16=112)
_register("T4", "T4", 16, 320, 70, TURING, fp32=8.1, fp16=65, int8=130)
_register("A10", "A10", 24, 600, 150, A10, fp32=31.2, tf32=62.5, fp16=125, bf16=125, int8=250)
_register("A10G", "A10G", 24, 600, 300, A10G, fp32=35, tf32=35, fp16=70, bf16=70)  # half the rate of an A10
_register("A100 SXM 40 GB", "A100-SXM4-40GB", 40, 1555, 400, AMPERE, fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_register("A100 PCIe 40 GB", "A100-PCIE-40GB", 40, 1555, 250, AMPERE, fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_register("A100 SXM 80 GB", "A100-SXM4-80GB", 80, 2039, 400, A100, fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_register("A100 PCIe 80 GB", "A100 80GB PCIe", 80, 1935, 300, A100, fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_register("L4", "L4", 24, 300, 72, f"{CENTER}/l4/", fp32=30.3, tf32=60, fp16=121, bf16=121, int8=242.5, fp8=242.5)
_register("L40S", "L40S", 48, 864, 350, L40S, fp32=91.6, tf32=183, fp16=362.05, bf16=362.05, int8=733, fp8=733)
_register("H100 SXM", "H100 80GB HBM3", 80, 3350, 700, H100,
          fp32=67, tf32=494.7, fp16=989.4, bf16=989.4, int8=1978.9, fp8=1978.9)
_register("H100 PCIe", "H100 PCIe", 80, 2039, 350, H100, fp32=51.2, tf32=378, fp16=756, bf16=756, int8=1513, fp8=1513)
_register("H100 NVL", "H100 NVL", 94, 3938, 400, f"{CENTER}/h100/",
          fp32=60, tf32=417.5, fp16=835.5, bf16=835.5, int8=1670.5, fp8=1670.5)
_register("H200 SXM", "H200", 141, 4800, 700, f"{CENTER}/h200/",
          fp32=67, tf32=494.5, fp16=989.5, bf16=989.5, int8=1979, fp8=1979)
_register("H200 NVL", "H200 NVL", 141, 4800, 600, f"{CENTER}/h200/",
          fp32=60, tf32=417.5, fp16=835.5, bf16=835.5, int8=1670.5, fp8=1670.5)
_register("B200 SXM", "B200", 180, 8000, 1000, f"{CENTER}/hgx/",
          fp32=80, tf32=1125, fp16=2250, bf16=2250, int8=4500, fp8=4500)
# GeForce halves the rate of fp16 and fp8 with fp32 accumulation.
_register("RTX 3090", "RTX 3090", 24, 936, 350, RTX_3090, fp32=35.6, tf32=35.6, fp16=71, bf16=71, int8=284)
_register("RTX 4090", "RTX 4090", 24, 1008, 450, f"{GEFORCE}/ada/nvidia-ada-gpu-architecture.pdf",
          fp32=82.6, tf32=82.6, fp16=165.2, bf16=165.2, int8=660.6, fp8=330.3)
_register("RTX 5090", "RTX 5090", 32, 1792, 575, f"{GEFORCE}/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf",
          fp32=104.8, tf32=104.8, fp16=209.5, bf16=209.5, int8=838, fp8=419)
# fmt: on
