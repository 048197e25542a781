"""A synthetic Run with everything a report must cope with: all statuses, missing metrics, images, hostile names."""

from __future__ import annotations

import dataclasses
import random
import struct
import zlib
from pathlib import Path

import pandas as pd

from baselines.verdict import Comparison, Verdict
from harness.types import Case, Measurement, Metric, Protocol, Run, Samples
from reports.section import ReportData

HOSTILE = "<script>alert('x')</script>"
NO_ENERGY = "no energy counter: RAPL is not readable here"

ENVIRONMENT = {
    "device": "cpu",
    "device_name": "Example CPU 9000",
    "cpu": {"model": "Example CPU 9000", "logical_cores": 4, "cores_allowed": 2, "isa": "AVX512"},
    "memory_bytes": 8 * 1024**3,
    "gpus": [],
    "driver": None,
    "threads": 2,
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "kernel": "6.1.0",
    "host_hash": "a1b2c3",
    "versions": {"torch": "2.14.1", "timm": "1.0.9", "diffusers": "0.35.0", "onnxruntime": "1.23.0"},
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "cuda": None,
    "flags": {"allow_tf32": False},
    "imgbench": "0.1.0",
}


def _metric(name: str, unit: str, label: str, better: str | None, kind: str, description: str, summary: str = "median"):
    return Metric(name=name, unit=unit, label=label, better=better, kind=kind, description=description, summary=summary)


METRICS = {
    m.name: m
    for m in (
        _metric("latency_s", "s", "Latency", "lower", "noisy", "seconds one iteration takes, a whole batch"),
        _metric("first_call_s", "s", "First call", "lower", "advisory", "seconds of the very first iteration"),
        _metric("build_s", "s", "Build", "lower", "advisory", "seconds to compile, export or quantise"),
        _metric("stage_text_encoder_s", "s", "Text encoder", "lower", "noisy", "seconds of all its calls"),
        _metric("stage_unet_s", "s", "U-Net", "lower", "noisy", "seconds of all its calls"),
        _metric("stage_transformer_s", "s", "Transformer", "lower", "noisy", "seconds of all its calls"),
        _metric("stage_vae_decoder_s", "s", "VAE decoder", "lower", "noisy", "seconds of all its calls"),
        _metric("stage_other_s", "s", "Other", "lower", "noisy", "seconds of scheduler, tokenizer and host code"),
        _metric("stage_sum_s", "s", "Sum of stages", "lower", "advisory", "all stages together"),
        _metric("denoise_step_s", "s", "Denoising step", "lower", "advisory", "seconds of one denoising step"),
        _metric("weights_bytes", "B", "Weights", "lower", "exact", "bytes of all parameters and buffers", "last"),
        _metric("peak_host_bytes", "B", "Peak host memory", "lower", "near_exact", "highest resident set", "max"),
        _metric("energy_per_image_j", "J", "Energy per image", "lower", "energy", "joules per image, gross", "mean"),
        _metric("parameters", "count", "Parameters", None, "exact", "parameters of all components", "last"),
        _metric("top1", "share", "Top-1", "higher", "quality_item", "share of held-out digits classified right"),
        _metric("recognised", "share", "Recognised", "higher", "quality_item", "share recognised as asked"),
        _metric("fid", "1", "FID", "lower", "quality_set", "Frechet distance to held-out digits", "last"),
        _metric("cosine_similarity", "1", "Cosine to fp32", "higher", "quality_continuous", "against fp32 eager"),
    )
}

SPEED = {
    ("eager", "fp32"): 1.0,
    ("eager", "bf16"): 1.3,
    ("eager", "int8_dynamic"): 0.7,
    ("torch_compile", "fp32"): 0.74,
}
SPEED |= {("torch_compile", "bf16"): 0.95, ("onnxruntime", "fp32"): 0.62, ("onnxruntime", "int8_dynamic"): 0.41}


def png(width: int, height: int, shade: int) -> bytes:
    """A grey gradient as PNG bytes, from the standard library alone."""

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    lines = b"".join(b"\0" + bytes((x % 32 * 8 + y * shade) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def vit_case(backend: str, precision: str, batch: int) -> Case:
    return Case(
        model="digits_vit", weights="digits", backend=backend, precision=precision, batch_size=batch, image_size=32
    )


def diffusion_case(model: str, backend: str, precision: str, scheduler: str, steps: int) -> Case:
    guidance, prompt = (3.0, "a handwritten seven") if model == "digits_sd" else (1.5, None)
    return Case(
        model=model, weights="digits", backend=backend, precision=precision, batch_size=10, image_size=32,
        scheduler=scheduler, num_steps=steps, guidance_scale=guidance, prompt=prompt,
    )  # fmt: skip


def measure(case: Case, replicate: int, scale: float = 1.0, images: tuple[str, ...] = ()) -> Measurement:
    """An ok measurement with plausible raw samples, the same on every call."""
    rng = random.Random(f"{case.id}/{replicate}")
    samples: Samples = {}
    seconds = _seconds(case) * scale * rng.uniform(0.97, 1.03)
    samples["latency_s"] = [seconds * (1 + abs(rng.gauss(0, 0.04))) for _ in range(25)]
    samples["first_call_s"] = [seconds * 4]
    samples["build_s"] = [8.0 if case.backend == "torch_compile" else 0.4]
    samples["weights_bytes"] = [
        1_200_000.0 / (4 if case.precision == "int8_dynamic" else 2 if case.precision == "bf16" else 1)
    ]
    samples["peak_host_bytes"] = [4.0e8 + 2e6 * case.batch_size + (2e8 if case.backend == "torch_compile" else 0)]
    samples["parameters"] = [300_000.0]
    samples |= _quality(case, rng) | (_stages(case, seconds, rng) if case.num_steps else {})
    return Measurement(
        case=case, replicate=replicate, status="ok", samples=samples,
        warmup={"latency_s": [seconds * 2, seconds * 1.2]}, missing={"energy_per_image_j": NO_ENERGY},
        facts={"work_hash": "w" * 12, "weights_hash": "f" * 12, "providers": ["CPUExecutionProvider"]},
        state={"load": 1.2, "psi_cpu": 0.1}, images=images, started="2026-01-02T03:04:05+00:00", duration_s=2.5,
        warnings=("unsteady: the last two windows differ by 4 %",) if case.precision == "bf16" else (),
    )  # fmt: skip


def _seconds(case: Case) -> float:
    factor = SPEED.get((case.backend, case.precision), 1.0)
    base = 0.0016 * case.batch_size**0.62 if case.num_steps is None else 0.021 * case.num_steps + 0.03
    return base * factor * (1.6 if case.model == "digits_sd" else 1.0)


def _quality(case: Case, rng: random.Random) -> Samples:
    loss = {"int8_dynamic": 0.004, "bf16": 0.001}.get(case.precision, 0.0) + (
        0.06 if (case.backend, case.precision) == ("eager", "int8_dynamic") else 0
    )
    cosine = {"cosine_similarity": [1.0 - loss / 2 - 1e-6]}
    if case.num_steps is None:
        return {"top1": _items(540, 0.991 - loss)} | cosine
    share = 0.97 if case.num_steps >= 20 else 0.74
    return {
        "recognised": _items(200, share - loss),
        "fid": [12.0 if case.num_steps >= 20 else 55.0 + 9 * rng.random()],
    } | cosine


def _items(count: int, share: float) -> list[float]:
    right = round(count * share)
    return [1.0] * right + [0.0] * (count - right)


def _stages(case: Case, seconds: float, rng: random.Random) -> Samples:
    assert case.num_steps is not None
    denoiser = "stage_unet_s" if case.model == "digits_sd" else "stage_transformer_s"
    shares = {denoiser: 0.86, "stage_vae_decoder_s": 0.07, "stage_other_s": 0.03}
    if case.model == "digits_sd":
        shares["stage_text_encoder_s"] = 0.04
    stages = {name: [seconds * share * rng.uniform(0.98, 1.04) for _ in range(3)] for name, share in shares.items()}
    stages["stage_sum_s"] = [sum(values) for values in zip(*stages.values(), strict=True)]
    step = seconds * 0.86 / case.num_steps
    stages["denoise_step_s"] = [
        step * (1.3 if i % case.num_steps == 0 else 1.0) * rng.uniform(0.97, 1.05) for i in range(2 * case.num_steps)
    ]
    return stages


def good_cases() -> list[Case]:
    pairs = list(SPEED)
    vit = [vit_case(b, p, batch) for b, p in pairs for batch in (1, 32)]
    chosen = [("eager", "fp32"), ("torch_compile", "bf16"), ("onnxruntime", "fp32")]
    diffusion = [
        diffusion_case(model, b, p, scheduler, steps)
        for model in ("digits_dit", "digits_sd")
        for scheduler, steps in (("ddim", 20), ("dpmpp_2m", 5), ("dpmpp_2m", 20))
        for b, p in chosen
    ]
    random_weights = Case(model="vit_tiny_patch16_224", weights="random", batch_size=1, image_size=224)
    hostile = Case(model=HOSTILE, weights="digits", batch_size=1, image_size=32, prompt=f"a {HOSTILE} & <b>bold</b>")
    return [*vit, *diffusion, random_weights, hostile]


def bad_measurements() -> list[Measurement]:
    def bad(case: Case, status: str, reason: str) -> Measurement:
        return Measurement(case=case, replicate=0, status=status, reason=reason)  # type: ignore[arg-type]

    return [
        bad(vit_case("tensorrt", "fp16", 1), "skipped", "tensorrt needs an NVIDIA GPU: this machine has none"),
        bad(vit_case("tensorrt", "fp16", 32), "skipped", "tensorrt needs an NVIDIA GPU: this machine has none"),
        bad(vit_case("cuda_graphs", "fp32", 1), "skipped", "cuda_graphs needs an NVIDIA GPU: this machine has none"),
        bad(vit_case("onnxruntime", "bf16", 1), "failed", f"RuntimeError: {HOSTILE} is no operator"),
        bad(vit_case("eager", "fp32", 4096), "oom", "killed by the kernel's out-of-memory killer (SIGKILL)"),
        bad(diffusion_case("digits_sd", "torch_compile", "fp32", "ddim", 50), "timeout", "no answer within 1800 s"),
        bad(
            diffusion_case("digits_sd", "onnxruntime", "int8_dynamic", "ddim", 20), "invalid", "outputs are not finite"
        ),
    ]


def make_run(folder: Path | None = None, run_id: str = "digits-20260102-030405", scale: float = 1.0) -> Run:
    """About forty rows over three families; pictures are written where a folder is given."""
    measurements: list[Measurement] = []
    for case in good_cases():
        name = f"images/{case.id}.png"
        has_images = case.num_steps is not None and folder is not None
        if has_images and folder is not None:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(png(320, 32, case.num_steps or 1))
        for replicate in range(3):
            measurements.append(measure(case, replicate, scale, (name,) if has_images else ()))
    measurements += bad_measurements()
    never = diffusion_case("digits_dit", "eager", "bf16", "ddim", 20)
    families = {
        "digits_vit": "vit",
        "vit_tiny_patch16_224": "vit",
        "digits_dit": "dit",
        "digits_sd": "stable_diffusion",
    }
    return Run(
        id=run_id, suite="digits", description="Small trained models of three families on scanned digits",
        protocol=Protocol(), environment=ENVIRONMENT, metrics=METRICS,
        cases=(*dict.fromkeys(m.case for m in measurements), never), measurements=tuple(measurements),
        models={m: {"family": f, "description": "", "parameters": None} for m, f in families.items()},
        created="2026-01-02T03:04:05+00:00", finished="2026-01-02T03:09:05+00:00",
        folder=str(folder) if folder else None, problems=("measurements.jsonl line 9 was cut off, and is left out",),
    )  # fmt: skip


def failures_only() -> Run:
    run = make_run()
    bad = tuple(bad_measurements())
    return Run(**{**vars(run), "measurements": bad, "cases": tuple(m.case for m in bad)})


def empty_run() -> Run:
    return Run(**{**vars(make_run()), "measurements": (), "cases": ()})


def make_comparison() -> Comparison:
    """One verdict of each outcome, and one with a hostile label."""

    def verdict(outcome: str, label: str, ratio: float | None, reason: str, **more: object) -> Verdict:
        bounds = (
            {}
            if ratio is None
            else {"low": ratio * 0.97, "high": ratio * 1.03, "baseline": 0.002, "candidate": 0.002 * ratio}
        )
        values = {"case_id": label, "label": label, "metric": "latency_s", "kind": "noisy", "unit": "s"} | bounds | more
        return Verdict(outcome=outcome, reason=reason, ratio=ratio, **values)  # type: ignore[arg-type]

    return Comparison(
        run_id="digits-20260102-030405", suite="digits", baseline="example-cpu/digits", scope="all", sessions=5,
        verdicts=(
            verdict("regressed", vit_case("eager", "fp32", 1).label, 1.12, "slower by 12 %", minimum_detectable=0.04),
            verdict("improved", vit_case("onnxruntime", "int8_dynamic", 32).label, 0.88, "faster by 12 %"),
            verdict("unchanged", vit_case("eager", "bf16", 1).label, 1.002, "within 2.5 %"),
            verdict("inconclusive", f"{HOSTILE} · eager", 1.03, "interval too wide", minimum_detectable=0.08),
            verdict("missing", vit_case("eager", "fp32", 4096).label, None, "oom now, ok in the baseline"),
            verdict("new", vit_case("torch_compile", "bf16", 1).label, None, "not in the baseline"),
            verdict("unchanged", vit_case("eager", "fp32", 1).label, None, "equal", metric="parameters", kind="exact",
                    unit="count", baseline=300000.0, candidate=300000.0),
        ),
        notes=("5 sessions of this machine",),
    )  # fmt: skip


def doubled(data: ReportData) -> ReportData:
    """A report of two runs, made from the frames of one."""
    cases = pd.concat([data.cases.assign(run="A"), data.cases.assign(run="B")], ignore_index=True)
    raw = pd.concat([data.samples.assign(run="A"), data.samples.assign(run="B")], ignore_index=True)
    images = {(run, name): uri for (_, name), uri in data.images.items() for run in "AB"}
    return dataclasses.replace(data, runs=data.runs * 2, cases=cases, samples=raw, images=images)
