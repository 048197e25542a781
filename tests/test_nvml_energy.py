"""The energy probe over NVML's counter and power, as nvml_stub.c plays them: periods, resets, losses, disagreement."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from nvml_fixture import GCC, GPU_IS_LOST, NO_GCC, Stub, meter

from harness.devices import SensorLost, nvml
from harness.measuring.trial import Findings
from harness.probes.energy import energy
from harness.timing import Timer
from harness.types import Case, Protocol

pytestmark = pytest.mark.skipif(GCC is None, reason=NO_GCC)


@pytest.fixture(autouse=True)
def without_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.SETTLE_S", 0.0)
    monkeypatch.setattr("harness.probes.energy.WARM_S", 0.0)


def test_the_energy_counters_own_period_is_measured(stub: Stub) -> None:
    stub.period_s = 0.05
    assert meter().period_s == pytest.approx(0.05, rel=0.3)


def test_joules_are_counter_differences_from_the_opening_on(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s = 1000.0
    opened = meter()
    start = opened.joules()
    stub.clock_s = 1010.0
    assert opened.joules() - start == pytest.approx(3000.0)
    assert opened.watts() == 300.0


def test_a_counter_that_stands_still_has_no_period_and_gives_no_energy(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s = 5.0
    opened = meter()
    assert opened.period_s is None
    assert opened.joules() == 0


def trial(device_meter: Any, step: Any = lambda: None) -> Any:
    return SimpleNamespace(
        device=SimpleNamespace(energy_meter=lambda: device_meter),
        timer=Timer(lambda: None),
        protocol=Protocol(energy_window_s=0.2),
        case=Case(model="m", batch_size=4),
        step=step,
    )


def test_the_window_is_stretched_over_the_counters_period_and_power_agrees(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    monkeypatch.setattr("harness.probes.energy.PERIODS", 25)
    stub.watts = 100.0
    opened = meter()
    found = energy(trial(opened))
    assert found.facts["energy_window_s"] >= 24 * 0.02
    assert found.facts["integrated_power_j"] == pytest.approx(100.0 * found.facts["energy_window_s"], rel=0.02)
    assert found.samples["mean_power_w"][0] == pytest.approx(100.0, rel=0.15)
    assert not found.warnings


def measured_with(power_share: float, monkeypatch: pytest.MonkeyPatch) -> Findings:
    """The energy of work whose power readings give `power_share` of what the counter gives."""
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    monkeypatch.setattr("harness.probes.energy.PERIODS", 10)
    monkeypatch.setattr("harness.probes.energy.PowerReadings", lambda _watts: Integrated(power_share))
    readings = iter([0.0, 10.0, 10.0, 1010.0])
    counter = SimpleNamespace(source="a counter", period_s=0.001, joules=lambda: next(readings), watts=lambda: None)
    asked = trial(counter)
    stamps = iter([0.0, 1.0, 1.0, 11.0])
    asked.timer = Timer(lambda: None, lambda: next(stamps))
    return energy(asked)


class Integrated:
    def __init__(self, share: float) -> None:
        self._share = share

    def __enter__(self) -> Integrated:
        return self

    def __exit__(self, *_: object) -> None: ...

    def mean_w(self) -> float:
        return 100.0 * self._share  # the counter's 1000 J in 10 s


@pytest.mark.parametrize("share", [0.95, 1.05])
def test_a_counter_and_a_power_that_agree_are_not_remarked_on(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_with(share, monkeypatch)
    assert found.samples["energy_per_image_j"] == [250.0]
    assert not found.warnings


@pytest.mark.parametrize("share", [0.8, 1.2])
def test_a_counter_and_a_power_that_differ_a_little_are_flagged(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_with(share, monkeypatch)
    assert found.samples["energy_per_image_j"] == [250.0]
    told = (
        f"energy: the counter gives 1000.0 J and the integrated power {1000 * share:.1f} J; "
        "they differ by more than 10 %"
    )
    assert [(w.kind, str(w)) for w in found.warnings] == [("energy", told)]


@pytest.mark.parametrize("share", [1 / 3, 0.7, 1.3, 3.0])
def test_a_counter_and_a_power_that_contradict_each_other_give_no_energy(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured_with(share, monkeypatch)
    assert found.samples == {}
    told = (
        f"a counter: the counter gives 1000.0 J and the integrated power {1000 * share:.1f} J; "
        "they differ by more than 25 %"
    )
    assert {name: str(why) for name, why in found.missing.items()} == dict.fromkeys(
        ("energy_per_image_j", "energy_net_per_image_j", "mean_power_w"), told
    )
    assert not found.warnings
    assert (found.facts["energy_counter_j"], found.facts["integrated_power_j"]) == (1000.0, pytest.approx(1000 * share))


def test_a_lagging_power_reading_gives_no_energy_either(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    stub.instant_supported = 0  # the lagging mean says half
    found = energy(trial(meter()))
    assert found.samples == {}
    assert "they differ by more than 25 %" in str(found.missing["energy_per_image_j"])


def test_a_driver_that_is_lost_in_the_window_is_a_reason(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    opened = meter()

    def lose() -> None:
        stub.error = GPU_IS_LOST

    found = energy(trial(opened, lose))
    assert found.samples == {}
    assert str(found.missing["energy_per_image_j"]) == "NVML total energy counter: NVML: GPU is lost"
    with pytest.raises(SensorLost):
        opened.joules()


def test_a_reloaded_driver_is_no_negative_energy(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s = 1000.0
    opened = meter()
    stub.clock_s = 1.0
    with pytest.raises(SensorLost, match="reloaded"):
        opened.joules()


def test_a_counter_that_began_anew_is_lost_also_above_where_it_was_opened(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.clock_s, stub.reset_at_s = 10.0, 1e9
    opened = meter()
    stub.clock_s = 1000.0
    assert opened.joules() == pytest.approx(297_000.0)
    stub.clock_s, stub.reset_at_s = 1100.0, 990.0  # 33 kJ since: more than when it was opened
    with pytest.raises(SensorLost, match="went backwards"):
        opened.joules()
    stub.clock_s = 9000.0  # more than ever
    with pytest.raises(SensorLost, match="went backwards"):
        opened.joules()


class Ticking:
    """A counter that moves every `period_s` of a clock that each reading sets forward."""

    def __init__(self, period_s: float, reading_s: float = 0.01) -> None:
        self.now, self._period_s, self._reading_s = 0.0, period_s, reading_s

    def clock(self) -> float:
        return self.now

    def value(self) -> int:
        self.now += self._reading_s
        return int(self.now / self._period_s)


@pytest.mark.parametrize(("period_s", "measured"), [(0.1, 0.1), (1.0, 1.0), (3.0, None)])
def test_a_slow_counters_period_is_waited_for_and_never_guessed(
    period_s: float, measured: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml.time, "sleep", lambda _s: None)
    counter = Ticking(period_s)
    found = nvml.counter_period(counter.value, counter.clock)
    assert found == (None if measured is None else pytest.approx(measured, rel=0.05))
    assert counter.now < nvml.PATIENCE_S + 2 * period_s


def test_energy_whose_period_is_not_known_is_missing(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PATIENCE_S", 0.05)
    stub.period_s = 10.0
    found = energy(trial(meter()))
    assert found.samples == {}
    assert "its update interval could not be measured" in str(found.missing["energy_per_image_j"])


def test_a_power_reading_that_goes_away_leaves_a_reason(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    monkeypatch.setattr("harness.probes.energy.PERIODS", 5)
    opened = meter()
    monkeypatch.setattr(opened, "watts", lambda: None)
    found = energy(trial(opened))
    assert found.samples["mean_power_w"]
    assert found.facts["integrated_power_j"] is None
    assert found.facts["integrated_power_missing"] == "the device does not report its power"


@pytest.mark.parametrize(("watts", "warm"), [(100.0, 2), (None, 0)])
def test_where_the_device_tells_its_power_the_same_work_runs_before_the_window(
    watts: float | None, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a power may be a mean over the last second."""
    monkeypatch.setattr("harness.probes.energy.IDLE_S", 0.0)
    monkeypatch.setattr("harness.probes.energy.WARM_S", 1.5)
    now, order = [0.0], []

    def step() -> None:
        now[0] += 1.0
        order.append("step")

    def joules() -> float:
        order.append("counter")
        return now[0]

    counter = SimpleNamespace(source="a counter", period_s=0.001, joules=joules, watts=lambda: watts)
    asked = trial(counter, step)
    asked.timer = Timer(lambda: None, lambda: now[0])
    found = energy(asked)
    assert order == ["counter"] * 2 + ["step"] * warm + ["counter", "step", "counter"]
    assert found.samples["energy_per_image_j"] == [0.25]  # of the window's one iteration of 4 images
