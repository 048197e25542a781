"""The devices on which a workload runs: `device("cpu")`, `device("cuda")`, `default()`. Heavy imports are inside.

A new kind of device is one file here, or in a plugin: `@DEVICES.add("name")` on a class as `Device` describes it. If a
device cannot measure something, it gives the reason (a `Reason`; a plugin may give text).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from harness import entries
from harness.reasons import Reason, ReasonedError
from harness.registry import DEVICES
from harness.types import Samples

__all__ = [
    "DEVICES", "Device", "EnergyMeter", "NoSuchDevice", "SensorLost", "Stopwatch", "default", "device", "unknown",
]  # fmt: skip

REGISTERED: Final = ("cpu", "cuda", "gpus")  # the files of this package that fill a registry


class SensorLost(ReasonedError, RuntimeError):
    """A sensor that answered before and no longer does, with the reason for the metrics that it gave."""


class EnergyMeter(Protocol):
    """A hardware counter of energy. `joules()` never decreases, and may raise SensorLost. `source` names the counter.

    `period_s` is the measured time between two updates. It is None if that could not be measured, and then no window is
    known to be long enough. `watts()` is the present power, or None if the device does not report it. A separate thread
    reads it.
    """

    source: str
    period_s: float | None

    def joules(self) -> float: ...
    def watts(self) -> float | None: ...


class Stopwatch(Protocol):
    """The device's own clock. `start()` and `stop()` queue events; `seconds()` is read once the device is idle."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def seconds(self) -> float: ...


class Device(Protocol):
    """One kind of device: whether it is here, how to synchronise with it, and what its sensors report.

    `torch_device` is torch's name of it. `is_gpu` says that its work is queued and that the host must wait for it. The
    default is the device with the highest `preference` of those that are here. `unavailable` gives the reason why this
    machine has none, or None; `unusable` gives the reason why this process cannot use it. `shortest_sample_s` is the
    shortest duration of a latency sample in seconds: the cost of a synchronisation must be small beside it.
    `cache_bytes` is the size of the last-level cache, or the reason why it is unknown. `release_memory` gives back what
    torch's allocator keeps for later.

    `memory_peaks` gives samples by metric, and a reason for each peak that cannot be read. Its figure from the driver
    is the memory in use at that moment (`driver_memory_bytes`). `energy_meter` gives a meter, or the reason why there
    is none; `stopwatch` does the same. `sensors` gives a function that reads clocks, power and temperature now
    (`harness.devices.watch`), or None. `span_state(before)` is the machine's state since `start_span()`.
    """

    name: str
    is_gpu: bool
    preference: int
    shortest_sample_s: float

    @property
    def torch_device(self) -> str: ...
    def unavailable(self) -> Reason | str | None: ...
    def unusable(self) -> Reason | str | None: ...
    def cache_bytes(self) -> int | Reason | str: ...
    def release_memory(self) -> None: ...
    def synchronize(self) -> None: ...
    def stopwatch(self) -> Stopwatch | Reason | str: ...
    def reset_memory_peaks(self) -> None: ...
    def memory_peaks(self) -> tuple[Samples, Mapping[str, Reason | str]]: ...
    def driver_memory_bytes(self) -> int | Reason | str: ...
    def energy_meter(self) -> EnergyMeter | Reason | str: ...
    def sensors(self) -> Callable[[], dict[str, Any]] | None: ...
    def start_span(self) -> dict[str, Any]: ...
    def span_state(self, before: dict[str, Any]) -> dict[str, Any]: ...
    def describe(self) -> dict[str, Any]: ...


FIELDS: Final = {
    "torch_device": entries.LINE,
    "is_gpu": entries.BOOLEAN,
    "preference": entries.NUMBER,
    "shortest_sample_s": entries.POSITIVE,
}
METHODS: Final = tuple(name for name, of in vars(Device).items() if not name.startswith("_") and callable(of))


@DEVICES.checked_by
def _check(subject: str, name: str, entry: Any) -> None:
    entries.demand(subject, entry, {"name": entries.LINE, **FIELDS, **dict.fromkeys(METHODS, entries.FUNCTION)})
    entries.demand_name(subject, entry, name)


class NoSuchDevice(ReasonedError, ValueError):
    """This machine does not have the device; `str()` is one line for the user."""


def device(name: str) -> Device:
    """The device of that name. Raises NoSuchDevice if this machine has none."""
    if name not in DEVICES:
        raise NoSuchDevice(unknown(name))
    found: Device = DEVICES[name]
    if reason := found.unavailable() or found.unusable():
        raise NoSuchDevice(_refusal("device_unavailable", device=name, reason=reason))
    return found


def kind(name: str) -> str:
    """torch's type of a registered device, such as "cpu" or "cuda", whatever the name of the device."""
    return str(DEVICES[name].torch_device).partition(":")[0]


def is_gpu(name: str) -> bool:
    """Whether the work of a registered device is queued, and the host waits for it."""
    return bool(DEVICES[name].is_gpu)


def unknown(name: str) -> Reason:
    """Why a device of that name is refused."""
    return _refusal("unknown_device", device=name, known=list(DEVICES))


def _refusal(kind: str, **data: Any) -> Reason:
    """The refusal, with the accelerators of this machine that imgbench does not measure."""
    from harness.devices import unmeasured

    return Reason(kind, {**data, "unmeasured": [str(accelerator) for accelerator in unmeasured.present()]})


def default() -> str:
    """The device that is measured unless another one is requested: "cuda" if a CUDA device is available, else "cpu"."""
    in_order = sorted(DEVICES.values(), key=lambda device: device.preference, reverse=True)
    return next(device.name for device in in_order if device.unavailable() is None)


for _name in REGISTERED:
    importlib.import_module(f"{__name__}.{_name}")
