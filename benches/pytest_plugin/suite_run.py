"""The run that pytest's session measures: the selected cases of a suite, measured and stored like any other run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

import benches
from baselines.stored import fingerprint
from benches.ab.arms import OURS
from benches.cli.run_folders import new_folder
from benches.preload import libraries
from harness import storage
from harness.processes.loaded_code import source_digests
from harness.processes.worker import Workers
from harness.stored_types import Environment
from harness.sweeping.sweep import Listener, collect_environment, new_run, sweep
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
        self._plugins = (*benches.PLUGINS, *benches.modules(plugins))
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
        with tempfile.TemporaryDirectory(prefix="imgbench-") as logs:
            self._workers.logs = Path(logs)
            found = collect_environment(self._workers, self._device, self._threads)
        return found | {
            "fingerprint": fingerprint.fingerprint(found),
            "plugins": list(self._given),
            "sources": source_digests((*OURS, *self._plugins)),
        }

    def measured(self, listener: Listener) -> Run:
        """The whole run. The first call measures it. Raises what `environment` raises, and StorageFailed."""
        if self.run is None:
            conditions, folder = self.environment, new_folder(self._out, self.suite.name)
            self._workers.logs = folder / "logs"
            with storage.locked(folder):
                self.run = new_run(replace(self.suite, cases=self._cases), folder, conditions, self._selection)
                storage.write_atomically(folder / "suite.yaml", self.suite.source)
                try:
                    self.run = sweep(self.run, self._workers, self._plugins, listener)
                except BaseException:
                    self.run = storage.load(folder)
                    raise
        return self.run

    @cached_property
    def _workers(self) -> Workers:
        return Workers(self._plugins, self._out, libraries(self.suite.cases))


def row_of(run: Run, case: Case) -> Run:
    """The run with the measurements of `case` alone."""
    own = tuple(m for m in run.measurements if m.case.id == case.id)
    return replace(run, cases=(case,), measurements=own)
