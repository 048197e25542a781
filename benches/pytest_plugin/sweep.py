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
from baselines.stored import fingerprint
from benches.ab.arms import OURS
from benches.cli.run_folders import new_folder
from benches.preload import libraries
from harness import attempts, storage
from harness.processes.loaded_code import source_digests
from harness.processes.remaining_time import PlannedProcess
from harness.processes.sweep import (
    CONTENDED_IN_A_ROW,
    Site,
    collect_environment,
    control,
    finish,
    measure_process,
    new_run,
    remaining,
    stop_without_storage,
)
from harness.processes.worker import Workers
from harness.types import Case, Measurement, Run, Suite

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
        plugins = [benches.in_full(plugin) for plugin in plugins]
        self._given, self._out, self._device, self._threads = tuple(plugins), out, device, threads
        self._plugins = (*benches.PLUGINS, *benches.modules(plugins))
        self._cases = suite.cases
        self._selection: str | None = None
        self._open = ExitStack()
        self._busy = 0

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
        return found | {
            "fingerprint": fingerprint.fingerprint(found),
            "plugins": list(self._given),
            "sources": source_digests((*OURS, *self._plugins)),
        }

    def measure(self, case: Case) -> Run:
        """Measures every process of `case` and returns the run so far, with this case alone.

        A process that met a busy machine is measured again at once, and not at the end of the run as in `sweep`: what
        pytest-benchmark is told must be what counts in the run.
        """
        run = self.run or self._begin()
        for replicate in range(run.protocol.replicates):
            run, measurement = measure_process(PlannedProcess(case=case, replicate=replicate), run, self._site)
            stop_without_storage(measurement)
            if measurement.status != "ok":
                break
        self.run = self._again(case)
        own = tuple(m for m in self.run.measurements if m.case.id == case.id)
        return replace(self.run, cases=(case,), measurements=own)

    def close(self) -> Run | None:
        """The run, with its A/A control and stamped as finished where every planned case was measured; else `imgbench
        run --resume` goes on."""
        with self._open:
            if self.run is not None and self.run.finished is None and not remaining(self.run):
                for number in range(self.run.protocol.replicates):
                    control(number, storage.load(self.folder), self._site)
                self.run = finish(self.folder)
        return self.run

    def _again(self, case: Case) -> Run:
        """The run, after processes of `case` that met a busy machine were measured again as often as the protocol says.
        After CONTENDED_IN_A_ROW busy attempts in a row the machine is taken to stay so."""
        run = storage.load(self.folder)
        while todo := self._contended(run, case):
            measurement, attempt = todo[0]
            process = PlannedProcess(case=case, replicate=measurement.replicate)
            _, found = measure_process(process, run, self._site, attempt)
            stop_without_storage(found)
            self._busy = self._busy + 1 if attempts.contended(found) else 0
            run = storage.load(self.folder)
        return run

    def _contended(self, run: Run, case: Case) -> list[tuple[Measurement, int]]:
        own = [m for m in run.measurements if m.case.id == case.id]
        if own and not any(attempts.contended(m) for m in own):
            self._busy = 0
        if self._busy >= CONTENDED_IN_A_ROW:
            return []
        return attempts.again(own, run.superseded, run.protocol.contended_retries)

    def _begin(self) -> Run:
        planned, conditions = replace(self.suite, cases=self._cases), self.environment
        self._open.enter_context(storage.locked(self.folder))
        self._workers.logs = self.folder / "logs"
        started = new_run(planned, self.folder, conditions, self._selection)
        storage.write_atomically(self.folder / "suite.yaml", self.suite.source)
        return started

    @cached_property
    def _workers(self) -> Workers:
        return Workers(self._plugins, self._cache / "logs", libraries(self.suite.cases))

    @cached_property
    def _site(self) -> Site:
        return Site(workers=self._workers, plugins=self._plugins, cache=self._cache, report=lambda _phase: None)

    @cached_property
    def _cache(self) -> Path:
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="imgbench-")))
