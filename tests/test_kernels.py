"""Which kernels ran: read from torch's profiler, only on a GPU, after everything that is timed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent

from harness import probes
from harness.devices.cpu import Cpu
from harness.measuring import control_workload
from harness.measuring.trial import Findings, Trial
from harness.probes import Probe, kernels
from harness.processes import measure, worker
from harness.processes.endings import Reply
from harness.reasons import Reason
from harness.registry import PROBES
from harness.timing import FakeClock, Timer
from harness.types import Case, Component, Measurement, Protocol

FLASH = "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, cutlass::bfloat16_t>>"
GEMM = "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x32_stage4"
CUDA = torch._C._autograd.DeviceType.CUDA
CPU = torch._C._autograd.DeviceType.CPU


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (FLASH, "attention"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("_gemm_mha_v2_0x1a2b", "attention"),
        ("void cudnn::ops::nchwToNhwcKernel<__half, __half, float>", "other"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc", "convolution"),
        ("void implicit_convolve_sgemm<float, float, 1024>", "convolution"),
        ("triton_tem_fused_convolution_3", "convolution"),
        ("turing_fp16_s1688cudnn_fp16_128x64_ldg8_relu_f2f_exp_small_nhwc_tn_v1", "convolution"),
        ("ampere_scudnn_128x64_relu_interior_nn_v1", "convolution"),
        (GEMM, "gemm"),
        ("ampere_sgemm_128x64_tn", "gemm"),
        ("cutlass_80_tensorop_s1688gemm_128x128_nn_align4", "gemm"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTN", "gemm"),
        ("void gemv2T_kernel_val<int, int, float>", "gemm"),
        ("triton_tem_fused_addmm_relu_1", "gemm"),
        ("__myl_FcAddGelu_0x9c8f3ad6c1d7a0b5", "gemm"),
        ("__myl_CastMulRound_myl0_3", "other"),
        ("FcAddGelu", "other"),
        ("triton_poi_fused__scaled_dot_product_flash_attention_view_0", "other"),
        ("triton_per_fused_addmm_native_layer_norm_2", "other"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", "other"),
        ("void at::native::convert_kernel<float>", "other"),
    ],
)
def test_a_kernel_is_known_by_its_name(name: str, kind: str) -> None:
    assert kernels.kind(name) == kind


def event(name: str, start_us: float, end_us: float, device: Any = CUDA, activity: str = "", **changes: Any) -> Any:
    """What torch's profiler gives for a kernel."""
    given = {"id": 0, "thread": 0, "start_us": start_us, "end_us": end_us, "device_type": device, "name": name}
    found = FunctionEvent(**given, **changes)
    found.activity_type = activity
    return found


class Session:
    """`torch.profiler.profile`, which saw what `events` says; `said` is written to stderr when it starts."""

    def __init__(self, seen: list[Any], said: str = "") -> None:
        self.seen, self.said, self.asked = seen, said, None

    def __call__(self, activities: Any, schedule: Any) -> Session:
        self.asked = activities
        self._schedule, self._step = schedule, 0
        return self

    def __enter__(self) -> Session:
        if self.said:
            os.write(2, self.said.encode())
        assert self._schedule(0) == torch.profiler.ProfilerAction.WARMUP
        return self

    def step(self) -> None:
        self._step += 1
        TRIAL_DID.append("record")

    def __exit__(self, *_error: object) -> None:
        assert self._schedule(self._step) == torch.profiler.ProfilerAction.RECORD_AND_SAVE
        assert TRIAL_DID[-1] == "synchronise", "the kernels of an iteration that still runs are not seen"

    def events(self) -> list[Any]:
        return self.seen


TRIAL_DID: list[str] = []
ONE = (Component(name="net", module=torch.nn.Identity(), inputs=()),)


def did(what: str) -> Any:
    return lambda *_: TRIAL_DID.append(what)


def profiled(monkeypatch: pytest.MonkeyPatch, session: Any, components: Any = ONE, **build: Any) -> Any:
    """The facts of a trial whose iteration takes 90 ms by the host's clock and 80 ms by the device's."""
    TRIAL_DID.clear()
    monkeypatch.setattr(torch.profiler, "profile", session)
    activities = {torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA}
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: activities)
    for name in kernels.KEEP_CUPTI:
        monkeypatch.setenv(name, "")
    watch: Any = SimpleNamespace(start=lambda: None, stop=lambda: None, seconds=lambda: 0.08)
    trial: Any = SimpleNamespace(
        device=SimpleNamespace(name="cuda", is_gpu=True, torch_device="cpu"),
        timer=Timer(did("synchronise"), FakeClock([0.09] * 100), watch),
        workload=SimpleNamespace(components=components),
        build=SimpleNamespace(**{"after_iteration": None, **build}),
        step=did("step"),
    )
    return kernels.kernels(trial).facts


def test_the_kernels_of_one_iteration_by_name_with_their_share_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(
        [
            event("aten::addmm", 0, 900, device=CPU),
            event("ProfilerStep", 0, 900, is_user_annotation=True),
            event("Memcpy HtoD (Pageable -> Device)", 0, 50),
            event("Memset (Device)", 50, 60, activity="gpu_memset"),
            event(GEMM, 100, 150),
            event(GEMM, 200, 250, activity="kernel"),
            event(FLASH, 250, 550),
            event("elementwise_kernel", 600, 700),
        ]
    )
    facts = profiled(monkeypatch, session)
    assert session.asked == [torch.profiler.ProfilerActivity.CUDA]
    assert os.environ["TEARDOWN_CUPTI"] == "0"
    assert facts["kernel_time_s"] == pytest.approx(5e-4)
    assert (facts["kernels_of"], facts["kernel_event_s"]) == ("one iteration", 0.08)
    flash, gemm, other = facts["kernels"]
    assert (flash["name"], flash["kind"], flash["calls"]) == (FLASH, "attention", 1)
    assert (gemm["name"], gemm["kind"], gemm["calls"]) == (GEMM, "gemm", 2)
    assert (other["name"], other["kind"]) == ("elementwise_kernel", "other")
    assert [row["seconds"] for row in facts["kernels"]] == pytest.approx([3e-4, 1e-4, 1e-4])
    assert [row["share"] for row in facts["kernels"]] == pytest.approx([0.6, 0.2, 0.2])


def test_the_iteration_that_counts_is_run_inside_a_profiler_that_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    profiled(monkeypatch, Session([event(GEMM, 0, 1)]))
    timed = ["synchronise", "step", "synchronise"]
    assert [*timed * 3, "record", *timed] == TRIAL_DID, "0.27 s of warm-up, then one iteration"


def test_of_an_iteration_of_many_calls_one_of_each_network_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2)
    unet = Component(name="unet", module=torch.nn.Identity(), inputs=(x,), calls=50, repeated=True)
    vae = Component(name="vae", module=torch.nn.Identity(), inputs=(x, x))
    given: dict[str, int] = {}

    def forward(name: str) -> Any:
        return lambda *inputs: given.update({name: len(inputs)}) or TRIAL_DID.append(name)

    session = Session([event(GEMM, 0, 1)])
    facts = profiled(
        monkeypatch,
        session,
        (unet, vae),
        forwards={"unet": forward("unet"), "vae": forward("vae")},
        after_iteration=did("offloaded"),
    )
    assert TRIAL_DID[-5:] == ["synchronise", "unet", "vae", "offloaded", "synchronise"]
    assert given == {"unet": 1, "vae": 2}
    assert facts["kernels_of"] == "one call of each network (an iteration has more: unet 50, vae 1)"
    few = (replace(unet, calls=kernels.MANY_CALLS - 1), vae)
    assert profiled(monkeypatch, session, few)["kernels_of"] == "one iteration"


def test_products_are_not_crowded_out_and_the_sum_is_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [event(f"elementwise_{number}", 0, 100) for number in range(30)]
    products = [event(f"gemm_{number}", 0, 1) for number in range(50)]
    facts = profiled(monkeypatch, Session([*others, *products]))
    kinds = [row["kind"] for row in facts["kernels"]]
    assert (kinds.count("other"), kinds.count("gemm")) == (kernels.OTHERS_KEPT, kernels.PRODUCTS_KEPT)
    assert facts["kernel_time_s"] == pytest.approx(3050e-6)


def test_a_profiler_that_saw_nothing_is_a_reason_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = profiled(monkeypatch, Session([], said="CUPTI_ERROR_INSUFFICIENT_PRIVILEGES\n"))
    assert set(facts) == {"kernels_missing"}
    assert facts["kernels_missing"].startswith("torch's profiler saw no kernel")
    assert facts["kernels_missing"].endswith("it said: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")


def test_a_profiler_that_fails_is_a_reason_and_loses_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_options: Any) -> Any:
        raise RuntimeError("Can't disable Kineto profiler when it's not running")

    assert profiled(monkeypatch, fails) == {
        "kernels_missing": "torch's profiler failed: Can't disable Kineto profiler when it's not running"
    }


def test_a_torch_without_cupti_and_a_cpu_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: {torch.profiler.ProfilerActivity.CPU})
    trial: Any = SimpleNamespace(device=SimpleNamespace(name="cuda", is_gpu=True))
    assert kernels.kernels(trial).facts["kernels_missing"].startswith("this build of torch has no CUDA profiler")
    trial.device.name, trial.device.is_gpu = "cpu", False
    assert kernels.kernels(trial).facts == {"kernels_missing": "the device is a CPU; kernels are listed for GPUs only"}


def job_of(folder: Path, replicate: int = 0, **changes: Any) -> measure.Job:
    quick = Protocol(
        replicates=1, warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05
    )
    given: dict[str, Any] = {"protocol": quick, "device": "cpu", "threads": 1, **changes}
    case = Case(model="planted_ok", image_size=planted.SIZE)
    return measure.Job(case=case, replicate=replicate, folder=folder, cache=folder / "cache", **given)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("replicate", [0, 1])
def test_it_is_the_last_thing_that_the_first_process_does(
    replicate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe also runs after the control workload, which CUPTI would slow down in this process only."""
    done: list[str] = []
    monkeypatch.setattr(control_workload, "measure", lambda *_: done.append("control_workload") or {})
    job = job_of(tmp_path, replicate)
    monkeypatch.setattr(Cpu, "energy_meter", lambda _self: "none")
    found = measure.measure(job, Cpu(), done.append).measurement
    assert found.status == "ok", found.reason
    assert done[-2:] == (["control_workload", "kernels"] if replicate == 0 else ["counts", "control_workload"])
    assert ("kernels_missing" in found.facts) == (replicate == 0)
    assert max(probes.in_order(0), key=lambda p: p.order).name == "kernels"


def in_its_place(collect: Any) -> Probe:
    return Probe(
        name="kernels", order=probes.AFTER_CONTROL_WORKLOAD, metrics=(), first_process_only=True, collect=collect
    )


@pytest.mark.usefixtures("registries")
def test_a_probe_that_raises_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(_trial: Trial) -> Findings:
        raise ValueError("no such event")

    monkeypatch.setitem(PROBES._entries, "kernels", in_its_place(raises))
    found = worker.measure_job(job_of(tmp_path, only=("latency", "kernels")), lambda _phase: None).measurement
    assert (found.status, found.facts["kernels_missing"]) == ("ok", "ValueError: no such event")
    assert found.samples["latency_s"]


def dying(job: measure.Job, report: worker.Report) -> measure.Outcome:
    """Runs in the worker: the profiler crashes, as CUPTI may."""
    PROBES._entries["kernels"] = in_its_place(lambda _trial: os.kill(os.getpid(), signal.SIGSEGV))
    return MEASURE_JOB(job, report)


MEASURE_JOB = worker.measure_job


def test_a_profiler_that_ends_the_process_loses_no_row(
    workers: worker.Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "measure_job", dying)
    outcome = workers.measure(job_of(tmp_path, only=("latency", "kernels")), lambda _phase: None)
    found = outcome.measurement
    assert (found.status, found.reason, found.cause) == ("ok", None, None)
    assert found.facts["kernels_missing"].startswith("the worker was killed by SIGSEGV")
    assert found.samples["latency_s"]
    assert found.duration_s > 0
    assert outcome.unfinished == ()


@pytest.mark.parametrize(("timeout_s", "left_s"), [(1000.0, worker.LAST_S), (50.0, 40.0)])
def test_a_profiler_that_hangs_is_ended_soon_and_loses_no_row(
    timeout_s: float, left_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has LAST_S, and no more than the row's own time."""
    now = [0.0]
    monkeypatch.setattr(worker, "perf_counter", lambda: now[0])
    job = job_of(tmp_path)
    measured = Measurement(case=job.case, replicate=0, status="ok", samples={"latency_s": [1.0]})
    messages = iter([("kept", measure.Outcome(measurement=measured, unfinished=("kernels",))), ("phase", "kernels")])
    patience: list[float] = []

    class Receiver:
        def poll(self, left: float) -> bool:
            patience.append(left)
            return len(patience) < 3

        def recv(self) -> Any:
            now[0] = 10.0
            return next(messages)

    receiver: Any = Receiver()
    kept: list[Any] = []
    reply = worker._receive(receiver, timeout_s, lambda _phase: None, kept.append)
    assert reply == Reply(status="timeout", reason=Reason("no_end_in_time", {"phase": "kernels"}))
    assert patience == [timeout_s, left_s, left_s]
    ended = worker.Workers.__new__(worker.Workers)
    monkeypatch.setattr(ended, "call", lambda *_, **__: replace(reply, kept=kept[0]))
    found = ended.measure(job, lambda _phase: None).measurement
    assert (found.status, found.samples) == ("ok", measured.samples)
    assert found.facts == {"kernels_missing": "the worker did not end in time; it was in phase 'kernels'"}
