"""The verdict of a GPU check over synthetic records: each law is broken once, and each required check is left out
once."""

from __future__ import annotations

import gzip
import html
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_check_fixture import H100, T4, ended, kernel, measured, row, sound, with_figures, with_row, with_size

import baselines
from benches.gpu_check import ROW_TIMEOUT_S, Check, controls, laws, must_run, record, verdict
from benches.gpu_check import __main__ as command
from benches.gpu_check.record import Record, Unreadable, Writer
from harness.numerics import precision as precision_rules
from harness.reasons import Reason
from harness.registry import PRECISIONS


def write(found: Record, path: Path) -> Writer:
    """The lines of a record, as a check writes them."""
    writer = Writer(path)
    writer.header(found.header)
    for check in found.checks.values():
        writer.check(check)
    for one in found.rows.values():
        writer.row(one)
    writer.block(found.block)
    writer.comparison(found.compared)
    if found.end is not None:
        writer.close(**found.end)
    return writer


@pytest.mark.parametrize("capability", [H100, T4])
def test_a_record_in_which_everything_ran_and_every_law_holds_has_passed(capability: tuple[int, int]) -> None:
    found = verdict.decide(sound(capability))
    assert (found.word, found.code, found.missing) == ("PASSED", 0, ())
    assert {c.what for c in found.found if c.result == "ok"} >= set(must_run.names(capability))


BREAKS: dict[str, Callable[[Record], Record]] = {
    must_run.BOUND: lambda r: with_row(r, must_run.VIT, samples={"latency_s": [0.002] * 10}),
    must_run.LOOPS: lambda r: with_row(r, "vit tensorrt", facts={"two_loops_ratio": 1.0}),
    must_run.KERNEL_TIME: lambda r: with_row(r, "vit cuda_graphs", facts={"kernel_time_s": 0.0065}),
    must_run.KERNEL_NAMES: lambda r: with_row(
        r, must_run.VIT, facts={"kernels": [kernel("ampere_sgemm_128x64_tn", 1e-3)]}
    ),
    must_run.TF32: lambda r: with_row(
        r, must_run.VIT_TF32, facts={"output_hash": r.rows[must_run.VIT_FP32].measurement.facts["output_hash"]}
    ),
    must_run.GRAPHS: lambda r: with_row(r, must_run.GRAPHS_ONE, samples={"latency_s": [0.0067] * 10}),
    must_run.MEMORY: lambda r: with_row(r, must_run.VIT, samples={"peak_allocated_bytes": [2.5e9]}),
    must_run.INSTANT: lambda r: with_size(r, "8192", instant_w=230.0),
    must_run.AVERAGE: lambda r: with_size(r, "4096", average_w=900.0),
    must_run.LIMIT: lambda r: with_figures(r, "joules of GEMMs", power_limit_w=600.0),
    must_run.PER_FLOP: lambda r: with_size(r, "8192", flops=4e14),
    **{
        name: (lambda r, name=name: with_row(r, name, status="failed", reason="cuDNN: an internal error"))
        for name in must_run.OUT_OF_MEMORY.values()
    },
    must_run.AFTER: lambda r: with_row(r, must_run.AFTER, status="oom", reason="CUDA out of memory"),
    must_run.ITEM: lambda r: with_row(r, must_run.ITEM, status="ok", reason=None),
    must_run.PARTIAL: lambda r: with_row(r, must_run.PARTIAL, status="ok", reason=None),
    must_run.MODES: lambda r: replace(r, block=(*r.block, ended("invalid", "1 recompilation(s) after the build"))),
    must_run.SAME: lambda r: replace(r, compared=(replace(r.compared[0], outcome="regressed"), r.compared[1])),
    must_run.SLOWER: lambda r: replace(r, compared=(r.compared[0], replace(r.compared[1], outcome="unchanged"))),
}


def test_every_law_is_broken_below() -> None:
    every = {law(sound()).what for law in (*laws.LAWS, *verdict.energy.LAWS, *verdict.controls.LAWS)}
    assert every | {law(sound()).what for law in verdict.paired.LAWS} == set(BREAKS)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_law_fails_by_its_name_and_no_other_does(name: str) -> None:
    found = verdict.decide(BREAKS[name](sound()))
    assert (found.word, found.code) == ("FAILED", 1)
    assert [c.what for c in found.found if c.result == "FAILED"] == [name]
    assert [text for text in command.ending(found, sound()) if text.startswith("failed    ")] == [
        f"failed    {name}: {next(c.detail for c in found.found if c.what == name)}"
    ]


@pytest.mark.parametrize("name", [n for n in must_run.names(H100) if n in {*must_run.DEVICE, *must_run.rows(H100)}])
def test_a_check_or_a_row_that_did_not_run_makes_it_incomplete_by_its_name(name: str) -> None:
    whole = sound()
    checks = {n: c for n, c in whole.checks.items() if n != name}
    rows = {n: r for n, r in whole.rows.items() if n != name}
    found = verdict.decide(replace(whole, checks=checks, rows=rows))
    assert (found.word, found.code) == ("INCOMPLETE", 3)
    assert f"{name}: not reached" in found.missing
    left = {**whole.checks, name: Check(what=name, result="left out", detail="no NVML")}
    if name in must_run.DEVICE:
        assert f"{name}: no NVML" in verdict.decide(replace(whole, checks=left)).missing


UNSHOWN: dict[str, Callable[[Record], Record]] = {
    must_run.BOUND: lambda r: with_figures(r, "GEMM peaks", bf16=None),
    must_run.LOOPS: lambda r: with_row(r, must_run.VIT, facts={"two_loops_ratio": None}),
    must_run.KERNEL_TIME: lambda r: with_row(r, "vit onnxruntime", facts={"kernel_time_s": None}),
    must_run.KERNEL_NAMES: lambda r: with_row(r, must_run.VIT, facts={"kernels": None}),
    must_run.TF32: lambda r: with_row(r, must_run.VIT_TF32, facts={"output_hash": None}),
    must_run.GRAPHS: lambda r: with_row(r, must_run.GRAPHS_ONE, status="skipped", reason="no graphs"),
    must_run.MEMORY: lambda r: with_row(r, must_run.VIT, samples={"peak_allocated_bytes": None}),
    must_run.INSTANT: lambda r: with_size(r, "8192", instant_w="only 2 power readings"),
    must_run.AVERAGE: lambda r: with_size(r, "4096", average_w=None),
    must_run.LIMIT: lambda r: with_figures(r, "joules of GEMMs", power_limit_w=None),
    must_run.PER_FLOP: lambda r: with_figures(
        r, "joules of GEMMs", sizes={"4096": r.checks["joules of GEMMs"].figures["sizes"]["4096"]}
    ),
    **{
        name: (lambda r, name=name: with_row(r, name, status="skipped", reason="TensorRT is not installed"))
        for name in must_run.OUT_OF_MEMORY.values()
    },
    must_run.AFTER: lambda r: replace(r, rows={n: v for n, v in r.rows.items() if n != must_run.AFTER}),
    must_run.ITEM: lambda r: replace(r, rows={n: v for n, v in r.rows.items() if n != must_run.ITEM}),
    must_run.PARTIAL: lambda r: replace(r, rows={n: v for n, v in r.rows.items() if n != must_run.PARTIAL}),
    must_run.MODES: lambda r: replace(r, block=()),
    must_run.SAME: lambda r: replace(r, compared=(replace(r.compared[0], outcome="inconclusive"), r.compared[1])),
    must_run.SLOWER: lambda r: replace(r, compared=r.compared[:1], compared_missing="no time was left"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_law_that_a_row_does_not_show_is_no_pass(name: str) -> None:
    found = verdict.decide(UNSHOWN[name](sound()))
    assert (found.word, found.code) == ("INCOMPLETE", 3)
    assert [m for m in found.missing if m.startswith(f"{name}: ")]


def test_one_row_that_is_ok_is_no_pass() -> None:
    """The former check said PASSED here."""
    found = verdict.decide(
        Record(
            header=sound().header,
            rows={must_run.VIT: sound().rows[must_run.VIT]},
            end={"elapsed_s": 20.0, "reason": None},
        )
    )
    assert found.word == "INCOMPLETE"
    told = {must_run.VIT, must_run.BOUND, must_run.LOOPS, must_run.KERNEL_TIME, must_run.KERNEL_NAMES}
    assert all(any(m.startswith(f"{name}: ") for m in found.missing) for name in {*must_run.names(H100)} - told)


def test_a_killed_check_and_one_that_was_ended_are_incomplete() -> None:
    for end, words in ((None, "killed"), ({"elapsed_s": 470.0, "reason": "a worker could not be killed"}, "worker")):
        found = verdict.decide(replace(sound(), end=end))
        assert found.word == "INCOMPLETE"
        assert words in found.missing[-1]


def test_what_need_not_run_cannot_make_it_incomplete_but_can_fail_it() -> None:
    whole = sound()
    extra = row("vit eager int8_dynamic", ended("skipped", "torchao is not installed"))
    assert verdict.decide(replace(whole, rows={**whole.rows, extra.name: extra})).word == "PASSED"
    broken = row("vit eager int8_dynamic", ended("invalid", "cosine 0.1"))
    assert verdict.decide(replace(whole, rows={**whole.rows, extra.name: broken})).word == "FAILED"


@pytest.mark.parametrize(
    ("phase", "result"),
    [
        (None, "left out"),
        ("load", "left out"),
        ("build", "left out"),
        ("reference", "left out"),
        ("first call", "FAILED"),
        ("latency", "FAILED"),
        ("reference done", "FAILED"),
    ],
)
def test_a_row_that_is_slow_to_build_is_left_out_and_one_that_hangs_later_has_failed(
    phase: str | None, result: str
) -> None:
    late = ended("timeout", "no result")
    assert verdict.of_row(row("vit tensorrt", late, allowed_s=ROW_TIMEOUT_S, phase=phase)).result == result
    assert verdict.of_row(row("vit tensorrt", late, allowed_s=30.0, phase=phase)).result == "left out"


def test_a_control_that_had_no_time_is_left_out() -> None:
    whole = sound()
    late = row(must_run.ITEM, ended("timeout", "no result"), allowed_s=6.0, phase="build")
    found = verdict.decide(replace(whole, rows={**whole.rows, must_run.ITEM: late}))
    assert found.word == "INCOMPLETE"


@pytest.mark.parametrize("name", [must_run.ITEM, must_run.PARTIAL])
def test_a_control_holds_by_the_kind_of_its_reason_and_not_by_its_words(name: str) -> None:
    holds = controls.EXPECTED[name].holds
    assert holds(row(name, ended("failed", Reason("capture_failed", {"component": "net", "error": "no such words"}))))
    assert not holds(row(name, ended("failed", "a captured CUDA graph was recorded")))
    assert not holds(row(name, ended("skipped", Reason("capture_failed"))))


def test_a_package_that_cannot_be_imported_is_no_part_left_out() -> None:
    broken = ended("skipped", Reason("package_broken", {"package": "TensorRT", "error": "ImportError: libnvinfer"}))
    assert verdict.of_row(row("vit tensorrt", broken)).result == "FAILED"
    assert verdict.of_row(row("vit tensorrt", ended("skipped", "not installed"))).result == "left out"


NAMED = {
    "ampere_sgemm_128x64_tn": "fp32",
    "cutlass_80_simt_sgemm_256x128_8x4_nn_align1": "fp32",
    "sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize64x64x8": "fp32",
    "cutlass_80_tensorop_s1688gemm_128x256_16x3_tn_align4": "tf32",
    "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n": "tf32",
    "turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn": "fp16",
    "turing_h1688gemm_128x128_ldg8_stages_32x1_tn": "fp16",
    "ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_tn": "bf16",
    "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNN": "bf16",
    "nvjet_sm100_tst_128x256_64x4_2x1_v_bz_coopA_TNN": "bf16",
    "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNN": "fp16",
    "nvjet_sm90_hsh_128x256_64x4_2x1_v_bz_coopA_TNN": "fp16",
    "nvjet_sm90_qqtst_128x256_128x4": "fp8",
    "ampere_igemm_int8_128x128_ldg16_tn": "int8",
    "sm80_xmma_gemm_i8f32_i8i32_f32_tn_n_tilesize128x128x64": "int8",
    "sm80_xmma_gemm_i8f16_i8i32_f16_tn_n_tilesize128x128x64": "int8",
    "sm90_xmma_gemm_i8i32_i8i32_i32_tn_n_tilesize128x128x128": "int8",
    "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n": "fp8",
    "void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128>": "fp16",
    "void flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, cutlass::half_t>>": "fp16",
    "nvjet_sss_128x256_TNN": "",
    "triton_tem_fused_addmm_3": "",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7": "",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_kernel_shows_the_precision_of_its_name(name: str) -> None:
    assert laws.by_precision([kernel(name)]) == {NAMED[name]: 1.0}


def test_a_kernel_that_is_no_product_shows_nothing() -> None:
    others = [kernel("elementwise_kernel<c10::BFloat16>"), {"name": "ampere_sgemm_128x64_tn", "seconds": 1.0}]
    assert laws.by_precision(others) == {}
    assert laws.by_precision({"unexpected": "form"}) == {}


SGEMM, BF16, FP16 = "ampere_sgemm_128x64_tn", "nvjet_sm90_tst_128x256", "nvjet_sm90_hsh_128x256"
UNKNOWN, INT8 = "triton_tem_fused_addmm_3", "sm80_xmma_gemm_i8f32_i8i32_f32_tn_n"


@pytest.mark.parametrize(
    ("backend", "precision", "names", "result"),
    [
        ("eager", "bf16", [BF16, SGEMM, SGEMM], "ok"),  # some in its own
        ("eager", "bf16", [SGEMM], "FAILED"),  # only wider ones
        ("eager", "bf16", [SGEMM, UNKNOWN, UNKNOWN], "left out"),  # most may be in its own
        ("eager", "bf16", [SGEMM, SGEMM, UNKNOWN], "FAILED"),
        ("eager", "bf16", [FP16], "left out"),  # as narrow: a name that nobody has verified
        ("eager", "fp32", [BF16], "left out"),  # narrower: the law of TF32 and the outputs decide
        ("eager", "tf32", [SGEMM], "FAILED"),
        ("torch_compile", "bf16", [UNKNOWN], "ok"),
        ("torch_compile", "bf16", [SGEMM], "FAILED"),
        ("torch_compile", "int8_dynamic_bf16", [BF16, BF16, INT8], "ok"),
        ("torch_compile", "int8_dynamic_bf16", [BF16], "FAILED"),
        ("torch_compile", "int8_dynamic_bf16", [BF16, BF16, UNKNOWN], "ok"),  # that may be the int8 one
        ("torch_compile", "fp8_e4m3", [INT8], "ok"),
    ],
)
def test_only_wider_names_fail_a_row(backend: str, precision: str, names: list[str], result: str) -> None:
    whole = sound()
    base = measured("eager", "bf16", 0.006)
    found = [kernel(name) for name in names]
    case = base.case.with_(precision=precision, backend=backend)
    changed = row(must_run.VIT, replace(base, case=case, facts={**base.facts, "kernels": found}))
    law = laws.kernel_names(replace(whole, rows={**whole.rows, must_run.VIT: changed}))
    assert law.result == result, law.detail


def test_fp16_accumulated_in_fp16_is_a_bound_of_other_libraries_only() -> None:
    peaks = {"fp16": 1e14, "fp16 accumulated in fp16": 2e14, "int8": 4e14, "missing": {"fp8": "RuntimeError"}}
    assert laws._peak(peaks, "fp16", "eager") == 1e14
    assert laws._peak(peaks, "fp16", "tensorrt") == 2e14
    assert laws._peak(peaks, "int8_dynamic", "eager") == 4e14
    assert laws._peak(peaks, "bf16", "eager") is None


@pytest.mark.parametrize(
    ("name", "like", "own"),
    [
        ("narrow", "int8_dynamic", "int8"),
        ("int8_mine", "int8_weight_only", None),  # weights alone, whatever the name says
        ("fp8_mine", "bf16", "bf16"),
        ("mine", "tf32", "tf32"),
    ],
)
def test_the_record_of_a_precision_says_in_what_its_products_are(
    name: str, like: str, own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRECISIONS._entries, name, replace(PRECISIONS[like], name=name))
    assert precision_rules.products_of(name) == own
    base = measured("eager", "bf16", 0.006)
    facts: Any = {**base.facts, "kernels": [kernel(BF16)]}
    changed = row(must_run.VIT, replace(base, case=base.case.with_(precision=name), facts=facts))
    law = laws.kernel_names(replace(sound(), rows={**sound().rows, must_run.VIT: changed}))
    assert ("not checked" in law.detail) == (own is None)
    assert (law.result == "FAILED") == (own == "int8"), law.detail


@pytest.mark.parametrize("form", ["jsonl", "json.gz"])
def test_a_record_reads_back_equal_and_its_verdict_is_the_same(form: str, tmp_path: Path) -> None:
    whole = sound()
    writer = write(whole, tmp_path / "check.jsonl")
    path = tmp_path / f"check.{form}"
    if form == "json.gz":
        writer.pack(path)
        json.loads(gzip.decompress(path.read_bytes()))
    again = record.read(path)
    assert again.rows == whole.rows
    assert again.compared == whole.compared
    assert verdict.decide(again) == verdict.decide(whole)


def test_a_kill_in_the_middle_of_a_line_keeps_all_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "check.jsonl"
    write(sound(), path)
    path.write_bytes(path.read_bytes()[:-20])
    found = record.read(path)
    assert found.end is None
    assert len(found.rows) == len(sound().rows)
    assert verdict.decide(found).word == "INCOMPLETE"


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "header"}', "[1]", '{"kind": "header", "schema": 99}', "x\ny\n"])
def test_what_is_no_record_is_refused_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(Unreadable):
        record.read(path)
    assert command.main(["--verify", str(path)]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_figures_that_json_cannot_hold_are_kept_as_text(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "check.jsonl")
    writer.header(sound().header)
    figures = {"a": float("nan"), "b": (1, Path("/x")), "c": 2**64, "d": "half a \ud800", "e": True}
    writer.check(Check(what="x", result="ok", detail="", figures=figures))
    kept = {"a": "nan", "b": [1, "/x"], "c": str(2**64), "d": "half a ?", "e": True}
    assert record.read(writer.path).checks["x"].figures == kept


def test_after_the_end_nothing_is_written(tmp_path: Path) -> None:
    writer = write(sound(), tmp_path / "check.jsonl")
    before = writer.path.read_bytes()
    writer.row(row("late", measured("eager", "fp32", 1.0)))
    assert not writer.close(500.0, "again")
    assert writer.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "code", "word"), [(None, 0, "PASSED"), ("law", 1, "FAILED"), ("end", 3, "INCOMPLETE")]
)
def test_verify_tells_the_table_the_verdict_and_the_exit_code_of_a_file(
    change: str | None, code: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sound()
    if change == "law":
        found = BREAKS[must_run.LOOPS](found)
    if change == "end":
        found = replace(found, end=None)
    path = tmp_path / "check.jsonl"
    write(found, path)
    assert command.main(["--verify", str(path)]) == code
    told = capsys.readouterr().out
    assert told.splitlines()[-1].startswith(f"{word}: ")
    assert must_run.BOUND in told
    if change == "end":
        assert "missing   the end: the check was killed" in told


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_the_table_is_told_in_any_encoding_and_to_a_reader_that_goes_away(encoding: str, tmp_path: Path) -> None:
    whole = sound()
    clocks = Check(what="clocks", result="ok", detail="a product of 4096: 190 µs → fine")
    write(replace(whole, checks={**whole.checks, "clocks": clocks}), path := tmp_path / "check.jsonl")
    module = f"{sys.executable} -m benches.gpu_check --verify {path}"
    shell = f"set -o pipefail; {module} | head -1; {module} > told; echo $? >> told"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(baselines.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == b""
    assert (tmp_path / "told").read_bytes().endswith(b"0\n")
    assert b"190 " in (tmp_path / "told").read_bytes()


def test_verify_needs_neither_torch_nor_the_packages_of_a_page(tmp_path: Path) -> None:
    path = tmp_path / "check.jsonl"
    write(sound(), path)
    script = (
        "import sys; sys.modules['torch'] = sys.modules['pandas'] = None\n"
        "from benches.gpu_check.__main__ import main\n"
        f"sys.exit(main(['--verify', {str(path)!r}, '--page', 'page.html']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no page: pandas is not installed\n")


def test_the_page_of_a_record_says_its_verdict_and_every_check(tmp_path: Path) -> None:
    whole = replace(sound(), header={**sound().header, "created": "2026-01-02T03:04:05+00:00", "nvidia_smi": "<smi>"})
    write(BREAKS[must_run.LOOPS](whole), tmp_path / "check.jsonl")
    page = tmp_path / "page.html"
    assert command.main(["--verify", str(tmp_path / "check.jsonl"), "--page", str(page)]) == 1
    text = page.read_text()
    assert "FAILED: " in text
    assert "&lt;smi&gt;" in text
    assert [name for name in must_run.names(H100) if html.escape(name) not in text] == []


def test_int8_weight_only_multiplies_in_its_wide_precision() -> None:
    whole = sound()
    base = measured("eager", "bf16", 0.006)
    extra = row("vit eager int8_weight_only", replace(base, case=base.case.with_(precision="int8_weight_only")))
    assert verdict.decide(replace(whole, rows={**whole.rows, extra.name: extra})).word == "PASSED"


def test_kernels_of_backends_with_several_streams_may_run_side_by_side() -> None:
    for name in ("vit tensorrt", "vit onnxruntime"):
        whole = with_row(sound(), name, facts={"kernel_time_s": 0.008})
        assert verdict.decide(whole).word == "PASSED"


def test_kernels_are_held_against_the_time_of_what_was_profiled() -> None:
    """The profiled iteration may run at a lower clock than the samples."""
    slow = with_row(sound(), "vit cuda_graphs", facts={"kernel_time_s": 0.0065, "kernel_event_s": 0.0066})
    assert laws.kernel_time(slow).result == "ok"
    missed = with_row(sound(), "vit cuda_graphs", facts={"kernel_time_s": 0.0045, "kernel_event_s": 0.004})
    assert laws.kernel_time(missed).result == "FAILED"


@pytest.mark.parametrize(("latency_s", "result"), [(0.00655, "ok"), (0.0067, "FAILED")])
def test_a_replay_need_not_be_faster_where_the_gpu_is_the_bottleneck(latency_s: float, result: str) -> None:
    found = with_row(sound(), must_run.GRAPHS_ONE, samples={"latency_s": [latency_s] * 10})
    assert laws.graphs(found).result == result


@pytest.mark.parametrize(("ratio", "result"), [(1.02, "FAILED"), (1.11, "ok"), (1.3, "FAILED"), (None, "FAILED")])
def test_a_planted_tenth_must_be_found_as_about_a_tenth(ratio: float | None, result: str) -> None:
    whole = sound()
    found = replace(whole, compared=(whole.compared[0], replace(whole.compared[1], ratio=ratio)))
    assert verdict.paired.slower(found).result == result


COMMITTED = sorted((Path(baselines.__file__).parent / "recorded").glob("gpu-check-*.json.gz"))


@pytest.mark.skipif(not COMMITTED, reason="no record of the GPU check is committed")
def test_every_committed_record_can_be_judged() -> None:
    for found in map(verdict.decide, map(record.read, COMMITTED)):
        assert found.word in verdict.CODES
        assert found.found
