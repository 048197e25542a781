"""The names of the checks, and the must-run list: the checks that must be ok before the verdict can be PASSED."""

from __future__ import annotations

from typing import Final

AMPERE: Final = (8, 0)  # the first compute capability with bf16 and TF32 tensor cores, and NVML's instant power

DEVICE: Final = ("identity", "clocks", "memory", "GEMM peaks", "copy bandwidth", "energy", "joules of GEMMs", "state")

VIT: Final = "vit eager"
VIT_FP32: Final = "vit eager fp32"
VIT_TF32: Final = "vit eager tf32"
VIT_ONE: Final = "vit eager batch 1"
GRAPHS_ONE: Final = "vit cuda_graphs batch 1"
UNET: Final = "unet eager"
DIT: Final = "dit eager"
BACKENDS: Final = (  # in the order of measurement: those that build in seconds come first
    "cuda_graphs",
    "onnxruntime",
    "torch_compile",
    "tensorrt",
    "torch_compile_reduce_overhead",
)
OF_BACKENDS: Final = (VIT, *(f"vit {backend}" for backend in BACKENDS))

BOUND: Final = "law: no row is faster than its bound"
LOOPS: Final = "law: two loops take twice as long as one"
KERNEL_TIME: Final = "law: kernel time is at most event time"
KERNEL_NAMES: Final = "law: kernel names show the precision"
TF32: Final = "law: tf32 differs from fp32 and is faster"
GRAPHS: Final = "law: cuda_graphs is not slower than eager at batch 1"
MEMORY: Final = "law: 16 bits take less memory than fp32"

INSTANT: Final = "energy: the counter agrees with the instant power"
AVERAGE: Final = "energy: the counter agrees with the average power"
LIMIT: Final = "energy: the mean power is below the limit"
PER_FLOP: Final = "energy: J/FLOP of two GEMM sizes agree"

OUT_OF_MEMORY: Final = {backend: f"control: out of memory in {backend}" for backend in ("eager", *BACKENDS)}
AFTER: Final = "control: a row after out of memory"
ITEM: Final = "control: .item() under capture is refused"
PARTIAL: Final = "control: a partly captured graph is found"

MODES: Final = "block: several compile modes in one process"
SAME: Final = "ab: A/A is unchanged"
SLOWER: Final = "ab: +10 % is found"


def rows(capability: tuple[int, int]) -> tuple[str, ...]:
    """Rows that must be ok on a GPU of this compute capability."""
    tf32 = (VIT_TF32,) if capability >= AMPERE else ()
    return (*OF_BACKENDS, VIT_FP32, *tf32, VIT_ONE, GRAPHS_ONE, UNET, DIT)


def names(capability: tuple[int, int]) -> tuple[str, ...]:
    """Everything that must be ok on a GPU of this compute capability."""
    ampere = capability >= AMPERE
    return (
        *DEVICE,
        *rows(capability),
        *(BOUND, LOOPS, KERNEL_TIME, KERNEL_NAMES, GRAPHS, MEMORY),
        *((TF32, INSTANT) if ampere else ()),
        *(AVERAGE, LIMIT, PER_FLOP),
        *OUT_OF_MEMORY.values(),
        *(AFTER, ITEM, PARTIAL, MODES, SAME, SLOWER),
    )
