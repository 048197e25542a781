"""A synthetic record of a GPU check in which every law holds, as an H100 could have written it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benches.gpu_check import Check, controls, energy, must_run
from benches.gpu_check.record import Compared, Record, Row
from harness.probes import kernels
from harness.types import Case, Measurement

H100, T4 = (9, 0), (7, 5)
PEAKS = {"fp32": 5e13, "tf32": 4e14, "bf16": 7e14, "fp16": 7e14, "int8": 1.4e15, "fp8": 1.4e15}
NAMES = {
    "fp32": "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n",
    "tf32": "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n",
    "bf16": "nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_TNN",
    "fp16": "ampere_fp16_s16816gemm_fp16_128x128_ldg8",
    "int8_dynamic": "sm80_xmma_gemm_i8f32_i8i32_f32_tn_n_tilesize128x128x64",
    "int8_static": "sm90_xmma_gemm_i8i32_i8i32_i32_tn_n_tilesize128x128x128",
    "fp8_e4m3": "nvjet_sm100_qqtst_128x256_128x4_2x1_v_bz_coopA_TNT",
}
FLOPS = 2.2e12


def measured(backend: str, precision: str, latency_s: float, **facts: Any) -> Measurement:
    """An ok measurement of a ViT at batch 64 whose kernels take 95 % of its time."""
    return Measurement(
        case=Case(model="check_vit", backend=backend, precision=precision, batch_size=64, image_size=224),
        replicate=0,
        status="ok",
        samples={
            "latency_s": [latency_s] * 10,
            "device_time_s": [latency_s * 0.99] * 10,
            "weights_bytes": [3.5e8 if precision in {"fp32", "tf32"} else 1.73e8],
            "peak_allocated_bytes": [2e9 if precision in {"fp32", "tf32"} else 1e9],
        },
        facts={
            "output_hash": f"{backend} {precision}",
            "two_loops_ratio": 2.0,
            "kernel_time_s": latency_s * 0.95,
            "kernels": [
                kernel(NAMES[precision], latency_s * 0.8),
                kernel("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", latency_s * 0.05),
                kernel("vectorized_elementwise_kernel", latency_s * 0.1),
            ],
            **facts,
        },
    )


def kernel(name: str, seconds: float = 1.0) -> dict[str, Any]:
    """One entry of the fact `kernels`, of the kind that the probe gives it."""
    return {"name": name, "kind": kernels.kind(name), "calls": 49, "seconds": seconds}


def row(name: str, measurement: Measurement, flops: float | None = FLOPS, **fields: Any) -> Row:
    return Row(name=name, measurement=measurement, flops=flops, seconds=8.0, **{"allowed_s": 120.0, **fields})


def ended(status: Any, reason: str) -> Measurement:
    return Measurement(case=Case(model="check_vit"), replicate=0, status=status, reason=reason)


def rows(capability: tuple[int, int]) -> dict[str, Row]:
    half = "bf16" if capability >= must_run.AMPERE else "fp16"
    found = {
        must_run.VIT: measured("eager", half, 0.006),
        must_run.VIT_FP32: measured("eager", "fp32", 0.06),
        must_run.VIT_ONE: measured("eager", half, 0.0060),
        must_run.GRAPHS_ONE: measured("cuda_graphs", half, 0.0050),
        must_run.UNET: measured("eager", half, 0.02),
        must_run.DIT: measured("eager", half, 0.01),
    }
    if capability >= must_run.AMPERE:
        found[must_run.VIT_TF32] = measured("eager", "tf32", 0.012)
    for name in ("int8_dynamic", "int8_static", "fp8_e4m3"):
        found[f"vit torch_compile {name}"] = measured("torch_compile", name, 0.005)
    for backend in must_run.BACKENDS:
        precision = "fp16" if backend in {"onnxruntime", "tensorrt"} else half
        found[f"vit {backend}"] = measured(backend, precision, 0.005)
    ends = {
        **{name: ended("oom", "CUDA out of memory") for name in must_run.OUT_OF_MEMORY.values()},
        must_run.AFTER: measured("eager", half, 0.001),
        must_run.ITEM: ended("failed", "operation not permitted when stream is capturing"),
        must_run.PARTIAL: ended("invalid", "inductor did not capture 1 graph(s) as CUDA graphs"),
    }
    assert set(ends) == set(controls.EXPECTED)
    return {name: row(name, measurement) for name, measurement in {**found, **ends}.items()}


def checks() -> dict[str, Check]:
    sizes = {
        "4096": {"joules": 1300.0, "seconds": 2.0, "flops": 1.3e15, "instant_w": 655.0, "average_w": 640.0},
        "8192": {"joules": 1360.0, "seconds": 2.0, "flops": 1.4e15, "instant_w": 690.0, "average_w": 670.0},
    }
    figures: dict[str, dict[str, Any]] = {
        "GEMM peaks": {**PEAKS, "missing": {}},
        "copy bandwidth": {"bytes_per_s": 3e12},
        energy.CHECK: {"sizes": sizes, "power_limit_w": 700.0},
    }
    return {n: Check(what=n, result="ok", detail="seen", figures=figures.get(n)) for n in must_run.DEVICE}


def sound(capability: tuple[int, int] = H100) -> Record:
    """A record that passes."""
    return Record(
        header={"capability": list(capability), "l2_bytes": 5e7, "environment": {"device_name": "a GPU"}},
        checks=checks(),
        rows=rows(capability),
        block=tuple(measured(b, "fp16", 0.001) for b in ("torch_compile", "torch_compile_reduce_overhead")),
        compared=(
            Compared(label="a", planted=False, outcome="unchanged", ratio=1.0, reason=""),
            Compared(label="b", planted=True, outcome="regressed", ratio=1.11, reason=""),
        ),
        end={"elapsed_s": 440.0, "reason": None},
    )


def with_row(record: Record, name: str, **changed: Any) -> Record:
    """`record` with another measurement in the row `name`: facts are merged, samples replaced one by one."""
    old = record.rows[name]
    facts, samples = changed.pop("facts", {}), changed.pop("samples", {})
    measurement = replace(
        old.measurement,
        facts={k: v for k, v in {**old.measurement.facts, **facts}.items() if v is not None},
        samples={k: v for k, v in {**old.measurement.samples, **samples}.items() if v is not None},
        **changed,
    )
    return replace(record, rows={**record.rows, name: replace(old, measurement=measurement)})


def with_figures(record: Record, name: str, **figures: Any) -> Record:
    """`record` with other figures in the check `name`."""
    old = record.checks[name]
    changed = replace(old, figures={**(old.figures or {}), **figures})
    return replace(record, checks={**record.checks, name: changed})


def with_size(record: Record, size: str, **figures: Any) -> Record:
    """`record` with other figures of one GEMM size."""
    sizes = record.checks[energy.CHECK].figures["sizes"]  # type: ignore[index]
    return with_figures(record, energy.CHECK, sizes={**sizes, size: {**sizes[size], **figures}})
