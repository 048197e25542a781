"""The fields of the environment that must be equal for a comparison of speed.

If a hard field differs (CPU, GPU, driver major, versions that affect speed, threads, flags, torch's settings,
protocol), speed is not compared; `differences` lists it. If only soft fields differ (host, kernel, GPU UUID, shortest
sample), the comparison is advisory. A machine whose CPU or GPU is unknown is comparable only with the same host.

    differences(run.environment, session.run.environment)   # [torch is 2.14.1 here and 2.13.0 in the baseline]
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from baselines.wording import ReasonKind, because, value_text
from harness.processes.environment import GPU_FLAGS, shortest_sample_s
from harness.reasons import Reason
from harness.stored_types import measured_on_gpu
from harness.types import Protocol

Fields = dict[str, Any]
Environment = Mapping[str, Any]

# The packages of the backends before a run recorded them, on every device and on a GPU alone.
UNRECORDED = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino")
UNRECORDED_ON_GPU = ("tensorrt", "tensorrt-cu13")
# The names of the fields, which stored fingerprints contain; any other package has its own name.
FIELD_NAMES = {"openvino": "OpenVINO", "tensorrt": "TensorRT", "tensorrt-cu13": "TensorRT for CUDA 13"}
# A longer time-out, an additional quality pass or a further attempt changes no sample of a row.
UNTIMED_PROTOCOL = frozenset({"timeout_s", "quality", "stages", "contended_retries", "ratio_interval", "budget_s"})
GPU_FIELDS = {"name": "GPU model", "memory_bytes": "GPU memory", "power_limit_w": "GPU power limit", "mig": "GPU MIG"}
KEY_DIGITS = 8
SETTING = "torch setting "
CHOICE = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")  # which of several GPUs is used


def fingerprint(environment: Environment) -> str:
    """12 hex digits over the hard fields; and over the host if the hardware is unknown."""
    return _digest({**hard_fields(environment), **_host_if_unknown(environment)}, 12)


def machine_key(environment: Environment) -> str:
    """A readable folder name for the hardware alone: 'intel-xeon-8481c-2-cores-1a2b3c4d'.

    Versions are left out, so that a baseline from before an upgrade is found and refused with the differences.
    """
    fields = {**identity_fields(environment), **_host_if_unknown(environment)}
    name = fields.get("GPU model") or fields["CPU model"] or "unknown"
    cores = fields["CPU cores"]
    count = len(cores) if isinstance(cores, list) else cores
    parts = [value_text(name), f"{count} cores" if count is not None else "", _digest(fields, KEY_DIGITS)]
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:60] for part in parts if part)


def differences(a: Environment, b: Environment) -> list[Reason]:
    """Hard fields in which `a` (here) differs from `b` (the baseline); empty if speed is comparable."""
    a, b = _recorded_in_both(a, b)
    packages = _packages_of_both(a, b)
    here, there = hard_fields(a, packages), hard_fields(b, packages)
    same_host = _host(a) is not None and _host(a) == _host(b)
    known = {**identity_fields(a), **identity_fields(b)}
    found = []
    for name in dict.fromkeys([*here, *there]):
        mine, theirs = here.get(name), there.get(name)
        if name in known and (mine is None or theirs is None):
            if not same_host:
                found.append(because(ReasonKind.FIELD_UNKNOWN, name=name, here=mine is None, there=theirs is None))
        elif mine != theirs:
            found.append(_differs(name, mine, theirs))
    return found


def soft_differences(a: Environment, b: Environment) -> list[Reason]:
    """Soft fields in which two environments differ; the comparison is then advisory."""
    a, b = _recorded_in_both(a, b)
    return _compare(soft_fields(a), soft_fields(b))


def _recorded_in_both(a: Environment, b: Environment) -> tuple[Environment, Environment]:
    """Both environments, without torch's settings and the GPU's variables if one of them is older than their recording,
    because its settings are unknown."""
    if a.get("torch_settings") and b.get("torch_settings"):
        return a, b
    return _unset(a), _unset(b)


def _unset(environment: Environment) -> Environment:
    flags = environment.get("flags") or {}
    return {**environment, "torch_settings": None, "flags": {n: v for n, v in flags.items() if n not in GPU_FLAGS}}


def software_differences(a: Environment, b: Environment) -> list[Reason]:
    """Differences in the commit and in packages outside the hard fields, which a comparison usually tests."""
    packages = _packages_of_both(a, b)
    return _compare(_software(a, packages), _software(b, packages))


def protocol_differences(a: Protocol, b: Protocol) -> list[Reason]:
    """Differences between the protocols: warm-up, samples, processes."""
    here, there = ({f"protocol: {k}": v for k, v in asdict(p).items() if k not in UNTIMED_PROTOCOL} for p in (a, b))
    return _compare(here, there)


def identity_fields(environment: Environment) -> Fields:
    """The fields that identify the machine. It is unknown if any of them is None."""
    cpu = environment.get("cpu") or {}
    cores = cpu.get("cores_allowed", cpu.get("logical_cores"))
    fields: Fields = {
        "device": environment.get("device"),
        "CPU model": cpu.get("model"),
        "CPU cores": list(cores) if isinstance(cores, list | tuple) else cores,
    }
    if measured_on_gpu(environment):
        gpus = environment.get("gpus") or []
        fields |= {"GPU model": _each(gpus, "name"), "GPU memory": _each(gpus, "memory_bytes")}
    return fields


def _packages(environment: Environment) -> tuple[str, ...]:
    """The packages whose versions affect speed: those that the backends of the run declared."""
    recorded = environment.get("backend_packages")
    if recorded is not None:
        return tuple(recorded)
    return (*UNRECORDED, *(UNRECORDED_ON_GPU if measured_on_gpu(environment) else ()))


def _packages_of_both(a: Environment, b: Environment) -> tuple[str, ...]:
    """The packages of two runs. One that only one of them declares (a plugin was added) counts where both recorded its
    version."""
    here, there = _packages(a), _packages(b)
    recorded = {*(a.get("versions") or {})} & {*(b.get("versions") or {})}
    shared = {name for name in (*here, *there) if name in here and name in there} | recorded
    return tuple(name for name in dict.fromkeys((*here, *there)) if name in shared)


def hard_fields(environment: Environment, packages: Collection[str] | None = None) -> Fields:
    """Name -> value of every field that affects speed, with the versions of `packages` (by default those of the run's
    backends). GPU fields are included only if a GPU was measured."""
    cpu, versions = environment.get("cpu") or {}, environment.get("versions") or {}
    fields = identity_fields(environment) | {"CPU instruction set": cpu.get("isa"), "CPU quota": cpu.get("quota")}
    wanted = _packages(environment) if packages is None else packages
    if measured_on_gpu(environment):
        gpus = environment.get("gpus") or []
        fields["GPU count"] = len(gpus)
        fields |= {words: _each(gpus, key) for key, words in GPU_FIELDS.items()}
        fields |= {"driver major": _major(environment.get("driver")), "CUDA": environment.get("cuda")}
    fields |= {FIELD_NAMES.get(package, package): versions.get(package) for package in wanted}
    fields |= {"Python": _minor(environment.get("python")), "threads": environment.get("threads")}
    fields |= _flags(environment) | _torch_settings(environment)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _flags(environment: Environment) -> Fields:
    """Environment variables. Those of a GPU are included only where a GPU was measured. The choice of one among equal
    GPUs is left out, because it is a soft field."""
    flags = environment.get("flags") or {}
    on_cpu = not measured_on_gpu(environment)
    return {f"flag {n}": flags[n] for n in sorted(flags) if n not in CHOICE and not (on_cpu and n in GPU_FLAGS)}


def _torch_settings(environment: Environment) -> Fields:
    """torch's process-wide settings. On a CPU only deterministic algorithms matter, and only if they are on."""
    settings = environment.get("torch_settings") or {}
    if not measured_on_gpu(environment):
        settings = {name: on for name, on in settings.items() if name == "deterministic_algorithms" and on}
    return {f"{SETTING}{name}": settings[name] for name in sorted(settings)}


def soft_fields(environment: Environment) -> Fields:
    """Name -> value of the machine's fields with a small effect on speed."""
    fields: Fields = {"host": _host(environment), "kernel": environment.get("kernel")}
    fields["shortest sample"] = f"{1e3 * shortest_sample_s(environment):g} ms"
    if measured_on_gpu(environment):
        fields["GPU UUID"] = _each(environment.get("gpus") or [], "uuid")
        flags = environment.get("flags") or {}
        fields |= {f"flag {name}": flags[name] for name in CHOICE if name in flags}
    return fields


def _software(environment: Environment, hard: Collection[str]) -> Fields:
    git = environment.get("git") or {}
    versions = environment.get("versions") or {}
    others = {k: versions[k] for k in sorted(versions) if k not in hard}
    return {"git commit": git.get("commit"), "imgbench": environment.get("imgbench"), **others}


def _compare(here: Fields, there: Fields) -> list[Reason]:
    names = dict.fromkeys([*here, *there])
    return [_differs(n, here.get(n), there.get(n)) for n in names if here.get(n) != there.get(n)]


def _differs(name: str, here: object, there: object) -> Reason:
    return because(ReasonKind.FIELD_DIFFERS, name=name, here=here, there=there)


def _each(gpus: list[Mapping[str, Any]], key: str) -> list[Any] | None:
    """One value per GPU; None if there is no GPU, or if a value is unknown."""
    values = [gpu.get(key) for gpu in gpus]
    return None if not values or None in values else values


def _host(environment: Environment) -> str | None:
    return environment.get("host_hash")


def _host_if_unknown(environment: Environment) -> Fields:
    unknown = None in identity_fields(environment).values()
    return {"host": _host(environment)} if unknown else {}


def _major(version: str | None) -> str | None:
    return version.split(".")[0] if version else None


def _minor(version: str | None) -> str | None:
    return ".".join(version.split(".")[:2]) if version else None


def _digest(fields: Fields, digits: int) -> str:
    canonical = json.dumps(fields, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:digits]
