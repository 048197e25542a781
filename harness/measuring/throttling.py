"""What held a GPU's clocks down while the latency samples were taken, as shares of their time. The functions are pure:
they take the recorded state and return texts.

A throttled row gets a warning, and its figures still count: many GPUs always run at a power cap, and the figures are
those of the capped GPU. A row that heat slowed down is also contended (`harness.measuring.contention`).

The share comes from the driver's own counter of seconds, if it has one for the cause. Otherwise it is the share of the
readings during the samples (`harness.devices.watch`) in which NVML named the cause. A counter that advanced by more
than the elapsed time is ignored. A reason of NVML that this version does not know counts as a cause of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from harness.measuring.contention import LATENCY_PASS, THROTTLED_SHARE
from harness.reasons import Reason
from harness.units import percent

COUNTER_STEP_S: Final = 0.2  # a driver's counter may move in steps, so it may exceed the elapsed time by one step
USER_CLOCKS: Final = "clocks set by a user"
NO_CAUSE: Final = frozenset({"idle", USER_CLOCKS, "display clock setting"})
# Shown without a warning: they say how low the clocks were, but not why.
LOW_CLOCKS: Final = {
    "below_base_clocks_s": "below the base clocks",
    "below_application_clocks_s": "below the application clocks",
    "low_utilization_s": "lowered for low utilisation",
}
FIGURES: Final = {  # of the readings during the samples: the words before each number, and its unit
    "sm_clock_mhz": ("SM ", "MHz"),
    "memory_clock_mhz": ("memory ", "MHz"),
    "power_w": ("", "W"),
    "temperature_c": ("", "°C"),
}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A cause, the driver's counter of its seconds, and NVML's reasons for it (`harness.devices.nvml`)."""

    words: str
    counter: str | None = None
    reasons: tuple[str, ...] = ()


CAUSES: Final = (
    Cause(words="power cap", counter="power_throttled_s", reasons=("software power cap",)),
    Cause(
        words="heat",
        counter="thermal_throttled_s",
        reasons=("software thermal slow-down", "hardware thermal slow-down"),
    ),
    Cause(words="sync boost", counter="sync_boost_throttled_s", reasons=("sync boost",)),
    Cause(words="board limit", counter="board_limit_throttled_s", reasons=("board limit",)),
    Cause(words="reliability limit", counter="reliability_throttled_s", reasons=("reliability",)),
    Cause(words="hardware slow-down", reasons=("hardware slow-down",)),
    Cause(words="power brake", reasons=("hardware power brake",)),
)


class Share(NamedTuple):
    """A share of the time, by the driver's counter, or of the readings."""

    value: float
    of: Literal["time", "readings"]

    def __str__(self) -> str:
        return f"{percent(self.value, '.0')} of the {self.of}"


def shares(gpu: Mapping[str, Any]) -> dict[str, Share]:
    """Cause in words -> the share of the samples in which it held the clocks down, 0 included. Causes for which there
    is neither a counter nor a reading are left out. `gpu` is the GPU's state during the samples."""
    seen: Mapping[str, float] | None = (gpu.get("during") or {}).get("held_down")
    found = {}
    for cause in CAUSES:
        if (counted := _counted(gpu, cause.counter)) is not None:
            found[cause.words] = Share(counted, "time")
        elif seen is not None:
            found[cause.words] = Share(max(seen.get(reason, 0.0) for reason in cause.reasons), "readings")
    known = {reason for cause in CAUSES for reason in cause.reasons} | NO_CAUSE
    newer = {reason: Share(share, "readings") for reason, share in (seen or {}).items() if reason not in known}
    return {**found, **newer}


def _counted(gpu: Mapping[str, Any], counter: str | None) -> float | None:
    seconds, elapsed = gpu.get(str(counter)), gpu.get("elapsed_s")
    if seconds is None or not elapsed or seconds > elapsed + COUNTER_STEP_S:
        return None
    return float(min(1.0, seconds / elapsed))


def _held_down(gpu: Mapping[str, Any]) -> list[str]:
    """The causes of more than THROTTLED_SHARE, each with its share; empty where there are none."""
    return [f"{cause} {share}" for cause, share in shares(gpu).items() if share.value > THROTTLED_SHARE]


def warning(state: Mapping[str, Any]) -> Reason | None:
    """The warning of a row that ran throttled; `state` is the machine's during the samples."""
    causes = _held_down(state.get("gpu") or {})
    return Reason("throttled", {"causes": causes}) if causes else None


def in_words(state: Mapping[str, Any]) -> str | None:
    """A GPU's clocks, power and temperature during the samples, and what held the clocks down, from the state of a
    whole measurement; None without a GPU, or where nothing was read during the samples.

    "SM 1980 MHz (1965 to 1980), memory 2619 MHz, 640 W (612 to 655), 61 °C; held down by power cap 63 % of the time"
    """
    gpu = (state.get(LATENCY_PASS) or state).get("gpu") or {}
    during = gpu.get("during") or {}
    figures = [f"{what}{_spread(during[key], unit)}" for key, (what, unit) in FIGURES.items() if during.get(key)]
    if not figures:
        return None
    if causes := _held_down(gpu):
        held = f"held down by {', '.join(causes)}"
    else:
        held = "not held down" if shares(gpu) else "the driver does not report whether anything held the clocks down"
    counted = {words: _counted(gpu, counter) or 0.0 for counter, words in LOW_CLOCKS.items()}
    low = ", ".join(f"{words} {Share(share, 'time')}" for words, share in counted.items() if share > THROTTLED_SHARE)
    user = "clocks set by a user" if USER_CLOCKS in (during.get("held_down") or {}) else ""
    return "; ".join(filter(None, (", ".join(figures), held, low, user)))


def _spread(figure: Mapping[str, float], unit: str) -> str:
    low, middle, high = (f"{figure[key]:.0f}" for key in ("min", "median", "max"))
    return f"{middle} {unit}" if low == high else f"{middle} {unit} ({low} to {high})"
