"""Published figures beside the rows of a record, as ratios. A ratio is a hint and has no effect on the verdict,
because versions, batch sizes and clocks differ. A figure is compared only with the same GPU.

Sources: timm's results/benchmark-infer-amp-nchw-*.csv (images/s, amp fp16, of pytorch-image-models); diffusers'
docs/torch2.0.md at 54cddc1e (it/s of SD 1.5 at 512 px, fp16, one image with guidance, so two rows of the U-Net a step,
scheduler and host included); dense peaks and bandwidths of the makers' data sheets (`harness.devices.gpus`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benches.gpu_check import must_run
from benches.gpu_check.record import Record
from harness.devices import gpus

TIMM: Final = "timm, amp nchw"
DIFFUSERS: Final = "diffusers torch2.0.md"
SHEET: Final = "data sheet, dense"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What `source` publishes for a row of a GPU whose name contains `gpu`. `unit` is "images/s" or "calls/s"."""

    gpu: str
    row: str
    value: float
    unit: str
    source: str


FIGURES: Final = (
    Figure(gpu="RTX 4090", row=must_run.VIT, value=2992.79, unit="images/s", source=f"{TIMM} pt291-cu128, batch 1024"),
    Figure(
        gpu="RTX 4090",
        row="vit torch_compile",
        value=3375.59,
        unit="images/s",
        source=f"{TIMM} pt291-cu128 dynamo, batch 1024",
    ),
    Figure(gpu="RTX 3090", row=must_run.VIT, value=1570.66, unit="images/s", source=f"{TIMM} pt240-cu124, batch 1024"),
    *(
        Figure(gpu=gpu, row=row, value=value, unit="calls/s", source=DIFFUSERS)
        for gpu, eager, compiled in (
            ("A100", 21.66, 44.03),
            ("V100", 18.99, 20.95),
            ("T4", 6.9, 7.3),
            ("RTX 3090", 22.56, 23.84),
            ("RTX 4090", 40.5, 44.65),
        )
        for row, value in ((must_run.UNET, eager), ("unet torch_compile", compiled))
    ),
)


def lines(record: Record) -> Iterator[str]:
    """One line for each figure that is published for this GPU and that the record has."""
    name = str((record.header.get("environment") or {}).get("device_name") or "")
    for figure in FIGURES:
        row = record.rows.get(figure.row)
        if not gpus.is_in(figure.gpu, name) or row is None or row.measurement.status != "ok":
            continue
        items = row.measurement.case.batch_size if figure.unit == "images/s" else 1
        measured = items / statistics.median(row.measurement.samples["latency_s"])
        ratio = f"{measured / figure.value:.2f} of the published {figure.value:g}"
        yield f"{figure.row}: {measured:.4g} {figure.unit}, {ratio} ({figure.source})"
    sheet = gpus.find(name)
    if sheet is None:
        return
    measured_by = {check: record.checks.get(check) for check in ("GEMM peaks", "copy bandwidth")}
    peaks = (measured_by["GEMM peaks"] and measured_by["GEMM peaks"].figures) or {}
    copied = (measured_by["copy bandwidth"] and measured_by["copy bandwidth"].figures) or {}
    for precision in ("bf16", "fp16"):  # the data sheets' accumulation is that of torch's products
        if peaks.get(precision) and precision in sheet.flops:
            published = sheet.flops[precision]
            yield f"{precision} products: {peaks[precision] / published:.2f} of {published * 1e-12:g} TFLOP/s ({SHEET})"
    if copied.get("bytes_per_s"):
        ratio = copied["bytes_per_s"] / sheet.bytes_per_s
        yield f"copies: {ratio:.2f} of {sheet.bytes_per_s * 1e-9:g} GB/s ({SHEET})"
