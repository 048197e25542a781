"""Where a workload runs: `device("cpu")`, `device("cuda")`, `default()`. Heavy imports happen inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from harness.types import Samples

DEVICES = ("cpu", "cuda")


class SensorLost(RuntimeError):
    """A sensor that answered before and no longer does; `str()` is the reason for the metrics that it gave."""


class EnergyMeter(Protocol):
    """A hardware counter of energy. `joules()` only ever grows, and raises SensorLost; `source` names the counter.

    `period_s` is how often it moves, measured; None where that could not be, and then no window is known to be long
    enough. `watts()` is the power right now, None where the device has no reading of its own; a thread of its own asks.
    """

    source: str
    period_s: float | None

    def joules(self) -> float: ...
    def watts(self) -> float | None: ...


class Stopwatch(Protocol):
    """The device's own clock: `start()` and `stop()` put marks into its queue, `seconds()` is read once it is idle."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def seconds(self) -> float: ...


class Device(Protocol):
    """One device: how to synchronise with it, and what its sensors report.

    `memory_peaks` gives samples by metric, and a reason for each peak that cannot be read. Its figure from the driver
    is the memory in use at that moment (`driver_memory_bytes`). `energy_meter` gives a meter, or the reason why there
    is none; `stopwatch` does the same. `sensors` gives a function that reads clocks, power and temperature now
    (`harness.devices.watch`), or None. `span_state(before)` is the machine's state since `start_span()`.
    """

    name: str

    @property
    def torch_device(self) -> str: ...
    def synchronize(self) -> None: ...
    def stopwatch(self) -> Stopwatch | str: ...
    def reset_memory_peaks(self) -> None: ...
    def memory_peaks(self) -> tuple[Samples, dict[str, str]]: ...
    def driver_memory_bytes(self) -> int | str: ...
    def energy_meter(self) -> EnergyMeter | str: ...
    def sensors(self) -> Callable[[], dict[str, Any]] | None: ...
    def start_span(self) -> dict[str, Any]: ...
    def span_state(self, before: dict[str, Any]) -> dict[str, Any]: ...
    def describe(self) -> dict[str, Any]: ...


class NoSuchDevice(ValueError):
    """A device that this machine does not have; `str()` is one line for the user."""


def device(name: str) -> Device:
    """The device of that name. Raises NoSuchDevice where this machine has none."""
    if name == "cpu":
        from harness.devices.cpu import Cpu

        return Cpu()
    if name == "cuda":
        from harness.devices.cuda import Cuda, unavailable

        reason = unavailable() or _forked_too_late()
        if reason:
            raise NoSuchDevice(_with_what_there_is(f"device cuda: {reason}"))
        return Cuda()
    raise NoSuchDevice(unknown(name))


def unknown(name: str) -> str:
    """Why a device of that name is refused."""
    return _with_what_there_is(f"unknown device {name!r}; one of {', '.join(DEVICES)}")


def _with_what_there_is(refusal: str) -> str:
    """The refusal, followed by the accelerators of this machine that imgbench does not measure."""
    from harness.devices import unmeasured

    told = unmeasured.in_words(unmeasured.present())
    return f"{refusal}; {told}" if told else refusal


def _forked_too_late() -> str | None:
    """Why this process can have no CUDA: its fork server had asked for it, as a plugin's import may."""
    import torch

    if not torch.cuda._is_in_bad_fork():
        return None
    return "a module that the fork server imported asks for CUDA when it is imported, so that no worker can use it"


def default() -> str:
    """ "cuda" where a CUDA device answers, else "cpu"."""
    from harness.devices.cuda import unavailable

    return "cpu" if unavailable() else "cuda"
