"""Which kernels ran: read from torch's profiler, only on a GPU, after everything that is timed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent

from harness import measure, probes, sentinel
from harness.devices.cpu import Cpu
from harness.probes import kernels
from harness.types import Case, Protocol

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
        (GEMM, "gemm"),
        ("ampere_sgemm_128x64_tn", "gemm"),
        ("cutlass_80_tensorop_s1688gemm_128x128_nn_align4", "gemm"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTN", "gemm"),
        ("void gemv2T_kernel_val<int, int, float>", "gemm"),
        ("triton_tem_fused_addmm_relu_1", "gemm"),
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
    """A stand-in for `torch.profiler.profile` that saw `events`; `ran` is what the block did meanwhile."""

    def __init__(self, seen: list[Any], said: str = "") -> None:
        self.seen, self.said, self.asked = seen, said, None

    def __call__(self, activities: Any) -> Session:
        self.asked = activities
        return self

    def __enter__(self) -> Session:
        if self.said:
            os.write(2, self.said.encode())
        return self

    def __exit__(self, *_error: object) -> None:
        assert TRIAL_DID == ["step", "synchronise"], "the kernels of an iteration that still runs are not seen"

    def events(self) -> list[Any]:
        return self.seen


TRIAL_DID: list[str] = []


def profiled(monkeypatch: pytest.MonkeyPatch, session: Any) -> Any:
    TRIAL_DID.clear()
    monkeypatch.setattr(torch.profiler, "profile", session)
    activities = {torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA}
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: activities)
    for name in kernels.KEEP_CUPTI:
        monkeypatch.setenv(name, "")
    device = SimpleNamespace(name="cuda", synchronize=lambda: TRIAL_DID.append("synchronise"))
    trial: Any = SimpleNamespace(device=device, step=lambda: TRIAL_DID.append("step"))
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
    flash, gemm, other = facts["kernels"]
    assert (flash["name"], flash["kind"], flash["calls"]) == (FLASH, "attention", 1)
    assert (gemm["name"], gemm["kind"], gemm["calls"]) == (GEMM, "gemm", 2)
    assert (other["name"], other["kind"]) == ("elementwise_kernel", "other")
    assert [row["seconds"] for row in facts["kernels"]] == pytest.approx([3e-4, 1e-4, 1e-4])
    assert [row["share"] for row in facts["kernels"]] == pytest.approx([0.6, 0.2, 0.2])


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
    trial: Any = SimpleNamespace(device=SimpleNamespace(name="cuda"))
    assert kernels.kernels(trial).facts["kernels_missing"].startswith("this build of torch has no CUDA profiler")
    trial.device.name = "cpu"
    assert kernels.kernels(trial).facts == {"kernels_missing": "the device is a CPU; kernels are listed for GPUs only"}


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("replicate", [0, 1])
def test_it_is_the_last_thing_that_the_first_process_does(
    replicate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe also runs after the sentinel, which CUPTI would slow down in this process only."""
    done: list[str] = []
    monkeypatch.setattr(sentinel, "measure", lambda *_: done.append("sentinel") or {})
    quick = Protocol(
        replicates=1, warmup_min_s=0, warmup_max_s=0.01, min_samples=3, min_sample_time_s=0, max_sample_time_s=0.05
    )
    job = measure.Job(
        case=Case(model="planted_ok", image_size=planted.SIZE),
        replicate=replicate,
        protocol=quick,
        device="cpu",
        folder=tmp_path,
        cache=tmp_path / "cache",
        threads=1,
    )
    monkeypatch.setattr(Cpu, "energy_meter", lambda _self: "none")
    found = measure.measure(job, Cpu(), done.append).measurement
    assert found.status == "ok", found.reason
    assert done[-2:] == (["sentinel", "kernels"] if replicate == 0 else ["counts", "sentinel"])
    assert ("kernels_missing" in found.facts) == (replicate == 0)
    assert max(probes.in_order(0), key=lambda p: p.order).name == "kernels"
