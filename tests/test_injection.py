"""Deliberate slow-downs: what each does to an iteration, and that no protocol can be blind to one by its own rhythm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.measuring import injection


class Clock:
    """A timer whose work takes one second, and whose busy-waits are counted instead of waited for."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def timed(self, call: Any) -> tuple[Any, float]:
        return call(), 1.0


def slowed(text: str, iterations: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds waited in each iteration."""
    clock, waited = Clock(), [0.0] * iterations
    workload: Any = SimpleNamespace(iterate=lambda _forwards, _batch: "output", components=())
    iterate = injection._slowed(injection.parse(text), workload, clock)  # type: ignore[arg-type]
    for i in range(iterations):

        def wait(_timer: Any, seconds: float, i: int = i) -> float:
            waited[i] += seconds
            return seconds

        monkeypatch.setattr(injection, "busy_wait", wait)
        assert iterate({}, None) == "output"
    return waited


def test_busy_slows_every_iteration_by_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slowed("busy=0.05", 4, monkeypatch) == pytest.approx([0.05] * 4)


def test_tail_slows_one_in_ten_at_every_place_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of five iterations, of which the first is thrown away: every tenth would always have been thrown away."""
    waited = slowed("tail=0.5", 1000, monkeypatch)
    slow = [i for i, seconds in enumerate(waited) if seconds]
    assert 70 <= len(slow) <= 130
    assert {waited[i] for i in slow} == {0.5}
    for turn in (5, 10, 11):
        places = [sum(i % turn == place for i in slow) for place in range(turn)]
        assert min(places) > 0
