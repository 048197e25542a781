"""What a GPU check runs, in which order and for how long: over stubs of workers, of the device and of the clock."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_check_fixture import H100, T4, ended, measured, sound

import benches
import harness.processes.measure
from baselines.verdict import Comparison, Verdict
from benches import gpu_check
from benches.ab import driver as ab
from benches.gpu_check import __main__ as command
from benches.gpu_check import (
    block,
    comparison,
    control_models,
    controls,
    exports,
    header,
    hold,
    long_work,
    must_run,
    negative,
    networks,
    peaks,
    plain_vit,
    plan,
    published,
    record,
    sensor_process,
    two_loops,
    verdict,
)
from benches.gpu_check import rows as room
from benches.gpu_check.plan import Planned
from benches.gpu_check.record import Writer
from harness import suite
from harness.backends.tensorrt import engine as tensorrt_engine
from harness.measuring.trial import Mismatch
from harness.numerics import optimizations
from harness.processes.endings import Reply
from harness.processes.measure import Job, Outcome
from harness.reasons import stated
from harness.registry import BACKENDS, MODELS
from harness.timing import Timer
from harness.types import Case, Measurement, Workload

benches.load_plugins()


class Workers:
    """Workers that answer at once: `answer` makes the measurement of a job."""

    def __init__(self, logs: Path, answer: Callable[[Job], Measurement]) -> None:
        self.logs, self.answer = logs, answer
        self.jobs: list[Job] = []
        self.called: list[str] = []

    def measure(self, job: Job, _report: object) -> Outcome:
        self.jobs.append(job)
        return Outcome(measurement=self.answer(job))

    def call(self, _function: object, _argument: object, _timeout_s: float, name: str, report: Any) -> Reply:
        self.called.append(name)
        report(hold.HELD)
        return Reply(value=None, status="failed", reason="a stub")


def bench_of(tmp_path: Path, answer: Callable[[Job], Measurement], began: float | None = None) -> room.Bench:
    tmp_path.mkdir(exist_ok=True)
    writer = Writer(tmp_path / "check.jsonl")
    writer.header(sound().header)
    return room.Bench(
        workers=Workers(tmp_path, answer),  # type: ignore[arg-type]
        folder=tmp_path,
        began=room.perf_counter() if began is None else began,
        writer=writer,
        say=lambda _row: None,
        tell=lambda _text: None,
    )


def answered(job: Job) -> Measurement:
    return measured(job.case.backend, job.case.precision, 0.005)


@pytest.mark.parametrize("capability", [H100, T4])
def test_one_row_of_each_backend_comes_first_and_every_row_that_must_run_is_planned(
    capability: tuple[int, int],
) -> None:
    names = [planned.name for planned in plan.everything(capability)]
    assert len({*names}) == len(names)
    assert {*names[:7]} == {must_run.VIT_FP32, *must_run.OF_BACKENDS}
    assert {*names} >= {*must_run.rows(capability)}
    must = [n for n in names if n in must_run.rows(capability)]
    assert names[: len(must)] == must  # further precisions, attentions and models come later


def test_a_t4_computes_in_fp16_where_others_use_bf16() -> None:
    assert {p.case.precision for p in [*plan.backends(T4), *plan.laws(T4), *plan.networks(T4)]} == {"fp32", "fp16"}
    assert "bf16" in {p.case.precision for p in plan.backends(H100)}
    assert [p.case.precision for p in negative.capture(T4)] == ["fp16", "fp16"]
    assert {c.precision for c in (*block.cases(T4), *comparison.paired_cases(T4))} == {"fp16"}
    assert must_run.VIT_TF32 not in {p.name for p in plan.everything(T4)}


def test_the_networks_are_of_full_size() -> None:
    planned = {p.name: p for p in plan.everything(H100)}
    assert planned[must_run.VIT].case.batch_size == 64
    assert (planned[must_run.UNET].case.batch_size, planned[must_run.UNET].case.image_size) == (2, 512)
    assert planned[must_run.DIT].case.batch_size == 2
    assert planned[must_run.UNET].flops == 2 * 803_273_441_280


def test_no_step_lasts_beyond_the_budget_and_no_row_a_third_of_the_time() -> None:
    deadlines = [
        plan.DEVICE_UNTIL_S,
        plan.BACKENDS_UNTIL_S,
        plan.LAWS_UNTIL_S,
        plan.NETWORKS_UNTIL_S,
        plan.CONTROLS_UNTIL_S,
        plan.PAIRED_UNTIL_S,
    ]
    assert deadlines == sorted(deadlines)
    assert deadlines[-1] == gpu_check.BUDGET_S < gpu_check.LAST_S < 8 * 60
    assert gpu_check.ROW_TIMEOUT_S < 8 * 60 / 3


def test_a_row_has_what_its_step_has_left_and_one_without_time_or_package_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "perf_counter", lambda: 100.0)
    bench = bench_of(tmp_path, answered, began=0.0)
    case = Case(model="check_vit", image_size=224)
    assert bench.measure(Planned(name="a", case=case), 1000.0).allowed_s == gpu_check.ROW_TIMEOUT_S
    assert bench.measure(Planned(name="b", case=case), 130.0).allowed_s == 30.0
    spent = bench.measure(Planned(name="c", case=case), 100.0 + gpu_check.LEAST_S - 1)
    assert "no time was left: its step ends" in str(spent.measurement.reason)
    monkeypatch.setitem(plan.NEEDS, "check_vit", ("no_such_package",))
    absent = bench.measure(Planned(name="d", case=case), 1000.0)
    assert str(absent.measurement.reason) == "no_such_package is not installed"
    assert [j.protocol.timeout_s for j in bench.workers.jobs] == [120.0, 30.0]  # type: ignore[attr-defined]
    kept = record.read(bench.writer.path)
    assert {n: verdict.of_row(r).result for n, r in kept.rows.items()} == {
        "a": "ok",
        "b": "ok",
        "c": "left out",
        "d": "left out",
    }


def test_the_end_of_a_failed_workers_log_is_in_the_record(tmp_path: Path) -> None:
    case = Case(model="check_vit", image_size=224)
    (tmp_path / f"{case.id}.0.log").write_text("x" * 5000 + "\nCUDA error: an illegal memory access")
    bench = bench_of(tmp_path, lambda _job: ended("failed", "exit code 139"))
    bench.measure(Planned(name="a", case=case), 1e9)
    kept = record.read(bench.writer.path).rows["a"].log
    assert kept is not None
    assert len(kept) == record.LOG_CHARACTERS
    assert kept.endswith("an illegal memory access")


def test_the_inspectors_text_of_the_first_engine_is_kept_also_where_its_row_is_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend itself says where its engines lie."""
    device: Any = SimpleNamespace(name="cuda", torch_device="cpu", synchronize=lambda: None)

    def answer(job: Job) -> Measurement:
        def plan(_path: Path, _ranges: object, places: tensorrt_engine.Places, *_more: object) -> None:
            places.engines.mkdir(parents=True, exist_ok=True)
            text = f'{{"Layers": ["{job.case.precision}"]}}'
            (places.engines / f"net-{job.case.precision}.layers.json").write_text(text)
            raise Mismatch("no layer of any engine computes in half")

        monkeypatch.setattr(tensorrt_engine, "plan", plan)
        with pytest.raises(Mismatch) as stopped:
            harness.processes.measure._build(job, device, lambda _phase: None)
        return ended("invalid", str(stopped.value))

    file = SimpleNamespace(component="net", path=tmp_path)
    monkeypatch.setattr(
        "harness.backends.tensorrt.onnx_export.exported",
        lambda components, *_a: [SimpleNamespace(**{**vars(file), "component": components[0].name})],
    )
    bench = bench_of(tmp_path, answer)
    for precision in ("fp16", "fp32"):
        case = Case(model="check_vit_tiny", backend="tensorrt", precision=precision, image_size=224)
        bench.measure(Planned(name=f"vit tensorrt {precision}", case=case), 1e9)
    kept = record.read(bench.writer.path)
    assert kept.checks[room.LAYERS].figures == {"layers": '{"Layers": ["fp16"]}', "characters": 20}
    assert {row.measurement.status for row in kept.rows.values()} == {"invalid"}


def test_a_row_is_kept_with_the_last_phase_of_its_worker(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, answered)
    stub: Any = bench.workers

    def measure(job: Job, report: Callable[[str], None]) -> Outcome:
        for phase in ("load", "build"):
            report(phase)
        return Outcome(measurement=ended("timeout", "no result"))

    stub.measure = measure
    bench.measure(Planned(name="a", case=Case(model="check_vit", image_size=224)), 1e9)
    kept = record.read(bench.writer.path).rows["a"]
    assert kept.phase == "build"
    assert verdict.of_row(kept).result == "left out"


def test_a_reference_is_a_part_of_its_rows_time(tmp_path: Path) -> None:
    job = bench_of(tmp_path, answered).job(Case(model="check_vit"), (), 40.0)
    assert job.reference_until_s == 40.0 - room.AFTER_REFERENCE_S
    assert bench_of(tmp_path / "b", answered).job(Case(model="check_vit"), (), 6.0).reference_until_s == 0.0


def test_int8_products_are_asked_of_torch_compile_alone_and_every_attention_is_listed() -> None:
    """Eager int8 is refused on a GPU."""
    asked = [p.case for p in plan.everything(H100)]
    int8 = [c for c in asked if c.precision.startswith(("int8_dynamic", "int8_static")) and c.backend != "tensorrt"]
    assert {c.precision for c in int8} == {"int8_dynamic_bf16", "int8_static_bf16"}
    assert {c.backend for c in int8} == {"torch_compile"}
    assert {c.optimizations for c in asked} >= {"attention_math", "attention_flash", "attention_cudnn"}


def test_every_case_is_one_that_a_suite_could_ask_for() -> None:
    asked = [p.case for p in plan.everything(H100)]
    assert len({case.id for case in asked}) == len(asked)
    known = [case for case in asked if case.model in MODELS]
    assert {case.model for case in known} >= {plan.TIMM_VIT, "digits_sd", "digits_dit"}
    assert [reason for case in known if (reason := suite.check(case))] == []
    assert [reason for case in asked if (reason := optimizations.unavailable(case, "cuda"))] == []
    assert {case.backend for case in asked} <= {*BACKENDS}


def test_quantised_rows_have_a_base_of_16_bits_where_this_version_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PRECISIONS", ("int8_static", "int8_static_bf16"))
    assert plan.on_base("int8_static", "bf16") == "int8_static_bf16"
    assert plan.on_base("int8_static", "fp16") == "int8_static"


def test_energy_is_measured_in_one_row_quality_in_none_and_two_loops_in_all() -> None:
    planned = list(plan.everything(H100))
    assert [p.name for p in planned if "energy" in room.probes_of(p)] == [must_run.VIT]
    assert all({"latency", "fidelity", "memory", "two_loops"} <= {*room.probes_of(p)} for p in planned)
    assert not any("quality" in room.probes_of(p) for p in planned)


def test_out_of_memory_is_asked_of_each_backend_while_the_memory_is_held(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, lambda job: ended("oom" if job.case.model == "check_hungry" else "failed", "captured"))
    stub: Any = bench.workers
    released = tmp_path / "release"

    def held_until_released(_f: object, until: Path, _t: float, name: str, report: Any) -> Reply:
        stub.called.append(name)
        report(hold.HELD)
        deadline = threading.Event()
        while not until.exists() and not deadline.wait(0.01):
            pass
        return Reply(value=1)

    stub.call = held_until_released
    negative.measure(bench, H100, 1e9)
    asked = [(job.case.model, job.case.backend) for job in stub.jobs]
    assert [backend for model, backend in asked if model == "check_hungry"] == ["eager", *must_run.BACKENDS]
    assert asked[-1] == ("check_vit_tiny", "eager")  # when the memory is free again
    assert released.exists()
    assert {*record.read(bench.writer.path).rows} == {*controls.EXPECTED}


def test_where_the_memory_cannot_be_held_no_row_is_asked_to_run_out_of_it(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, answered)
    stub: Any = bench.workers
    stub.call = lambda *_arguments: Reply(value=None, status="failed", reason="no CUDA")
    negative.measure(bench, H100, bench.elapsed_s + 1e6)
    kept = record.read(bench.writer.path)
    assert not {*must_run.OUT_OF_MEMORY.values()} & {*kept.rows}
    assert must_run.AFTER in kept.rows
    assert kept.checks["held memory"].detail == "failed: no CUDA"


def test_the_process_that_holds_the_memory_leaves_little_and_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10 * 2**30]

    def taken(size: int, **_options: object) -> bytes:
        free[0] -= size
        return b"x"

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free[0], 0))
    monkeypatch.setattr(torch, "empty", taken)
    said: list[str] = []
    (tmp_path / "release").touch()
    assert hold.hold(tmp_path / "release", said.append) == 9
    assert free[0] == hold.LEFT_BYTES
    assert said == [hold.HELD]


def test_the_hungry_activation_does_not_fit_what_is_left_and_fits_every_gpu() -> None:
    elements = control_models.HUNGRY_BATCH * control_models.HUNGRY_WIDTH
    assert 2 * hold.LEFT_BYTES < 4 * elements < 8 * 2**30
    assert elements < 2**31  # TensorRT's limit


@pytest.mark.parametrize("build", [control_models.hungry, control_models.reads_back, control_models.uncapturable])
def test_a_control_is_a_sound_network_on_the_cpu(build: Callable[[Case], Workload]) -> None:
    workload = build(Case(model="x", batch_size=2))
    forwards = {c.name: c.module for c in workload.components}
    output = workload.iterate(forwards, workload.batch)
    assert tuple(output.shape) == workload.output_shape
    assert bool(torch.isfinite(output).all())


def test_its_own_models_need_no_model_library() -> None:
    workload = plain_vit.check_vit_tiny(Case(model="check_vit_tiny", batch_size=2, image_size=224))
    forwards = {c.name: c.module for c in workload.components}
    with torch.no_grad():
        output = workload.iterate(forwards, workload.batch)
    assert tuple(output.shape) == workload.output_shape == (2, 1000)
    assert bool(torch.isfinite(output).all())


def flops_of(module: Any, *inputs: torch.Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops())


def test_the_flops_of_the_vits_are_those_that_torch_counts() -> None:
    import timm

    with torch.device("meta"):
        plain, published = plain_vit.plain_vit(768, 12, 12), timm.create_model(plan.TIMM_VIT)
        images = torch.randn(1, 3, 224, 224)
    assert flops_of(plain, images) == plan.FLOPS["check_vit"]
    assert flops_of(published, images) == plan.FLOPS[plan.TIMM_VIT]
    assert abs(sum(p.numel() for p in plain.parameters()) / 86_567_656 - 1) < 0.001  # ViT-B/16


def test_the_flops_of_the_denoisers_are_those_that_torch_counts() -> None:
    from benches.models import architectures
    from benches.models.dit import transformer
    from benches.models.networks import wrapped
    from benches.models.stable_diffusion import unet as unet_forward

    with torch.device("meta"):
        ticks = torch.zeros(1, dtype=torch.int64)
        entry = architectures.read("sd15")["networks"]["unet"]
        unet = wrapped(unet_forward, architectures.build_network(entry))
        inputs = (torch.randn(1, 4, 64, 64), ticks, torch.randn(1, 77, 768))
        assert flops_of(unet, *inputs) == plan.FLOPS["check_sd15_unet"]
        entry = architectures.read("dit_xl_2")["networks"]["transformer"]
        dit = wrapped(transformer, architectures.build_network(entry))
        assert flops_of(dit, torch.randn(1, 4, 32, 32), ticks, ticks) == plan.FLOPS["check_dit_xl_2"]


def test_a_denoiser_alone_is_called_once_with_all_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(torch.nn.Module):
        def forward(self, latents: torch.Tensor, ticks: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            return latents * ticks[:, None, None, None] + text.mean()

    monkeypatch.setattr("benches.models.architectures.build_network", lambda _entry: Small())
    monkeypatch.setattr("benches.models.networks.wrapped", lambda _forward, module: module)
    workload = networks.sd15_unet(Case(model="check_sd15_unet", batch_size=2, image_size=512))
    assert [tuple(x.shape) for x in workload.components[0].inputs] == [(2, 4, 64, 64), (2,), (2, 77, 768)]
    output = workload.iterate({"unet": workload.components[0].module}, workload.batch.to("cpu"))
    assert tuple(output.shape) == workload.output_shape == (2, 4, 64, 64)


@pytest.mark.parametrize(("product_s", "most_s"), [(0.0002, 0.6), (0.03, 0.6), (0.25, 1.1)])
def test_products_are_bound_by_time_and_not_by_their_number(
    product_s: float, most_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former check ran 2,000 products of 4096, which a T4 needs more than half a minute for in fp32."""
    now = [0.0]

    def product() -> None:
        now[0] += product_s

    monkeypatch.setattr(peaks, "perf_counter", lambda: now[0])
    fastest, calls = peaks.repeated(Timer(lambda: None, lambda: now[0]), product, peaks.SECONDS)
    assert fastest == pytest.approx(product_s)
    assert now[0] == pytest.approx(calls * product_s)
    assert now[0] <= most_s


@pytest.mark.parametrize(("capability", "dtype"), [(T4, torch.float16), ((8, 0), torch.bfloat16)])
def test_products_are_in_fp16_below_compute_capability_8(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert peaks.half() == dtype
    wanted = {"fp32", "fp16", "fp16 accumulated in fp16", "int8"}
    assert {*peaks._products(capability)} == (wanted if capability == T4 else wanted | {"tf32", "bf16"})


def test_a_copy_is_larger_than_any_l2() -> None:
    assert peaks.COPY_BYTES >= 2**30


def test_inductor_itself_refuses_to_capture_the_control() -> None:
    """By its own rule, and with nothing on the CPU in the graph, for which it would need a C++ compiler."""
    from torch._inductor.utils import get_first_incompatible_cudagraph_node
    from torch.fx.experimental.proxy_tensor import make_fx

    module = control_models.uncapturable(Case(model="x", batch_size=2)).components[0].module
    found = get_first_incompatible_cudagraph_node(
        make_fx(module, tracing_mode="fake", _allow_non_fake_inputs=True)(torch.randn(2, 64))
    )
    assert found is not None
    assert str(found.target) == "imgbench_check.doubled.default"
    sound = torch.nn.Linear(64, 10)
    assert (
        get_first_incompatible_cudagraph_node(
            make_fx(sound, tracing_mode="fake", _allow_non_fake_inputs=True)(torch.randn(2, 64))
        )
        is None
    )


def test_no_kernel_is_compiled_before_the_memory_runs_out() -> None:
    module: Any = control_models.hungry(Case(model="x", batch_size=2)).components[0].module
    assert [type(layer) for layer in module] == [torch.nn.Linear, torch.nn.Linear]


def test_the_paired_run_has_iterations_of_10_ms_and_more_on_a_gpu_of_870_teraflops() -> None:
    same, slowed = comparison.paired_cases(H100)
    assert same.model == slowed.model == "check_long"
    assert same.id != slowed.id
    flops = 2 * long_work.STEPS * long_work.WIDTH**2 * same.batch_size
    assert flops / 870e12 >= 0.01


def test_the_model_of_the_paired_run_is_close_to_itself_in_16_bits() -> None:
    workload = long_work.workload(Case(model="check_long", batch_size=16), width=128, steps=long_work.STEPS)
    module: Any = workload.components[0].module
    wide = workload.iterate({"network": module}, workload.batch)
    narrow = workload.iterate({"network": module.bfloat16()}, workload.batch.bfloat16()).float()
    assert tuple(wide.shape) == workload.output_shape
    assert torch.nn.functional.cosine_similarity(wide, narrow).min() > 0.99


def test_the_probe_of_two_loops_tells_what_it_costs_to_wait_for_each_iteration() -> None:
    now = [0.0]

    class Stub(Timer):
        def seconds(self, call: Callable[[], object], repeat: int = 1) -> float:
            spent = 0.01 * repeat + 0.002
            now[0] += spent
            return spent / repeat

    trial: Any = SimpleNamespace(timer=Stub(lambda: None, lambda: now[0]), step=lambda: None)
    found = two_loops.two_loops(trial).facts
    assert found["synchronisation_s"] == pytest.approx(0.002 * (1 - 1 / found["two_loops_iterations"]))


@pytest.mark.parametrize(("fixed_s", "ratio"), [(0.0, 2.0), (1.0, 1.0)])
def test_the_probe_of_two_loops_sees_work_that_does_not_grow(fixed_s: float, ratio: float) -> None:
    """A step that takes a second once and no time when it is repeated has the ratio of a cached answer."""
    now = [0.0]

    class Stub(Timer):
        def seconds(self, call: Callable[[], object], repeat: int = 1) -> float:
            spent = fixed_s or 0.01 * repeat
            now[0] += spent
            return spent / repeat

    trial: Any = SimpleNamespace(timer=Stub(lambda: None, lambda: now[0]), step=lambda: None)
    found = two_loops.two_loops(trial).facts
    assert found["two_loops_ratio"] == pytest.approx(ratio)


def test_the_export_runs_on_the_cpu_and_its_failure_is_told(tmp_path: Path) -> None:
    for reason, result in ((exports.EXPORTED, "ok"), ("onnxscript is not installed", "left out")):
        bench = bench_of(tmp_path / result, lambda _job, reason=reason: ended("skipped", reason))
        exports.export(bench, 100.0)
        (job,) = bench.workers.jobs  # type: ignore[attr-defined]
        assert (job.device, job.case.backend, job.case.precision) == ("cpu", "check_export", "fp16")
        assert job.cache.parent == tmp_path / result / "cache"  # where the rows of ONNX Runtime and TensorRT look
        assert record.read(bench.writer.path).checks[exports.NAME].result == result


# Seconds of a row by backend, start and build included: guesses, since no GPU has run it.
Guess = dict[str, float]
H100_S: Guess = {"eager": 10, "cuda_graphs": 7, "onnxruntime": 10, "torch_compile": 25, "tensorrt": 40}
T4_S: Guess = {"eager": 20, "cuda_graphs": 12, "onnxruntime": 20, "torch_compile": 45, "tensorrt": 80}
H100_CONTROLS_S: Guess = {"eager": 5, "cuda_graphs": 5, "onnxruntime": 5, "torch_compile": 8, "tensorrt": 10}
T4_CONTROLS_S: Guess = {"eager": 8, "cuda_graphs": 8, "onnxruntime": 8, "torch_compile": 14, "tensorrt": 18}
H100_NETWORKS_S, T4_NETWORKS_S = 20.0, 35.0
ENERGY_S = 9.0
CONTROL_MODELS = {"check_hungry", "check_reads_back", "check_uncapturable", "check_vit_tiny"}


def guessed(rows: Guess, controls: Guess, network_s: float) -> Callable[[Job], float]:
    def seconds(job: Job) -> float:
        if job.case.model in {"check_sd15_unet", "check_dit_xl_2"}:
            return network_s
        table = controls if job.case.model in CONTROL_MODELS else rows
        found = next(s for name, s in table.items() if job.case.backend.startswith(name))
        return found + (ENERGY_S if "energy" in (job.only or ()) else 0.0)

    return seconds


def played(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: Callable[[Job], float],
    capability: tuple[int, int] = H100,
    device_s: float = 45.0,
    block_s: float = 25.0,
) -> tuple[room.Bench, dict[str, float]]:
    """A whole check on a clock of its own, on which a row takes `seconds`; and how long the block and `ab` had."""
    now = [device_s]
    had: dict[str, float] = {}

    def answer(job: Job) -> Measurement:
        spent = seconds(job)
        now[0] += min(spent, job.protocol.timeout_s)
        if spent > job.protocol.timeout_s:
            return ended("timeout", "no result")
        return answered(job)

    def measure_block(bench: room.Bench, _capability: object, until_s: float) -> None:
        had["block"] = until_s - bench.elapsed_s
        now[0] += max(0.0, min(block_s, had["block"]))

    def paired(bench: room.Bench, _capability: object, until_s: float) -> None:
        had["ab"] = until_s - bench.elapsed_s
        now[0] += plan.PAIRED_S if had["ab"] >= plan.PAIRED_S else 0.0

    monkeypatch.setattr(room, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sensor_process, "CHECKS", ())
    monkeypatch.setattr(exports, "export", lambda *_a: None)
    monkeypatch.setattr(block, "measure", measure_block)
    monkeypatch.setattr(comparison, "paired", paired)
    bench = bench_of(tmp_path, answer, began=0.0)
    stub: Any = bench.workers

    def held(_f: object, until: Path, _t: float, _name: str, report: Any) -> Reply:
        report(hold.HELD)
        while not until.exists() and not threading.Event().wait(0.01):
            pass
        return Reply(value=1)

    stub.call = held
    assert command.run(bench, capability) is None
    return bench, had


def not_reached(bench: room.Bench, capability: tuple[int, int]) -> set[str]:
    kept = record.read(bench.writer.path).rows
    wanted = (*must_run.rows(capability), *controls.EXPECTED)
    return {name for name in wanted if kept[name].measurement.status in {"skipped", "timeout"}}


def test_an_h100_reaches_everything_that_must_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = guessed(H100_S, H100_CONTROLS_S, H100_NETWORKS_S)
    bench, had = played(tmp_path, monkeypatch, seconds, device_s=55.0)
    assert not_reached(bench, H100) == set()
    assert had["block"] >= 25.0
    assert had["ab"] >= plan.PAIRED_S
    assert bench.elapsed_s <= gpu_check.BUDGET_S


def test_what_a_t4_does_not_reach_is_what_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches a row of each backend but the last, the laws, a network and most controls."""
    seconds = guessed(T4_S, T4_CONTROLS_S, T4_NETWORKS_S)
    bench, had = played(tmp_path, monkeypatch, seconds, capability=T4, device_s=60.0, block_s=40.0)
    assert not_reached(bench, T4) == {
        "vit torch_compile_reduce_overhead",
        must_run.DIT,
        *(must_run.OUT_OF_MEMORY[b] for b in ("onnxruntime", "torch_compile", "tensorrt")),
        must_run.OUT_OF_MEMORY["torch_compile_reduce_overhead"],
    }
    assert had["block"] >= gpu_check.LEAST_S
    assert had["ab"] >= plan.LEAST_PAIRED_S
    assert bench.elapsed_s <= gpu_check.BUDGET_S


def test_the_last_steps_have_time_that_no_earlier_one_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that use up all they have leave the controls, the block and `ab` what each needs to begin."""
    bench, had = played(tmp_path, monkeypatch, lambda job: 5.0 if job.case.model in CONTROL_MODELS else 1e9)
    assert {*controls.EXPECTED} & not_reached(bench, H100) <= {must_run.OUT_OF_MEMORY["torch_compile_reduce_overhead"]}
    assert had["block"] >= 20.0
    assert had["ab"] >= plan.LEAST_PAIRED_S


def test_a_check_in_which_every_row_hangs_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _ = played(tmp_path, monkeypatch, lambda _job: 1e9)
    assert bench.elapsed_s <= gpu_check.BUDGET_S
    assert {*must_run.rows(H100)} <= {*record.read(bench.writer.path).rows}


def test_a_step_that_raises_fails_by_its_name_and_the_next_ones_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError("no space left")

    ran: list[str] = []
    monkeypatch.setattr(sensor_process, "CHECKS", ())
    monkeypatch.setattr(negative, "measure", broken)
    monkeypatch.setattr(block, "measure", lambda *_a: ran.append("block"))
    monkeypatch.setattr(comparison, "paired", lambda *_a: ran.append("ab"))
    bench = bench_of(tmp_path, answered)
    assert command.run(bench, H100) is None
    assert ran == ["block", "ab"]
    kept = record.read(bench.writer.path)
    assert kept.checks["step controls"].result == "FAILED"
    assert {*must_run.rows(H100)} <= {*kept.rows}


def test_a_check_that_hangs_ends_with_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = bench_of(tmp_path, answered)
    left: list[int] = []
    command.give_up([bench.writer], lambda: 470.0, left.append)
    assert left == [verdict.CODES["INCOMPLETE"]]
    assert command.HUNG in capsys.readouterr().out
    kept = record.read(tmp_path / "check.json.gz")
    assert kept.end == {"elapsed_s": 470.0, "reason": command.HUNG}


HANGS = """
import sys, time
import benches
from benches.gpu_check import header, long_work, plain_vit, plan, rows
from harness.processes.endings import Reply
from harness.processes.worker import Workers
from benches.gpu_check import __main__ as command

if __name__ == "__main__":
    header = {"environment": {"device_name": "A GPU"}, "capability": [9, 0]}
    if sys.argv[2] == "rows":
        Workers.call = lambda *arguments: Reply(value=header)
    else:  # the fork server, which imports before it answers
        Workers.call = lambda *arguments: time.sleep(600)
    command.run = lambda *arguments: time.sleep(600)
    benches.load_plugins()  # as all that is imported above: the time is for what hangs
    command.LAST_S = 2.0
    command.end(lambda: command.main(["--out", sys.argv[1]]))
"""


def test_the_program_ends_in_time_with_its_record_whatever_hangs(tmp_path: Path) -> None:
    """A worker that cannot be killed does not keep the check from ending within its eight minutes."""
    (script := tmp_path / "hangs.py").write_text(HANGS)
    asked = [sys.executable, script, tmp_path, "rows"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == verdict.CODES["INCOMPLETE"], done.stderr
    kept = record.read(tmp_path / "gpu-check-a-gpu.json.gz")
    assert kept.end is not None
    assert kept.end["reason"] == command.HUNG
    assert "missing   the end: " + command.HUNG in done.stdout


def test_the_program_ends_in_time_where_not_even_the_header_comes(tmp_path: Path) -> None:
    (script := tmp_path / "hangs.py").write_text(HANGS)
    asked = [sys.executable, script, tmp_path / "out", "header"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == verdict.CODES["INCOMPLETE"], done.stderr
    assert done.stdout.startswith(f"INCOMPLETE: {command.HUNG}; there is no record")


def test_without_a_gpu_it_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.processes.worker.Workers.call", lambda *_a: Reply(value="no driver"))
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out == "no GPU to check: no driver\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_no_record_is_written_over(tmp_path: Path) -> None:
    first = command.fresh(tmp_path / "gpu-check-t4.jsonl")
    first.with_suffix(".json.gz").touch()
    assert command.fresh(first).name == "gpu-check-t4-2.jsonl"


SMI = """
==============NVSMI LOG==============
Driver Version                            : 580.65.06
GPU 00000000:07:00.0
    Product Name                          : NVIDIA H100 80GB HBM3
    Serial Number                         : 1650000000000
    Clocks
        SM                                : 1980 MHz
    Processes
        GPU instance ID                   : N/A
        Process ID                        : 4242
            Name                          : /home/somebody/python
    Capabilities
        EGM                               : disabled
"""


def test_the_header_holds_no_serial_number_and_no_process_of_others() -> None:
    kept = header.public(SMI)
    assert "580.65.06" in kept
    assert "1980 MHz" in kept
    assert "EGM" in kept
    assert not any(word in kept for word in ("1650000000000", "4242", "somebody"))


def test_a_missing_nvidia_smi_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_a: object, **_k: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(header.subprocess, "run", absent)
    assert header.nvidia_smi("GPU-1") == "nvidia-smi is not installed"


def decided(case: Case, outcome: Any, metric: str = "latency_s") -> Verdict:
    return Verdict(
        case_id=case.id,
        label=case.label,
        metric=metric,
        kind="noisy",
        unit="s",
        outcome=outcome,
        reason=stated("r"),
        ratio=1.1,
    )


def test_the_verdicts_of_the_paired_run_are_kept_with_what_was_planted() -> None:
    same, slowed = comparison.paired_cases(H100)
    broken = decided(same, "missing", "row")
    found = Comparison(
        run_id="x",
        suite="gpu-check",
        baseline="base",
        scope="all",
        verdicts=(decided(slowed, "regressed"), decided(slowed, "unchanged", "disk_bytes"), broken),
    )
    kept = {one.label: (one.planted, one.outcome) for one in comparison.compared(found, slowed.id)}
    assert kept == {slowed.label: (True, "regressed"), same.label: (False, "missing")}


def test_the_block_mixes_compile_modes_of_one_model() -> None:
    cases = block.cases(H100)
    assert len({case.backend for case in cases}) > 1
    assert len({case.model for case in cases}) == 1
    assert len({case.id for case in cases}) == len(cases) >= 3


def published_for(device_name: str) -> list[str]:
    whole = sound()
    header = {"environment": {"device_name": device_name}, "capability": [9, 0]}
    return list(published.lines(record.Record(**{**vars(whole), "header": header})))


def test_a_row_is_held_against_the_figures_of_its_own_gpu_only() -> None:
    on_4090 = published_for("NVIDIA GeForce RTX 4090")
    assert any(line.startswith("vit eager: 1.067e+04 images/s, 3.56 of the published 2992.79") for line in on_4090)
    assert any("of 70 TFLOP/s" in line for line in published_for("NVIDIA A10G"))  # not the A10's 125
    on_a100 = published_for("NVIDIA A100-SXM4-80GB")
    assert any(line.startswith("unet eager: 50 calls/s, 2.31 of the published 21.66") for line in on_a100)
    assert any("of 2039 GB/s" in line for line in on_a100)
    for other in ("an unknown GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU"):
        assert published_for(other) == []


def test_the_header_has_what_the_laws_need(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H100 PCIe", multi_processor_count=132, L2_cache_size=52_428_800)
    found = {"device_name": "NVIDIA H100 80GB HBM3", "gpus": [{"uuid": "GPU-1"}]}
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    monkeypatch.setattr("harness.processes.environment.collect", lambda _argument: found)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(header, "nvidia_smi", lambda uuid: f"of {uuid}")
    collected = header.collect()
    assert isinstance(collected, dict)
    assert collected == {
        "environment": found,
        "capability": [9, 0],
        "l2_bytes": 52_428_800,
        "multiprocessors": 132,
        "nvidia_smi": "of GPU-1",
    }
    assert header.slug(collected) == "nvidia-h100-80gb-hbm3"

    def broken(_argument: object) -> None:
        raise OSError("NVML: GPU is lost")

    monkeypatch.setattr("harness.processes.environment.collect", broken)
    lost: Any = header.collect()
    assert lost["environment"] == {"device_name": "NVIDIA H100 PCIe", "error": "OSError: NVML: GPU is lost"}
    assert lost["capability"] == [9, 0]
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: "no driver")
    assert header.collect() == "no driver"


def test_the_device_checks_that_have_no_time_left_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor_process, "CHECKS", (("a", None), ("b", None)))
    found = list(sensor_process.checked(lambda *_a: None, left_s=lambda: 0.0))
    assert [(c.what, c.result, c.detail) for c in found] == [
        ("a", "left out", sensor_process.SPENT),
        ("b", "left out", sensor_process.SPENT),
    ]


IN_A_WORKER = """
import sys
from pathlib import Path
import benches
benches.load_plugins()
from benches.gpu_check import QUICK, exports, rows
import benches.gpu_check.plugin
from harness.processes.measure import Job
from harness.types import Case
from harness.processes.worker import measure_job

folder = Path(sys.argv[1])

def measured(backend, only):
    case = Case(model="check_hungry", backend=backend, batch_size=2)
    job = Job(case=case, replicate=0, protocol=QUICK, device="cpu", folder=folder, cache=folder / "cache" / case.id,
              threads=1, only=only)
    return measure_job(job, lambda phase: None).measurement

eager = measured("eager", ("startup", "latency", "two_loops"))
assert eager.status == "ok", eager.reason
assert eager.facts["two_loops_ratio"] > 0
exported = measured("check_export", ())
assert (exported.status, exported.reason) == ("skipped", exports.EXPORTED), exported.reason
before = {p.name for p in (folder / "cache" / "exports").iterdir()}
assert len(before) == 1
row = measured("onnxruntime", ("startup", "latency"))
assert row.status == "ok", row.reason
assert {p.name for p in (folder / "cache" / "exports").iterdir()} == before
"""


@pytest.mark.slow
def test_the_plugin_of_the_workers_measures_and_its_export_is_what_onnx_runtime_finds(tmp_path: Path) -> None:
    command_line = [sys.executable, "-c", IN_A_WORKER, str(tmp_path)]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


WITHOUT_LIBRARIES = """
import sys
from pathlib import Path
for name in sys.argv[2:]:
    sys.modules[name] = None
from benches.gpu_check import __main__ as command, block, negative, plan, sensor_process, plugin
from benches.gpu_check.record import Writer, read
from benches.gpu_check.rows import Bench

sensor_process.CHECKS = ()
plan.backends = plan.laws = plan.networks = plan.rest = lambda capability: ()
block.measure = negative.measure = lambda *arguments: None

class Workers:
    def measure(self, job, report):
        raise ValueError("not asked for")

writer = Writer(Path(sys.argv[1]))
writer.header({"capability": [9, 0]})
folder = Path(sys.argv[1]).parent
command.run(Bench(workers=Workers(), folder=folder, began=0.0, writer=writer, say=print, tell=print), (9, 0))
assert read(writer.path).compared_missing == "yaml is not installed", read(writer.path)
"""
LIBRARIES = [
    "pandas",
    "jinja2",
    "plotly",
    "rich",
    "yaml",
    "PIL",
    "timm",
    "diffusers",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "sklearn",
    "pyarrow",
    "pynvml",
    "torchao",
    "tensorrt",
    "openvino",
    "accelerate",
    "safetensors",
    "tokenizers",
    "torchvision",
    "torch_fidelity",
]


def test_it_needs_no_library_but_torch_numpy_and_scipy(tmp_path: Path) -> None:
    command_line = [sys.executable, "-c", WITHOUT_LIBRARIES, str(tmp_path / "x.jsonl"), *LIBRARIES]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_paired_run_spends_no_time_on_energy() -> None:
    run: Any = SimpleNamespace(
        rows=comparison.paired_cases(H100),
        protocol=comparison.PROTOCOL,
        environment={"energy_counter": "NVML"},
        budget_s=plan.PAIRED_S,
    )
    assert "energy" not in ab._probes(run)[0]
