"""Which rows a GPU check measures, and in which order. The most informative come first, since time may run out.

One row of each backend comes before further precisions, attentions and models. A step ends at its
`until_s`, counted from the beginning of the check; later steps may use what is left of its time. 120 s are reserved for
the last steps (controls, one process of several compile modes, `ab`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benches.gpu_check import BUDGET_S, LEAST_S, must_run
from harness.registry import MODELS, OPTIMIZATIONS, PRECISIONS
from harness.types import Case

DEVICE_UNTIL_S: Final = 85.0  # the checks of the device, and the export at the same time
BACKENDS_UNTIL_S: Final = 270.0
LAWS_UNTIL_S: Final = 302.0
NETWORKS_UNTIL_S: Final = 335.0
CONTROLS_UNTIL_S: Final = 383.0
BLOCK_UNTIL_S: Final = 405.0
PAIRED_UNTIL_S: Final = BUDGET_S
PAIRED_S: Final = 110.0  # of the paired run: 16 pairs of processes that start in 2 to 3 s each
LEAST_PAIRED_S: Final = 50.0  # in less, no row is decided

VIT_BATCH: Final = 64
TIMM_VIT: Final = "vit_base_patch16_224"
FLOPS: Final = {  # of one item of a batch, by torch.utils.flop_counter: products and convolutions
    "check_vit": 34_943_299_584,
    TIMM_VIT: 35_127_656_448,
    "check_sd15_unet": 803_273_441_280,
    "check_dit_xl_2": 237_333_676_032,
}
VARIANTS: Final = (
    "attention_math",
    "attention_flash",
    "attention_efficient",
    "attention_cudnn",
    "channels_last",
    "inference_mode",
)
NEEDS: Final = {
    TIMM_VIT: ("timm",),
    "check_sd15_unet": ("diffusers",),
    "check_dit_xl_2": ("diffusers",),
    "digits_dit": ("diffusers", "sklearn", "torch_fidelity"),
    "digits_sd": ("diffusers", "transformers", "sklearn", "torch_fidelity"),
}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A row to measure. `energy` adds the probe of that name, whose windows take as long as everything else; `probes`
    are the only ones to run (None: all but energy and quality). It is not started if less than `least_s` is left."""

    name: str
    case: Case
    energy: bool = False
    probes: tuple[str, ...] | None = None
    least_s: float = LEAST_S

    @property
    def flops(self) -> float | None:
        """FLOPs of one iteration."""
        per_item = FLOPS.get(self.case.model)
        return None if per_item is None else float(per_item * self.case.batch_size)

    @property
    def missing(self) -> str | None:
        """Why the row cannot be measured: a package that its model needs is not installed. None if all are."""
        absent = [name for name in NEEDS.get(self.case.model, ()) if not importlib.util.find_spec(name)]
        return f"{absent[0]} is not installed" if absent else None


def half(capability: tuple[int, int]) -> str:
    """The 16-bit precision of torch's rows: fp16 below compute capability 8.0, where bf16 has no tensor cores."""
    return "bf16" if capability >= must_run.AMPERE else "fp16"


def vit() -> Case:
    """ViT-B/16 at batch 64: timm's where it is installed, else one of torch's own layers."""
    model = TIMM_VIT if importlib.util.find_spec("timm") else "check_vit"
    return Case(model=model, batch_size=VIT_BATCH, image_size=224)


def unet() -> Case:
    return Case(model="check_sd15_unet", batch_size=2, image_size=512)


def dit() -> Case:
    return Case(model="check_dit_xl_2", batch_size=2, image_size=256)


def precision_of(backend: str, capability: tuple[int, int]) -> str:
    """The precision of a backend's row. ONNX Runtime and TensorRT run fp16 on every GPU, since ONNX Runtime has few
    CUDA kernels for bf16."""
    return "fp16" if backend in {"onnxruntime", "tensorrt"} else half(capability)


def backends(capability: tuple[int, int]) -> Iterator[Planned]:
    """One row of each backend; fp32 first, since its output is the reference of all others."""
    yield Planned(name=must_run.VIT_FP32, case=vit())
    yield Planned(name=must_run.VIT, case=vit().with_(precision=half(capability)), energy=True)
    for backend in must_run.BACKENDS:
        yield Planned(
            name=f"vit {backend}", case=vit().with_(backend=backend, precision=precision_of(backend, capability))
        )


def laws(capability: tuple[int, int]) -> Iterator[Planned]:
    """Rows that only the laws need."""
    one = vit().with_(batch_size=1, precision=half(capability))
    if capability >= must_run.AMPERE:
        yield Planned(name=must_run.VIT_TF32, case=vit().with_(precision="tf32"))
    yield Planned(name=must_run.VIT_ONE, case=one)
    yield Planned(name=must_run.GRAPHS_ONE, case=one.with_(backend="cuda_graphs"))


def networks(capability: tuple[int, int]) -> Iterator[Planned]:
    yield Planned(name=must_run.UNET, case=unet().with_(precision=half(capability)))
    yield Planned(name=must_run.DIT, case=dit().with_(precision=half(capability)))


def rest(capability: tuple[int, int]) -> Iterator[Planned]:
    """Everything else that needs a GPU, as far as the time allows. None of these rows is required."""
    narrow, compiled = half(capability), vit().with_(backend="torch_compile")
    for name, case in (("unet", unet()), ("dit", dit())):
        for backend in ("cuda_graphs", "torch_compile"):
            yield Planned(name=f"{name} {backend}", case=case.with_(backend=backend, precision=narrow))
    if narrow != "fp16":
        yield Planned(name="vit eager fp16", case=vit().with_(precision="fp16"))
    for precision in ("fp8_e4m3", *(on_base(name, narrow) for name in ("int8_dynamic", "int8_static"))):
        yield Planned(name=f"vit torch_compile {precision}", case=compiled.with_(precision=precision))
    for precision in ("fp8_e4m3", on_base("int8_weight_only", narrow)):
        yield Planned(name=f"vit eager {precision}", case=vit().with_(precision=precision))
    for precision in ("fp8_e4m3", on_base("int8_static", "fp16"), "fp32", "bf16"):
        yield Planned(name=f"vit tensorrt {precision}", case=vit().with_(backend="tensorrt", precision=precision))
    for name in (name for name in VARIANTS if name in OPTIMIZATIONS):
        yield Planned(name=f"vit eager {name}", case=vit().with_(precision=narrow, optimizations=name))
    yield Planned(
        name="vit torch_compile_max_autotune", case=vit().with_(backend="torch_compile_max_autotune", precision=narrow)
    )
    for backend in ("onnxruntime", "tensorrt"):
        for name, case in (("dit", dit()), ("unet", unet())):
            yield Planned(name=f"{name} {backend}", case=case.with_(backend=backend, precision="fp16"))
    for name in ("digits_sd", "digits_dit"):
        case = Case(**{"model": name, "weights": "digits", "batch_size": 10, **MODELS[name].axes})
        for optimization in ("model_cpu_offload", "sequential_cpu_offload"):
            yield Planned(name=f"{name} {optimization}", case=case.with_(precision=narrow, optimizations=optimization))


def on_base(precision: str, narrow: str) -> str:
    """`precision` with the rest of the network in 16 bits, where this version has such a precision."""
    named = f"{precision}_{narrow}"
    return named if named in PRECISIONS else precision


def everything(capability: tuple[int, int]) -> Iterator[Planned]:
    """All rows but the controls."""
    for step in (backends, laws, networks, rest):
        yield from step(capability)
