"""The conditions of a run: machine, device, versions, threads, flags, commit. All values have JSON types, and an
unknown one is None.

`collect` runs in a worker, because only a worker may use a device.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import backends
from harness.devices.cpu import cpu_model
from harness.processes import threads as thread_rule
from harness.reasons import Reason
from harness.version import VERSION

PACKAGES = (  # besides those that the backends and the precisions name
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "transformers",
    "torch-fidelity",
    "scikit-learn",
    "numpy",
    "scipy",
)
NO_GIT = "git is not installed, or not on the PATH"
GIT_TIMEOUT_S = 10
UNRECORDED_SAMPLE_S = 2e-4  # the length on every device in runs that did not record it
FLAGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "NVIDIA_TF32_OVERRIDE",
)
GPU_FLAGS = (  # they change nothing in a run on a CPU
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "DISABLE_ADDMM_CUDA_LT",
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B",
    "TORCH_CUDNN_SDPA_DEPRIORITIZED",
)


def collect(argument: tuple[str | None, int | None], _report: Any = None) -> dict[str, Any]:
    """The environment of (device name or None for the default, threads or None for as many as
    `harness.processes.threads` takes). Raises NoSuchDevice and ThreadsRefused."""
    import torch

    from harness import devices
    from harness.devices import unmeasured
    from harness.measuring import sampling
    from harness.types import Protocol

    name, threads = argument
    device = devices.device(name or devices.default())
    meter = device.energy_meter()
    chosen, allowed = thread_rule.chosen(threads), thread_rule.allowed()
    return {
        **device.describe(),
        "is_gpu": device.is_gpu,
        "backend_packages": list(backends.speed_packages(device.is_gpu)),
        "cpu": {
            "model": cpu_model(),
            "logical_cores": os.cpu_count(),
            "cores_allowed": allowed.affinity,
            "quota": allowed.quota,
            "isa": torch.backends.cpu.get_cpu_capability(),
        },
        "energy_counter": None if isinstance(meter, Reason | str) else meter.source,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": chosen.count,
        "threads_from": str(chosen.source),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "kernel": platform.release(),
        "host_hash": host_hash(),
        "versions": versions(),
        "flags": {flag: os.environ[flag] for flag in (*FLAGS, *GPU_FLAGS) if flag in os.environ},
        "torch_settings": torch_settings(),
        "shortest_sample_s": sampling.shortest_s(device.name, Protocol()),
        "unmeasured": [str(accelerator) for accelerator in unmeasured.present()],
        "git": git_state(),
        "imgbench": VERSION,
    }


def collect_or_reason(argument: tuple[str | None, int | None], report: Any = None) -> dict[str, Any] | str:
    """The environment, or why the requested device is not available. The reason is returned, because a worker's
    exceptions do not reach its caller."""
    from harness.devices import NoSuchDevice

    try:
        return collect(argument, report)
    except (NoSuchDevice, thread_rule.ThreadsRefused) as error:
        return str(error)


def torch_settings() -> dict[str, str | bool]:
    """torch's process-wide settings that a plugin may change and that no row sets. They determine which kernels a GPU
    runs, and in which precision the kernels accumulate. TF32 and the precision of fp32 products are not included,
    because each row sets them (`harness.numerics.precision.applied`)."""
    import torch

    cuda: Any = torch.backends.cuda  # its attributes have no types
    cudnn, products = torch.backends.cudnn, cuda.matmul
    of_products = {
        "fp16_reduced_precision_reduction": "allow_fp16_reduced_precision_reduction",
        "fp16_reduction_split_k": "allow_fp16_reduced_precision_reduction_split_k",
        "bf16_reduced_precision_reduction": "allow_bf16_reduced_precision_reduction",
        "bf16_reduction_split_k": "allow_bf16_reduced_precision_reduction_split_k",
        "fp16_accumulation": "allow_fp16_accumulation",
    }
    return {
        **{name: getattr(products, of) for name, of in of_products.items() if hasattr(products, of)},  # torch 2.9 on
        "fp16_bf16_reduction_in_math_attention": bool(cuda.fp16_bf16_reduction_math_sdp_allowed()),
        "blas_library": cuda.preferred_blas_library().name.lower(),
        "cudnn": cudnn.enabled,
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_deterministic": cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "attention_flash": cuda.flash_sdp_enabled(),
        "attention_efficient": cuda.mem_efficient_sdp_enabled(),
        "attention_cudnn": cuda.cudnn_sdp_enabled(),
        "attention_math": cuda.math_sdp_enabled(),
    }


def shortest_sample_s(environment: Mapping[str, Any]) -> float:
    """The shortest duration of a latency sample in seconds (`harness.measuring.sampling`). On a GPU, latencies from
    samples of two lengths differ, because the synchronisation at the end of a sample is part of it."""
    return float(environment.get("shortest_sample_s") or UNRECORDED_SAMPLE_S)


def host_hash() -> str:
    """A hash that distinguishes hosts without naming them."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """The installed version of each package that can change a figure. Absent packages are left out."""
    found = {}
    for package in dict.fromkeys((*PACKAGES, *backends.packages())):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """The commit of imgbench's code, and whether the code differs from it. If git fails, both are None and `reason`
    says why. None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    except GitRefused as error:
        return {"commit": None, "dirty": None, "reason": str(error)}
    return {"commit": commit, "dirty": bool(status)}


class GitRefused(RuntimeError):
    """git is not installed or refuses a folder; `str()` is one line, with git's own message if there is one."""


def _git(root: Path, *arguments: str) -> str:
    """What git prints. Raises GitRefused."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=GIT_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise GitRefused(NO_GIT) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise GitRefused(f"git cannot be run: {error}") from None
    if done.returncode != 0:
        raise GitRefused(f"git: {' '.join(done.stderr.split())[:400] or f'exit code {done.returncode}'}")
    return done.stdout.strip()
