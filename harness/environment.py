"""The conditions of a run: machine, device, versions, threads, flags, commit. Plain JSON types, None where unknown.

Collected in a worker (`collect`), because only there may a device be touched.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

from harness import threads as thread_rule
from harness.devices.cpu import cpu_model

VERSION = "0.1.0"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "transformers",
    "torchao",
    "onnxruntime-gpu",
    "onnxruntime",
    "onnx",
    "openvino",
    "tensorrt",
    "tensorrt-cu13",
    "torch-fidelity",
    "scikit-learn",
    "numpy",
    "scipy",
)
NO_GIT = "git is not installed, or not on the PATH"
GIT_TIMEOUT_S = 10
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


def collect(argument: tuple[str | None, int | None], _report: Any = None) -> dict[str, Any]:
    """The environment of (device name or None for the default, threads or None for as many as `harness.threads` takes).
    Raises NoSuchDevice and ThreadsRefused."""
    import torch

    from harness import devices

    name, threads = argument
    device = devices.device(name or devices.default())
    meter = device.energy_meter()
    chosen, allowed = thread_rule.chosen(threads), thread_rule.allowed()
    return {
        **device.describe(),
        "cpu": {
            "model": cpu_model(),
            "logical_cores": os.cpu_count(),
            "cores_allowed": allowed.affinity,
            "quota": allowed.quota,
            "isa": torch.backends.cpu.get_cpu_capability(),
        },
        "energy_counter": None if isinstance(meter, str) else meter.source,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": chosen.count,
        "threads_from": str(chosen.source),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "kernel": platform.release(),
        "host_hash": host_hash(),
        "versions": versions(),
        "flags": {flag: os.environ[flag] for flag in FLAGS if flag in os.environ},
        "git": git_state(),
        "imgbench": VERSION,
    }


def collect_or_reason(argument: tuple[str | None, int | None], report: Any = None) -> dict[str, Any] | str:
    """The environment, or why the device asked for is not here: a worker's exceptions do not reach its caller."""
    from harness.devices import NoSuchDevice

    try:
        return collect(argument, report)
    except (NoSuchDevice, thread_rule.ThreadsRefused) as error:
        return str(error)


def host_hash() -> str:
    """Tells one host from another without naming it."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Installed version of each package that can change a figure; absent ones are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the measuring code and whether it was changed since, {"commit": None, "dirty": None, "reason": ...}
    if git cannot tell; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
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
        raise GitRefused(f"git does not run: {error}") from None
    if done.returncode != 0:
        raise GitRefused(f"git: {' '.join(done.stderr.split())[:400] or f'exit code {done.returncode}'}")
    return done.stdout.strip()
