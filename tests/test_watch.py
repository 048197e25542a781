"""A GPU's sensors while samples are taken: which thread reads them and when, and what a row stores."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nvml_fixture import GCC, GPU_IS_LOST, NO_GCC, Stub, gpu

from harness.devices import cuda, nvml
from harness.devices.watch import PERIOD_S, Watch
from harness.measuring import contention, throttling
from harness.measuring.repeatability import snapshot
from harness.probes.latency import latency
from harness.reasons import Reason
from harness.timing import Timer
from harness.types import Case, Protocol, Workload


class Sensors:
    """Sensors whose readings are counted, with the thread that made each."""

    def __init__(self, **told: Any) -> None:
        self.told = {"sm_clock_mhz": 1980, "memory_clock_mhz": 2619, "power_w": None, "temperature_c": 61, **told}
        self.threads: list[str] = []
        self.read = threading.Event()

    def __call__(self) -> dict[str, Any]:
        self.threads.append(threading.current_thread().name)
        self.read.set()
        return {"throttled_by": [], **self.told}


def sampled(watch: Watch, clock: list[float], sample_s: float, count: int) -> None:
    for _ in range(count):
        clock[0] += sample_s
        watch.after_sample(sample_s)


def test_short_samples_are_read_in_between_and_only_now_and_then() -> None:
    clock, sensors = [0.0], Sensors()
    with Watch(sensors, lambda: clock[0]) as watch:
        sampled(watch, clock, 0.002, 100)
        assert sensors.threads == [], "the warm-up is not what is measured"
        watch.begin(alone=True)
        sampled(watch, clock, 0.002, 500)
    here = threading.current_thread().name
    assert set(sensors.threads) == {here}
    assert 9 <= len(sensors.threads) <= 10  # 1 s of samples
    assert watch.summary()["read"] == "between the samples"
    assert watch.summary()["readings"] == len(sensors.threads)


def test_long_samples_are_read_while_they_run() -> None:
    sensors = Sensors()
    with Watch(sensors) as watch:
        watch.after_sample(PERIOD_S)
        watch.begin(alone=True)
        assert sensors.read.wait(10), "while the sample is still running"
        watch.after_sample(PERIOD_S)
    assert set(sensors.threads) == {"sensors_0"}
    assert watch.summary()["read"] == "during the samples"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sensors")]


def fails(watch: Watch) -> None:
    with watch:
        watch.after_sample(PERIOD_S)
        watch.begin(alone=True)
        raise ValueError("the sample")


def test_the_thread_ends_with_a_sample_that_fails() -> None:
    with pytest.raises(ValueError, match="the sample"):
        fails(Watch(Sensors()))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sensors")]


def test_where_processes_take_turns_no_thread_reads_the_others_samples() -> None:
    clock, sensors = [0.0], Sensors()
    with Watch(sensors, lambda: clock[0]) as watch:
        watch.after_sample(1.0)
        watch.begin(alone=False)
        sampled(watch, clock, 1.0, 3)
    assert sensors.threads == [threading.current_thread().name] * 3


def test_without_sensors_there_is_nothing() -> None:
    with Watch(None) as watch:
        watch.after_sample(1.0)
        watch.begin(alone=True)
        watch.after_sample(1.0)
    assert watch.summary() == {}


def test_a_summary_has_figures_shares_and_the_cost() -> None:
    told = iter([(1980, ["software power cap"]), (1950, []), (1965, ["software power cap", "idle"]), (None, None)])

    def sensors() -> dict[str, Any]:
        mhz, reasons = next(told)
        return {"sm_clock_mhz": mhz, "power_w": None, "throttled_by": reasons}

    ticks = itertools.count()
    with Watch(sensors, lambda: 0.25 * next(ticks), period_s=0.1) as watch:
        watch.begin(alone=True)
        for _ in range(4):
            watch.after_sample(0.001)
    assert watch.summary() == {
        "readings": 4,
        "read": "between the samples",
        "sm_clock_mhz": {"min": 1950, "median": 1965, "max": 1980},
        "memory_clock_mhz": None,
        "power_w": None,
        "temperature_c": None,
        "held_down": {"software power cap": pytest.approx(2 / 3), "idle": pytest.approx(1 / 3)},
        "reading_s": 0.25,
    }


def test_a_thread_that_breaks_says_so() -> None:
    asked = threading.Event()

    def broken() -> dict[str, Any]:
        asked.set()
        raise OSError("gone")

    with Watch(broken) as watch:
        watch.after_sample(PERIOD_S)
        watch.begin(alone=True)
        assert asked.wait(10)
    assert watch.summary()["error"] == "OSError: gone"
    assert watch.summary()["readings"] == 0


def trial(step: Callable[[], torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trial on the GPU of the stub, with real time and without CUDA's events."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(cuda.Cuda, "stopwatch", lambda _self: "no events")
    found = gpu()
    monkeypatch.setattr(cuda, "own_gpu", lambda: found)
    device = cuda.Cuda()
    return SimpleNamespace(
        case=Case(model="m", batch_size=2),
        replicate=0,
        timer=Timer(device.synchronize),
        device=device,
        step=step,
        protocol=Protocol(
            warmup_min_iterations=2, min_samples=5, min_sample_time_s=0, warmup_min_s=0, target_interval=None
        ),
        workload=Workload(
            batch=torch.eye(2),
            components=(),
            iterate=lambda *_: torch.eye(2),
            output_shape=(2, 2),
            output_kind="logits",
            identity={},
        ),
        first_output=torch.eye(2),
        batch_before=snapshot(torch.eye(2)),
        turns=None,
        interleaving=None,
    )


@pytest.mark.skipif(GCC is None, reason=NO_GCC)
def test_a_row_has_the_power_of_its_samples_and_not_that_after_them(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row states what held the clocks down, from the driver's counters, and has a warning about it."""

    def step() -> torch.Tensor:
        stub.watts, stub.reasons = 600.0, 0x04
        time.sleep(0.001)
        return torch.eye(2)

    state = nvml.state

    def after(device: nvml.Gpu, before: dict[str, Any]) -> dict[str, Any]:
        stub.watts, stub.reasons, stub.power_ns = 80.0, 0x01, 10**15
        return state(device, before)

    monkeypatch.setattr(nvml, "state", after)
    found = latency(trial(step, monkeypatch))
    seen = found.state[contention.LATENCY_PASS]["gpu"]
    assert "power_w" not in seen
    assert seen["during"]["power_w"] == {"min": 600.0, "median": 600.0, "max": 600.0}
    assert seen["during"]["sm_clock_mhz"]["median"] == 1980
    assert seen["during"]["held_down"] == {"software power cap": 1.0}
    assert 0 < seen["during"]["reading_s"] < 10
    held = Reason("throttled", {"causes": ["power cap 100 % of the readings"]})
    assert held in found.warnings, "the counter claims 10^6 s and is not believed"


@pytest.mark.skipif(GCC is None, reason=NO_GCC)
def test_a_row_that_nothing_held_down_has_no_warning(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.reasons = 0x02  # clocks that a user has set are no throttling
    found = latency(trial(lambda: time.sleep(0.001) or torch.eye(2), monkeypatch))
    assert not [warning for warning in found.warnings if warning.kind == "throttled"]
    words = str(throttling.in_words(found.state))
    assert words == "SM 1980 MHz, memory 2619 MHz, 300 W, 61 °C; not held down; clocks set by a user"


@pytest.mark.skipif(GCC is None, reason=NO_GCC)
def test_a_gpu_that_is_lost_while_it_is_read_tells_nothing(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> torch.Tensor:
        stub.error = GPU_IS_LOST
        return torch.eye(2)

    found = latency(trial(step, monkeypatch))
    during = found.state[contention.LATENCY_PASS]["gpu"]["during"]
    assert during["readings"] >= 1
    assert {during[name] for name in ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c")} == {None}
    assert during["held_down"] is None
    assert not found.warnings


@pytest.mark.skipif(GCC is None, reason=NO_GCC)
def test_a_mig_instance_has_its_gpus_clocks_and_no_power(stub: Stub) -> None:
    stub.is_mig, stub.mig_mode, stub.reasons = 1, 1, 0x40
    assert nvml.sensors(gpu()) == {
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "temperature_c": 61,
        "power_w": None,
        "throttled_by": ["hardware thermal slow-down"],
    }
