"""Checks that a value read from JSON has the type that its field declares, before anything computes with it.

    check("x", int, "protocol.replicates")     # ValueError: protocol.replicates: 'x' must be a whole number

The record's own annotations are the rule. The free-form mappings of a run have a declared shape here (`Environment`,
`Facts`, `State`): the keys that reports and comparisons read. They may hold other keys, also from later versions.
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from harness.quoting import quoted
from harness.reasons import Reason

Texts = dict[str, str]
_REAL = {float, int}


class Cpu(TypedDict, total=False):
    model: str | None
    logical_cores: int | None
    cores_allowed: int | list[int] | None
    quota: float | None
    isa: str | None


class Gpu(TypedDict, total=False):
    name: str | None
    uuid: str | None
    memory_bytes: int | None
    power_limit_w: float | None
    mig: bool | None


class Git(TypedDict, total=False):
    commit: str | None
    dirty: bool | None
    reason: str | None


class Environment(TypedDict, total=False):
    """The keys of `Run.environment` that are read."""

    device: str
    device_name: str | None
    is_gpu: bool
    backend_packages: list[str]
    cpu: Cpu | None
    gpus: list[Gpu] | None
    driver: str | None
    cuda: str | None
    threads: int | None
    threads_from: str | None
    python: str | None
    platform: str | None
    kernel: str | None
    host_hash: str | None
    energy_counter: str | None
    memory_bytes: int | None
    versions: Texts | None
    flags: dict[str, str | bool | int | None] | None
    torch_settings: dict[str, str | bool] | None
    shortest_sample_s: float | None
    unmeasured: list[str]
    git: Git | None
    imgbench: str | None
    fingerprint: str | None
    plugins: list[str]
    injections: list[str]
    sources: dict[str, str | None] | None


def measured_on_gpu(environment: Mapping[str, Any]) -> bool:
    """Whether the device of a run is a GPU. Before that was recorded, every device but "cpu" was one."""
    recorded = environment.get("is_gpu")
    return environment.get("device") != "cpu" if recorded is None else bool(recorded)


class CheckedFacts(TypedDict, total=False):
    """The keys of `Measurement.facts` that reports and comparisons compute with. Reading a run checks their types."""

    work_hash: str | None
    weights_hash: str | None
    weights_source: str | None
    output_hash: str | None
    turns: int
    loops: int
    cold_cache_bytes: int
    cosine_floor: float | None
    error_ceiling: float | None
    item_error_ceiling: float | None
    quantised_share: float | None
    component_precisions: Texts | None
    quality_conditions: dict[str, Any] | None
    picture_set: dict[str, Any] | None


class Facts(CheckedFacts, total=False):
    """The keys of `Measurement.facts` that code names. Those beyond `CheckedFacts` are read as they were stored. An
    error may be infinite, and is then its text in a file."""

    identity: dict[str, Any]
    output_kind: str
    output_shape: list[int]
    interval: float | None
    repeat_error: Any
    first_process_error: Any
    injected: list[str]
    imported: dict[str, Any]
    layers_from: list[str]
    kernels: Any
    kernel_time_s: float | None
    kernel_event_s: float | None
    two_loops_ratio: float | None


class Figure(TypedDict):
    """The range and the median of one figure over a sensor's readings."""

    min: float
    median: float
    max: float


class During(TypedDict, total=False):
    """What a GPU's sensors reported during the samples (`harness.devices.watch`)."""

    sm_clock_mhz: Figure | None
    memory_clock_mhz: Figure | None
    power_w: Figure | None
    temperature_c: Figure | None
    held_down: dict[str, float] | None


class GpuState(TypedDict, total=False):
    foreign_processes: int | None
    power_throttled_s: float | None
    thermal_throttled_s: float | None
    sync_boost_throttled_s: float | None
    board_limit_throttled_s: float | None
    reliability_throttled_s: float | None
    low_utilization_s: float | None
    below_application_clocks_s: float | None
    below_base_clocks_s: float | None
    throttle_reasons: int | None
    elapsed_s: float | None
    during: During | None


class Pass(TypedDict, total=False):
    """The state of the machine during one pass of a measurement."""

    elapsed_s: float | None
    other_cpu_s: float | None
    own_cpu_s: float | None
    steal_s: float | None
    throttled_periods: int | None
    cores: float | None
    peers: int
    gpu: GpuState | None


class State(Pass, total=False):
    """The keys of `Measurement.state` that are read."""

    cpus: list[int]
    latency_pass: Pass
    energy_pass: Pass
    control_workload: dict[str, list[float]]
    control_workload_contended: Reason | None


def check(value: Any, kind: Any, where: str) -> None:
    """Raises ValueError if `value` does not match the annotation `kind`; `where` is the field's path."""
    if kind is Any:
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        _check_union(value, arguments, where)
    elif origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            _refuse(value, f"one of {', '.join(map(str, arguments))}", where)
    elif kind is Facts:
        check(value, CheckedFacts, where)
    elif is_typeddict(kind):
        _check_shape(value, kind, where)
    elif origin in {dict, Mapping} or kind is dict:
        _check_mapping(value, arguments[1] if arguments else Any, where)
    elif origin in {list, tuple}:
        _check_list(value, arguments, where)
    elif not _is(value, kind):
        _refuse(value, _words(kind), where)


def hints(record: Any) -> Mapping[str, Any]:
    """Field -> annotation of a record or of a shape."""
    return _hints(record)


@cache
def _hints(record: Any) -> Mapping[str, Any]:
    return get_type_hints(record)


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_union(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    if value is None and types.NoneType in kinds:
        return
    rest = [kind for kind in kinds if kind is not types.NoneType]
    if len(rest) == 1:
        check(value, rest[0], where)
        return
    for kind in rest:
        try:
            check(value, kind, where)
        except ValueError:
            continue
        return
    _refuse(value, " or ".join(map(_words, rest)), where)


def _check_shape(value: Any, shape: Any, where: str) -> None:
    _check_mapping(value, Any, where)
    for name, kind in hints(shape).items():
        if name not in value and name in shape.__required_keys__:
            raise ValueError(f"{where}.{name} is missing")
        if name in value:
            check(value[name], kind, f"{where}.{name}")


def _check_mapping(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        _refuse(value, "a mapping", where)
    if kind is not Any:
        for name, entry in value.items():
            check(entry, kind, f"{where}.{name}")


def _check_list(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    if not isinstance(value, list | tuple):
        _refuse(value, "a list", where)
    if len(kinds) > 1 and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            _refuse(value, f"a list of {len(kinds)}", where)
    elif kinds and kinds[0] is float:  # samples: there are many of them
        if not (set(map(type, value)) <= _REAL and all(map(math.isfinite, value))):
            check(next(v for v in value if not _is(v, float)), float, where)
        return
    each = kinds if len(kinds) > 1 and kinds[-1] is not Ellipsis else kinds[:1] * len(value)
    for number, (entry, kind) in enumerate(zip(value, each, strict=False)):
        check(entry, kind, f"{where}[{number}]")


def _words(kind: Any) -> str:
    """The name of a type in error messages."""
    if is_dataclass(kind) or is_typeddict(kind) or get_origin(kind) in {dict, Mapping}:
        return "a mapping"
    if get_origin(kind) in {list, tuple}:
        return "a list"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    return {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}[kind]


def _refuse(value: Any, wanted: str, where: str) -> None:
    raise ValueError(f"{where}: {quoted(value)} must be {wanted}")
