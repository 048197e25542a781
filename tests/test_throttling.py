"""What held a GPU's clocks down: the shares from the recorded state, the row's warning, and where a report shows
them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from reports_fixture import make_run

from harness.devices import nvml
from harness.measuring import throttling
from harness.reasons import Reason
from harness.storage import run_from_dict, run_to_dict
from harness.types import Run
from reports.data import report_data
from reports.section import Section
from reports.sections.table import table

GPU = {
    "elapsed_s": 2.0,
    "power_throttled_s": 1.26,
    "thermal_throttled_s": 0.0,
    "reliability_throttled_s": None,
    "during": {
        "sm_clock_mhz": {"min": 1965, "median": 1980, "max": 1980},
        "memory_clock_mhz": {"min": 2619, "median": 2619, "max": 2619},
        "power_w": {"min": 612.0, "median": 640.4, "max": 655.0},
        "temperature_c": None,
        "held_down": {"software power cap": 1.0, "idle": 0.2, "display clock setting": 1.0},
    },
}


def test_the_drivers_seconds_come_before_the_readings() -> None:
    found = throttling.shares(GPU)
    assert found["power cap"] == (pytest.approx(0.63), "time")
    assert found["heat"] == (0.0, "time")
    assert found["reliability limit"] == (0.0, "readings")
    assert throttling.warning({"gpu": GPU}) == Reason("throttled", {"causes": ["power cap 63 % of the time"]})


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("hardware slow-down", "hardware slow-down"),
        ("hardware power brake", "power brake"),
        ("hardware thermal slow-down", "heat"),
        ("sync boost", "sync boost"),
        ("board limit", "board limit"),
        ("reliability", "reliability limit"),
        ("unknown bits 0x800", "unknown bits 0x800"),
    ],
)
def test_every_reason_that_a_reading_names_is_told(reason: str, cause: str) -> None:
    state = {"gpu": {"elapsed_s": 2.0, "during": {"held_down": {reason: 0.25, "idle": 0.5}}}}
    assert f"({cause} 25 % of the readings)" in str(throttling.warning(state))


def test_every_reason_of_nvml_is_a_cause_or_known_to_be_none() -> None:
    causes = {reason for cause in throttling.CAUSES for reason in cause.reasons}
    assert causes | throttling.NO_CAUSE == set(nvml.THROTTLE_REASONS.values())
    assert {cause.counter for cause in throttling.CAUSES} - {None} <= set(nvml.COUNTED)


def test_a_counter_that_moves_further_than_time_is_not_believed() -> None:
    gpu_state = {"elapsed_s": 2.0, "power_throttled_s": 1260.0}
    assert throttling.shares(gpu_state) == {}
    assert throttling.warning({"gpu": gpu_state}) is None
    assert (
        throttling.shares({"elapsed_s": 2.0, "power_throttled_s": 2.1})["power cap"].value == 1.0
    )  # a step of the counter


@pytest.mark.parametrize("state", [{}, {"gpu": {}}, {"gpu": {"unavailable": "NVML: Driver Not Loaded"}}, {"gpu": None}])
def test_where_nothing_is_told_nothing_is_said(state: dict[str, Any]) -> None:
    assert throttling.warning(state) is None
    assert throttling.in_words(state) is None
    assert throttling.in_words({"latency_pass": state}) is None


def test_how_low_the_clocks_were_is_shown_and_no_warning() -> None:
    low = {"below_base_clocks_s": 0.5, "below_application_clocks_s": 2.0, "low_utilization_s": 0.0}
    slowed = {**GPU, **low, "power_throttled_s": 0.0}
    assert throttling.warning({"gpu": slowed}) is None
    told = "; not held down; below the base clocks 25 % of the time, below the application clocks 100 % of the time"
    assert str(throttling.in_words({"gpu": slowed})).endswith(told)


def test_an_opened_row_of_the_report_shows_the_gpu_during_its_samples() -> None:
    words = "SM 1980 MHz (1965 to 1980), memory 2619 MHz, 640 W (612 to 655); held down by power cap 63 % of the time"
    state = {"latency_pass": {"gpu": GPU}}
    assert throttling.in_words(state) == words
    run = make_run()
    seen = replace(run, measurements=tuple(replace(m, state=state) for m in run.measurements))
    seen = run_from_dict(run_to_dict(seen))  # as it is stored
    assert words in shown(seen)
    assert "GPU during the samples" not in shown(run)


def shown(run: Run) -> str:
    section = table(report_data([run]))
    assert isinstance(section, Section)
    return str(section.html)
