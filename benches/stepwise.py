"""A run that is measured one case at a time, as pytest asks for them; stored like any other run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import benches
from baselines import fingerprint
from benches.commands import new_folder
from harness import storage
from harness.sweep import Block, Site, collect_environment, finish, measure_block, new_run, remaining
from harness.types import Case, Run, Suite
from harness.worker import Workers

STEPWISE: pytest.StashKey[StepwiseRun] = pytest.StashKey()


class StepwiseRun:
    """The cases of a suite, each measured when it is asked for, every process of it one after the other.

    Nothing is started and no folder made before the first question. `run` is None until a case was measured.
    """

    def __init__(
        self, suite: Suite, plugins: Sequence[str], out: Path, device: str | None, threads: int | None
    ) -> None:
        self.suite = suite
        self.run: Run | None = None
        self._given, self._out, self._device, self._threads = tuple(plugins), out, device, threads
        self._plugins = (*benches.PLUGINS, *plugins)
        self._cases = suite.cases
        self._selection: str | None = None
        self._open = ExitStack()

    def select(self, cases: Sequence[Case]) -> None:
        """Plans only these cases of the suite."""
        self._cases = tuple(cases)
        fewer = len(self._cases) < len(self.suite.cases)
        self._selection = f"pytest: {len(self._cases)} of {len(self.suite.cases)} cases" if fewer else None

    @cached_property
    def folder(self) -> Path:
        return new_folder(self._out, self.suite.name)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The conditions of the run, read in a worker. Raises EnvironmentFailed and NoSuchDevice."""
        found = collect_environment(self._workers, self._device, self._threads)
        return found | {"fingerprint": fingerprint.fingerprint(found), "plugins": list(self._given)}

    def measure(self, case: Case) -> Run:
        """Measures every process of `case` and returns the run so far, with this case alone."""
        run = self.run or self._begin()
        for replicate in range(run.protocol.replicates):
            run, measurement = measure_block(Block(case=case, replicate=replicate), run, self._site)
            if measurement.status != "ok":
                break
        self.run = storage.load(self.folder)
        own = tuple(m for m in self.run.measurements if m.case.id == case.id)
        return replace(self.run, cases=(case,), measurements=own)

    def close(self) -> Run | None:
        """The run, stamped as finished where every planned case was measured; else `imgbench run --resume` goes on."""
        self._open.close()
        if self.run is not None and self.run.finished is None and not remaining(self.run):
            self.run = finish(self.folder)
        return self.run

    def _begin(self) -> Run:
        planned, conditions = replace(self.suite, cases=self._cases), self.environment
        self._open.enter_context(storage.locked(self.folder))
        self._workers.logs = self.folder / "logs"
        started = new_run(planned, self.folder, conditions, self._selection)
        storage.write_atomically(self.folder / "suite.yaml", self.suite.source)
        return started

    @cached_property
    def _workers(self) -> Workers:
        return Workers(self._plugins, self._cache / "logs", benches.PRELOAD)

    @cached_property
    def _site(self) -> Site:
        return Site(workers=self._workers, plugins=self._plugins, cache=self._cache, report=lambda _phase: None)

    @cached_property
    def _cache(self) -> Path:
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="imgbench-")))
