"""The table that says what each backend, precision and optimisation does, over rows made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reports_fixture import METRICS, make_run

from harness.types import IDENTICAL, Case, Measurement, Metric, Run
from reports.data import report_data
from reports.section import NotShown, Section
from reports.sections.trade_offs import trade_offs

PSNR = Metric(
    name="psnr_db", unit="dB", label="PSNR", better="higher", kind="quality_continuous", description="", summary="mean"
)
PLAIN = Case(model="digits_sd", weights="digits", batch_size=2, image_size=32)


def row(case: Case, seconds: float, weights: float, cosine: float, floor: float, **missing: str) -> Measurement:
    samples = {
        "latency_s": [seconds, seconds * 1.01, seconds * 0.99],
        "weights_bytes": [weights],
        "cosine_similarity": [cosine],
    }
    if "psnr_db" not in missing:
        samples["psnr_db"] = [41.9]
    facts = {"cosine_floor": floor}
    return Measurement(case=case, replicate=0, status="ok", samples=samples, facts=facts, missing=missing)


def lines(*measurements: Measurement) -> list[dict[str, str]]:
    run: Run = replace(
        make_run(),
        metrics=METRICS | {"psnr_db": PSNR},
        cases=tuple(m.case for m in measurements),
        measurements=measurements,
    )
    found = trade_offs(report_data([run]))
    assert isinstance(found, Section)
    assert found.table is not None
    return [{k: v.replace("\N{NO-BREAK SPACE}", " ") for k, v in r.items()} for r in found.table.to_dict("records")]


def test_each_row_stands_beside_the_one_that_lacks_a_single_thing() -> None:
    fp32 = row(PLAIN, 0.4, 4.0e6, 1.0, 0.999, psnr_db=IDENTICAL)
    bf16 = row(PLAIN.with_(precision="bf16"), 0.1, 2.0e6, 0.99952, 0.9)
    sliced = row(PLAIN.with_(precision="bf16", optimizations="vae_slicing"), 0.2, 2.0e6, 0.9991, 0.9)
    ort = row(PLAIN.with_(backend="onnxruntime"), 0.2, 4.0e6, 1.0, 0.999, psnr_db=IDENTICAL)
    ort_int8 = row(PLAIN.with_(backend="onnxruntime", precision="int8_static"), 0.05, 1.0e6, 0.981, 0.8)
    orphan = row(PLAIN.with_(batch_size=4, optimizations="vae_slicing"), 0.8, 4.0e6, 1.0, 0.999)
    found = lines(fp32, bf16, sliced, ort, ort_int8, orphan)
    assert [(f["Row"], f["Against"], f["Latency"]) for f in found] == [
        ("eager bf16", "eager fp32", "100 ms against 400 ms"),
        ("eager bf16 vae_slicing", "eager bf16", "200 ms against 100 ms"),
        ("onnxruntime fp32", "eager fp32", "200 ms against 400 ms"),
        ("onnxruntime int8_static", "onnxruntime fp32", "50.0 ms against 200 ms"),
    ]
    assert [f["Weights"] for f in found] == ["1.91 MiB, 0.50x", "1.91 MiB", "3.81 MiB", "977 KiB, 0.25x"]
    assert [f["Cosine (floor)"] for f in found] == ["0.99952 (0.9)", "0.9991 (0.9)", "1 (0.999)", "0.981 (0.8)"]
    assert [f["Output"] for f in found] == ["41.9 dB", "41.9 dB", "identical", "41.9 dB"]
    assert "batch 2" in found[0]["Model"]


def test_a_difference_within_the_intervals_is_called_so() -> None:
    slow = row(PLAIN, 0.4, 4.0e6, 1.0, 0.999)
    same = row(PLAIN.with_(optimizations="channels_last"), 0.401, 4.0e6, 1.0, 0.999)
    apart = row(PLAIN.with_(optimizations="fused_qkv"), 0.2, 4.0e6, 1.0, 0.999)
    assert [f["Latency"].endswith("(not separable)") for f in lines(slow, same, apart)] == [True, False]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_counterpart_there_is_no_table_but_a_reason(precision: str) -> None:
    run = replace(make_run(), cases=(), measurements=())
    lone = row(PLAIN.with_(precision=precision), 0.4, 4.0e6, 1.0, 0.999)
    found = trade_offs(report_data([replace(run, cases=(lone.case,), measurements=(lone,))]))
    assert found == NotShown(
        title="Effect of each backend, precision and optimisation",
        reason="no two valid rows differ in one choice only",
    )
