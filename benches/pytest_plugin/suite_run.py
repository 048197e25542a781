"""The run that pytest's session measures: the selected cases of a suite, measured and stored like any other run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

import benches
from benches.cli import run_start
from benches.preload import libraries
from harness import storage
from harness.processes.worker import Workers
from harness.stored_types import Environment
from harness.sweeping.sweep import Listener, sweep
from harness.types import Case, Run, Suite

SUITE_RUN: pytest.StashKey[SuiteRun] = pytest.StashKey()


class SuiteRun:
    """The selected cases of a suite, which one sweep measures when the first result is requested.

    Before that, no process is started, no folder is made, and `run` is None. A sweep that ends early leaves an
    unfinished run, which `imgbench run --resume` continues.
    """

    def __init__(
        self, suite: Suite, plugins: Sequence[str], out: Path, device: str | None, threads: int | None
    ) -> None:
        self.suite = suite
        self.run: Run | None = None
        plugins = [benches.in_full(plugin) for plugin in plugins]
        self._given, self._out, self._device, self._threads = tuple(plugins), out, device, threads
        self._plugins = run_start.modules(plugins)
        self._cases = suite.cases
        self._selection: str | None = None

    def select(self, cases: Sequence[Case]) -> None:
        """Plans only these cases of the suite."""
        self._cases = tuple(cases)
        fewer = len(self._cases) < len(self.suite.cases)
        self._selection = f"pytest: {len(self._cases)} of {len(self.suite.cases)} cases" if fewer else None

    @cached_property
    def environment(self) -> Environment:
        """The conditions of the run, read in a worker. Raises EnvironmentFailed and NoSuchDevice."""
        return run_start.conditions(self._workers, self._given, self._device, self._threads)

    def measured(self, listener: Listener) -> Run:
        """The whole run. The first call measures it. Raises what `environment` raises, and StorageFailed."""
        if self.run is None:
            chosen = replace(self.suite, cases=self._cases)
            with run_start.started(chosen, self._out, self.environment, self._workers, self._selection) as begun:
                try:
                    self.run = sweep(begun, self._workers, self._plugins, listener)
                except BaseException:
                    self.run = storage.load(Path(str(begun.folder)))
                    raise
        return self.run

    @cached_property
    def _workers(self) -> Workers:
        return Workers(self._plugins, self._out, libraries(self.suite.cases))


def row_of(run: Run, case: Case) -> Run:
    """The run with the measurements of `case` alone."""
    own = tuple(m for m in run.measurements if m.case.id == case.id)
    return replace(run, cases=(case,), measurements=own)
