"""The registry of commands. A command declares its arguments and runs; its module is imported when it is chosen.

A plugin adds one, which `imgbench --plugin FILE --help` lists and `imgbench --plugin FILE hello` runs:

    @COMMANDS.add("hello")
    class Hello:
        help = "greet somebody"

        def arguments(self, parser: ArgumentParser) -> None:
            parser.add_argument("name")

        def run(self, options: Namespace) -> int:
            print(f"hello {options.name}")
            return 0
"""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from typing import Any, Final, Protocol

from harness import entries
from harness.registry import Registry


class Command(Protocol):
    """One command of `imgbench`."""

    @property
    def help(self) -> str:
        """What it does, in one line of `imgbench --help`."""

    def arguments(self, parser: ArgumentParser) -> None:
        """Declares its arguments."""

    def run(self, options: Namespace) -> int:
        """Runs the command and returns the exit code. Raises the errors of `benches.failures`."""


@dataclass(frozen=True)
class BuiltIn:
    """A command in a module of this package, which has the functions `arguments` and `run`."""

    module: str
    help: str

    def arguments(self, parser: ArgumentParser) -> None:
        self._imported().arguments(parser)

    def run(self, options: Namespace) -> int:
        code: int = self._imported().run(options)
        return code

    def _imported(self) -> Any:
        return importlib.import_module(f"{__package__}.{self.module}")


COMMANDS: Registry[Command] = Registry("command")
FIELDS: Final = {"help": entries.LINE, "arguments": entries.FUNCTION, "run": entries.FUNCTION}


@COMMANDS.checked_by
def _check(subject: str, _name: str, entry: Any) -> None:
    entries.demand(subject, entry, FIELDS)


for _name, _help in {
    "run": "measure a suite, compare it with the stored baseline, write the report",
    "report": "write the HTML report of one or more runs",
    "compare": "compare a run with the stored baseline; the exit code gives the result",
    "ab": "compare base with head, interleaved in one run, also on noisy machines",
    "explain": "explain how the verdicts on one row were reached",
    "replay": "decide again from the raw values and compare with the stored decision",
    "selftest": "measure the gate's false alarms and how often it detects planted slow-downs",
    "baseline": "accept a run as a baseline, or list the stored ones",
    "export": "write a run's table as CSV, Parquet, JSON or pytest-benchmark's JSON",
    "show": "print a run's table",
    "list": "list suites, models, backends, precisions, schedulers, optimisations, metrics, devices or GPUs",
    "doctor": "show what this machine can measure, and why it cannot measure the rest",
}.items():
    COMMANDS.register(_name, BuiltIn({"list": "listing"}.get(_name, _name), _help))
