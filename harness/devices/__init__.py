"""Where a workload runs: `device("cpu")`, `device("cuda")`, `default()`. Heavy imports happen inside."""

from __future__ import annotations

from typing import Any, Protocol

from harness.types import Samples

DEVICES = ("cpu", "cuda")


class EnergyMeter(Protocol):
    """A hardware counter of energy. `joules()` only ever grows; `source` names the counter."""

    source: str

    def joules(self) -> float: ...


class Device(Protocol):
    """One device: how to synchronise with it, and what its sensors tell.

    `memory_peaks` gives samples by metric, and a reason for each peak that cannot be read. `energy_meter` gives a
    meter, or the reason why there is none. `block_state(before)` is the machine's state since `start_block()`.
    """

    name: str

    @property
    def torch_device(self) -> str: ...
    def synchronize(self) -> None: ...
    def reset_memory_peaks(self) -> None: ...
    def memory_peaks(self) -> tuple[Samples, dict[str, str]]: ...
    def energy_meter(self) -> EnergyMeter | str: ...
    def start_block(self) -> dict[str, Any]: ...
    def block_state(self, before: dict[str, Any]) -> dict[str, Any]: ...
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

        reason = unavailable()
        if reason:
            raise NoSuchDevice(f"device cuda: {reason}")
        return Cuda()
    raise NoSuchDevice(f"unknown device {name!r}; one of {', '.join(DEVICES)}")


def default() -> str:
    """ "cuda" where a CUDA device answers, else "cpu"."""
    from harness.devices.cuda import unavailable

    return "cpu" if unavailable() else "cuda"
