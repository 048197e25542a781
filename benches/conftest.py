"""What `pytest benches --benchmark-only` adds to pytest: options, the machine in the plugin's files, a summary."""

from __future__ import annotations

import os
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytest

import benches
from benches import suites
from benches.cli.arguments import device_name, positive
from benches.failures import exit_code, known, text
from benches.pytest_plugin.suite_run import SUITE_RUN, SuiteRun
from harness.devices import unmeasured
from harness.stored_types import Environment
from harness.sweeping import progress
from harness.types import AXES, Case, Run
from reports.formats import benchmark_json, terminal

try:
    from pytest_benchmark.logger import PytestBenchmarkWarning
except ImportError:
    raise ImportError(f"`pytest benches` needs pytest-benchmark: {benchmark_json.EXTRA}") from None


APART: pytest.StashKey[str | None] = pytest.StashKey()  # the note on the document's pooled medians, if any


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("imgbench")
    group.addoption(
        "--imgbench-suite",
        metavar="SUITE",
        default=os.environ.get("IMGBENCH_SUITE", "smoke"),
        help="a built-in suite's name, or a YAML file (default: $IMGBENCH_SUITE, else smoke)",
    )
    group.addoption(
        "--imgbench-plugin",
        metavar="MODULE",
        action="append",
        default=[name for name in os.environ.get("IMGBENCH_PLUGINS", "").split(",") if name],
        help="a module that registers models, backends or metrics (default: $IMGBENCH_PLUGINS, comma-separated)",
    )
    group.addoption(
        "--imgbench-device", type=device_name, help="the device (default: cuda if there is a GPU, else cpu)"
    )
    group.addoption(
        "--imgbench-threads",
        type=positive,
        metavar="N",
        help="CPU threads (default: as many as the cores and the CPU quota allow)",
    )
    group.addoption(
        "--imgbench-out",
        type=Path,
        metavar="FOLDER",
        default=Path("runs"),
        help="folder for the run folder, which `imgbench report` and `imgbench export` read (runs)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Reads the suite. Warnings of the plugin (another machine, nothing to save) are shown and are never errors."""
    config.addinivalue_line("filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning")
    warnings.filterwarnings("default", category=PytestBenchmarkWarning)  # for warnings of other configure hooks
    plugins = config.getoption("imgbench_plugin")
    try:
        benches.load_plugins(*plugins)
        suite = suites.find(config.getoption("imgbench_suite"))
    except Exception as error:
        if not known(error):
            raise
        raise pytest.UsageError(text(error)) from None
    config.stash[SUITE_RUN] = SuiteRun(
        suite,
        plugins,
        out=config.getoption("imgbench_out"),
        device=config.getoption("imgbench_device"),
        threads=config.getoption("imgbench_threads"),
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plans the cases that `-k` and similar options select."""
    found = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    session.config.stash[SUITE_RUN].select([Case(**axes) for axes in found if axes.keys() == set(AXES)])


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Run:
    """The run, which is measured before the first test. Ends the session if it cannot be measured."""
    try:
        return pytestconfig.stash[SUITE_RUN].measured(Told(pytestconfig))
    except Exception as error:
        _end(error)


class Told(progress.Lines):
    """Prints the progress of the sweep on the terminal, also while pytest captures the output of tests."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(progress.console())
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")

    def say(self, text: str) -> None:
        if self._reporter is None:
            return
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            self._reporter.ensure_newline()
            self._reporter.write_line(text)


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    return benchmark_json.machine_info(_environment(config))


def _environment(config: pytest.Config) -> Environment:
    """The conditions of the run. Ends the session if they cannot be read."""
    try:
        return config.stash[SUITE_RUN].environment
    except Exception as error:
        _end(error)


def _end(error: Exception) -> NoReturn:
    """Ends the session with the error's exit code. Raises the error itself if it is a defect of imgbench."""
    if not known(error):
        raise error
    pytest.exit(text(error), returncode=exit_code(error))


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Writes the facts again, from the whole run: a row's interval uses the spread of all rows."""
    run = config.stash[SUITE_RUN].run
    if run is None:
        return
    rows = benchmark_json.records(run)
    cases = {case.id: case for case in run.cases}
    for entry in output_json["benchmarks"]:
        if case := cases.get(entry["extra_info"].get("case_id")):
            entry["extra_info"] = benchmark_json.extra_info(run, case, rows[case.id])
    output_json["imgbench"] = benchmark_json.provenance(run, rows)
    config.stash[APART] = benchmark_json.pooled_medians_apart(output_json["benchmarks"])


@pytest.hookimpl(tryfirst=True)  # before the plugin's own hook, which raises if a figure has regressed
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the speed of each row relative to its reference, the warnings of the rows and the folder of the run."""
    run = config.stash[SUITE_RUN].run
    if run is None:
        return
    terminalreporter.section("imgbench")
    if config.getoption("imgbench_device") is None and (told := unmeasured.at_the_start(run.environment)):
        terminalreporter.write_line(str(told))
    for line in terminal.speed_lines(run):
        terminalreporter.write_line(line)
    for measurement in run.measurements:
        for warning in measurement.warnings:
            terminalreporter.write_line(f"{measurement.case.label}: {warning}")
    if apart := config.stash.get(APART, None):
        terminalreporter.write_line(apart)
    terminalreporter.write_line(f"run {run.folder}")
