"""The progress of a sweep: a live bar on a terminal, and plain lines in a log or in CI."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.markup import escape

from harness import streams
from harness.timing import perf_counter
from harness.types import Case, Measurement
from harness.units import counted, format_duration, format_value

MARKS = {
    "ok": "ok",
    "skipped": "skipped",
    "invalid": "INVALID",
    "failed": "FAILED",
    "oom": "OUT OF MEMORY",
    "timeout": "TIMEOUT",
}


WIDTH = 220
STATUS_EVERY_S = 20.0


def console() -> Console:
    """A console on stdout. It is as wide as the terminal, or wide enough for every column if there is none. A closed
    pipe or a full disk behind stdout does not stop the measurement."""
    stdout = streams.output()
    return Console(file=stdout) if stdout.isatty() else Console(file=stdout, width=WIDTH)


@contextmanager
def status(console: Console) -> Iterator[Callable[[str], None]]:
    """A function that shows a status text: as a live line on a terminal, else as a line every STATUS_EVERY_S
    seconds."""
    if console.is_terminal:
        with console.status("") as live:
            yield lambda text: live.update(escape(text))
        return
    last = -math.inf

    def show(text: str) -> None:
        nonlocal last
        if perf_counter() - last >= STATUS_EVERY_S:
            last = perf_counter()
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    yield show


class Lines:
    """One line per measurement: number, status, case, latency or reason, time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._number = self._total = 0
        self._left: float | None = None
        self._rounds = 0
        self._last_said = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, total: int, left: int) -> None:
        self._number, self._total = total - left, total
        done = f", {total - left} of them done before" if left < total else ""
        self.say(f"{counted(total, 'measurement')}{done}")

    def start(self, case: Case, replicate: int, seconds_left: float | None) -> None:
        self._number += 1
        self._left = seconds_left

    def skip(self, case: Case, replicate: int) -> None:
        self._number += 1

    def phase(self, phase: str) -> None:
        """Does nothing: a log has one line per measurement."""

    def end(self, measurement: Measurement) -> None:
        spent = measurement.duration_s or 0.0  # the estimate was made before this measurement
        left = f"  (about {format_duration(max(0.0, self._left - spent))} left)" if self._left is not None else ""
        self.say(f"[{self._number}/{self._total}] {describe(measurement)}{left}")

    def rounds_begin(self, open_rows: int, seconds_left: float) -> None:
        self._rounds, self._last_said = 0, perf_counter()
        if open_rows:
            self.say(f"rounds: the rows of equal work take turns (about {format_duration(seconds_left)} left)")

    def round_end(self, measurements: Sequence[Measurement], open_rows: int, seconds_left: float) -> None:
        self._rounds += 1
        for measurement in measurements:
            if measurement.status != "ok":
                self.say(f"round {self._rounds}: {describe(measurement)}")
        if perf_counter() - self._last_said >= STATUS_EVERY_S:
            self._last_said = perf_counter()
            self.say(_round_words(self._rounds, open_rows, seconds_left))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bar(Lines):
    """A live bar with the current case, its phase and the time left; each finished measurement scrolls above it."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(console)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._current = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, total: int, left: int) -> None:
        super().begin(total, left)
        self._progress.update(self._task, total=total, completed=total - left)

    def start(self, case: Case, replicate: int, seconds_left: float | None) -> None:
        super().start(case, replicate, seconds_left)
        left = f"{format_duration(seconds_left)} left · " if seconds_left is not None else ""
        self._current = f"{left}{case.label}"
        self._progress.update(self._task, description=escape(self._current))

    def skip(self, case: Case, replicate: int) -> None:
        super().skip(case, replicate)
        self._progress.advance(self._task)

    def phase(self, phase: str) -> None:
        self._progress.update(self._task, description=escape(f"{self._current} · {phase}"))

    def rounds_begin(self, open_rows: int, seconds_left: float) -> None:
        super().rounds_begin(open_rows, seconds_left)
        self._progress.update(self._task, total=None, description=escape(_round_words(0, open_rows, seconds_left)))

    def round_end(self, measurements: Sequence[Measurement], open_rows: int, seconds_left: float) -> None:
        self._last_said = math.inf  # the bar shows what a log says now and then
        super().round_end(measurements, open_rows, seconds_left)
        words = _round_words(self._rounds, open_rows, seconds_left)
        self._progress.update(self._task, description=escape(words))

    def end(self, measurement: Measurement) -> None:
        self._progress.advance(self._task)
        self.say(f"[{self._number}/{self._total}] {describe(measurement)}")


def _round_words(rounds: int, open_rows: int, seconds_left: float) -> str:
    left = f"about {format_duration(seconds_left)} left"
    rows = "1 row needs" if open_rows == 1 else f"{open_rows} rows need"
    return f"round {rounds}: {rows} further rounds ({left})" if open_rows else f"round {rounds}: every row is measured"


def listener(console: Console) -> Lines:
    """A bar where `console` is a terminal, lines elsewhere."""
    return Bar(console) if console.is_terminal else Lines(console)


def describe(measurement: Measurement) -> str:
    """ "ok       digits_vit · eager · fp32 · batch 1 · 32 px: 2.13 ms"."""
    mark = f"{MARKS[measurement.status]:<8}"
    if measurement.status == "ok":
        values = sorted(measurement.samples.get("latency_s", []))
        result = format_value(values[len(values) // 2], "s") if values else "no latency"
    else:
        result = str(measurement.reason)
    return f"{mark} {measurement.case.label}: {result}"
