"""The start of a run: its conditions, its folder and its header. `imgbench run` and pytest's session start theirs here.

Nothing is written before the conditions are read. A run is locked from its first file until its start's context ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import benches
from baselines.stored import fingerprint
from benches.ab.arms import OURS
from benches.cli.run_folders import new_folder
from harness import storage
from harness.processes.loaded_code import source_digests
from harness.processes.worker import Workers
from harness.stored_types import Environment
from harness.sweeping.sweep import collect_environment, new_run
from harness.types import Run, Suite


def modules(plugins: Sequence[str]) -> tuple[str, ...]:
    """The modules that the workers of a run with these plugins import."""
    return (*benches.PLUGINS, *benches.modules(plugins))


def sources(modules: Sequence[str]) -> dict[str, str | None]:
    """Digests of the code under test: of imgbench, and of the modules that workers import."""
    return source_digests((*OURS, *modules))


def conditions(workers: Workers, plugins: Sequence[str], device: str | None, threads: int | None) -> Environment:
    """The conditions of a new run, read in one of its workers, with the plugins as they are named in full. Raises what
    `collect_environment` raises."""
    with tempfile.TemporaryDirectory(prefix="imgbench-") as logs:
        workers.logs = Path(logs)
        found = collect_environment(workers, device, threads)
    return found | {
        "fingerprint": fingerprint.fingerprint(found),
        "plugins": list(plugins),
        "sources": sources(modules(plugins)),
    }


@contextmanager
def started(
    suite: Suite, out: Path, found: Environment, workers: Workers, selection: str | None = None
) -> Iterator[Run]:
    """A new run below `out`, still without measurements, whose folder is locked inside the `with` block. The workers
    log there. Raises WeightsChanged."""
    folder = new_folder(out, suite.name)
    workers.logs = folder / "logs"
    with storage.locked(folder):
        run = new_run(suite, folder, found, selection)
        storage.write_atomically(folder / "suite.yaml", suite.source)
        yield run
