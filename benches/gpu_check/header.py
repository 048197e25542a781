"""The header of a record: the conditions of the check. It is collected in a worker, because it initialises the
device."""

from __future__ import annotations

import re
import subprocess
from typing import Any, Final

SMI_TIMEOUT_S: Final = 15
# Lines of `nvidia-smi -q` that identify the individual board. A record does not contain them.
PRIVATE: Final = re.compile(r"^\s+(Serial Number|Board ID|Board Part Number|GPU PDI)\s*:.*\n", re.MULTILINE)


def collect(_argument: object = None, _report: object = None) -> dict[str, Any] | str:
    """Environment, compute capability, L2 size and the text of `nvidia-smi -q`; or the reason why there is no GPU to
    check."""
    import torch

    from harness.causes import one_line
    from harness.devices import cuda
    from harness.processes import environment

    if reason := cuda.unavailable():
        return str(reason)
    properties = torch.cuda.get_device_properties(0)
    try:
        found = environment.collect(("cuda", None))
    except Exception as error:  # the check also runs where a sensor fails
        found = {"device_name": properties.name, "error": one_line(error)}
    gpus = found.get("gpus") or [{}]
    return {
        "environment": found,
        "capability": list(torch.cuda.get_device_capability()),
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "multiprocessors": properties.multi_processor_count,
        "nvidia_smi": nvidia_smi(gpus[0].get("uuid")),
    }


def nvidia_smi(uuid: str | None) -> str:
    """What `nvidia-smi -q` prints about this GPU, without processes and serial numbers; or the reason why it prints
    nothing."""
    command = ["nvidia-smi", "-q", *(["-i", uuid] if uuid else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=SMI_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return "nvidia-smi is not installed"
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi does not run: {error}"
    if done.returncode != 0:
        return f"nvidia-smi: exit code {done.returncode}: {' '.join((done.stderr or done.stdout).split())[:300]}"
    return public(done.stdout)


def public(text: str) -> str:
    """The text without the sections of processes and without serial numbers."""
    kept, inside = [], False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip().startswith("Processes") and indent <= 4:
            inside = True
        elif inside and line.strip() and indent <= 4:
            inside = False
        if not inside:
            kept.append(line)
    return PRIVATE.sub("", "\n".join(kept) + "\n")


def slug(header: dict[str, Any]) -> str:
    """The GPU's name as a part of a file name: "nvidia-h100-80gb-hbm3"."""
    name = str(header["environment"].get("device_name") or "gpu").lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")
