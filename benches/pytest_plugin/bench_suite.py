"""A suite's cases as benchmarks of pytest-benchmark, one per case: `pytest benches --benchmark-only`.

The harness measures all cases before the first test, in rounds of fresh worker processes as `imgbench run` does. Their
raw samples are then replayed to the plugin's fixture. Its clock reads 0 when a round begins and the sample when it
ends, so the plugin stores exactly these samples. A skipped case is a skipped test. A case that failed, is invalid, ran
out of memory or timed out is a failed test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from benches.pytest_plugin.suite_run import SUITE_RUN, row_of
from harness.types import AXES, Case, Run
from reports.formats import benchmark_json


class RecordedClock:
    """A clock that replays recorded durations: 0 at the beginning of a round, the next duration at its end.

    >>> clock = RecordedClock()
    >>> clock.load([0.1, 0.3])
    >>> begin, end = clock(), clock()
    >>> end - begin
    0.1
    """

    def __init__(self) -> None:
        self.__name__ = benchmark_json.TIMER
        self._readings: Iterator[float] = iter(())

    def load(self, durations: Iterable[float]) -> None:
        """Discards the remaining durations and replays these."""
        self._readings = (reading for duration in durations for reading in (0.0, duration))

    def __call__(self) -> float:
        return next(self._readings)


CLOCK = RecordedClock()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case. Its axes are the parameters, so that `--benchmark-group-by=param:backend` works."""
    suite = metafunc.config.stash[SUITE_RUN].suite
    options = benchmark_json.options(suite.protocol)
    cases = [
        pytest.param(
            *case.axes().values(),
            id=benchmark_json.name(case),
            marks=pytest.mark.benchmark(timer=CLOCK, group=benchmark_json.group(case), **options),
        )
        for case in suite.cases
    ]
    metafunc.parametrize(AXES, cases)


# A case without samples does not use the fixture, and the outcome of the test shows that already.
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used at all")
@pytest.mark.usefixtures(*AXES)
def test_latency(benchmark: Any, measured: Run, request: pytest.FixtureRequest) -> None:
    case = Case(**request.node.callspec.params)
    run = row_of(measured, case)
    row = benchmark_json.records(run)[case.id]
    if row["status"] == "skipped":
        pytest.skip(row["reason"])
    samples = benchmark_json.samples(run, case)
    if not samples:
        pytest.fail(f"{row['status']}: {row['reason'] or row['missing'].get('latency_s')}", pytrace=False)
    CLOCK.load(samples)
    benchmark.extra_info.update(benchmark_json.extra_info(run, case, row))
    benchmark.pedantic(_play, rounds=len(samples), iterations=1, warmup_rounds=0)
    if benchmark.enabled:
        assert benchmark.stats.stats.data == samples, "pytest-benchmark stored other durations than were measured"


def _play() -> None:
    """The function that a round calls. It does nothing, because the clock has the recorded duration."""
