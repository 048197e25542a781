"""The thread that reads a device's power while it works: it ends with its block, and says why it has no figure."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from harness.devices import power
from harness.devices.power import PowerReadings
from harness.reasons import Reason


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("power")]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SAMPLE_S", 0.001)


def read_by(watts: Callable[[], float | None], until: Callable[[], bool] = lambda: False) -> PowerReadings:
    """Readings of `watts`, by a clock that goes on a second with each of its readings, until `until` holds."""
    seconds = iter(range(10_000))
    enough = threading.Event()

    def watched() -> float | None:
        found = watts()
        if until():
            enough.set()
        return found

    with PowerReadings(watched, clock=lambda: float(next(seconds))) as readings:
        enough.wait(5)
    assert running() == []
    return readings


def test_power_is_read_while_the_work_runs_and_integrated_by_trapezoids() -> None:
    values = iter([100.0, 200.0, 300.0, *[300.0] * 10_000])
    taken: list[float] = []

    def watts() -> float:
        taken.append(next(values))
        return taken[-1]

    found = read_by(watts, lambda: len(taken) >= 20)
    count = len(found.readings)
    assert count >= 20
    assert found.mean_w() == pytest.approx((150 + 250 + 300 * (count - 3)) / (count - 1))


def test_a_device_without_a_power_is_asked_once() -> None:
    asked: list[int] = []
    found = read_by(lambda: asked.append(1), lambda: bool(asked))  # type: ignore[func-returns-value]
    assert found.mean_w() == Reason("power_not_reported")
    assert len(asked) == 1


def test_whatever_a_reading_raises_is_the_reason() -> None:
    asked: list[int] = []

    def broken() -> float:
        asked.append(1)
        raise OSError("gone")

    with PowerReadings(broken) as found:
        while not asked:
            threading.Event().wait(0.001)
    assert found.mean_w() == Reason("power_not_read", {"error": "OSError: gone"})
    assert str(found.mean_w()) == "the power could not be read: OSError: gone"
    assert running() == []


def test_readings_of_a_part_are_not_stretched_over_the_whole() -> None:
    asked: list[int] = []

    def fading() -> float | None:
        asked.append(1)
        return 100.0 if len(asked) <= 5 else None

    with PowerReadings(fading) as found:
        while len(asked) < 60:
            threading.Event().wait(0.001)
    assert str(found.mean_w()).startswith("only 5 power readings, over ")


def test_a_stretch_that_is_not_told_is_not_bridged() -> None:
    """100 W at either end say nothing of what was between."""
    asked: list[int] = []

    def gone() -> float | None:
        asked.append(1)
        return 100.0 if len(asked) <= 5 or len(asked) > 40 else None

    found = read_by(gone, lambda: len(asked) >= 45)
    assert str(found.mean_w()).startswith("only ")


def test_one_reading_that_is_missing_costs_its_own_stretch() -> None:
    asked: list[int] = []

    def patchy() -> float | None:
        asked.append(1)
        return None if len(asked) == 20 else 200.0 if len(asked) > 20 else 100.0

    found = read_by(patchy, lambda: len(asked) >= 40)
    before, after = 18, len(found.readings) - 21  # pieces of a second
    assert found.mean_w() == pytest.approx((100.0 * before + 200.0 * after) / (before + after))


def test_an_error_in_the_work_ends_the_thread_too() -> None:
    with pytest.raises(ValueError, match="the work"), PowerReadings(lambda: 1.0):
        raise ValueError("the work")
    assert running() == []
