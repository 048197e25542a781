"""The command line `imgbench`. Each command has a module of its own name.

    imgbench run digits                      measure a suite, compare with the stored baseline, write the report
    imgbench compare runs                    the newest run in a folder against the stored baseline
    imgbench export runs --format json       the table of the newest run
    imgbench --plugin mine.py mycommand      a command that a plugin adds

Exit codes: 0 fine, 10 regressed, 11 inconclusive (--strict), 12 not comparable or no baseline, 13 nothing measured,
14 contended, 15 quality regressed, 20 benchmark error, 64 usage, 130 interrupted. Every file is written before the
code is decided.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from baselines.verdict import BENCHMARK_ERROR
from benches.cli.arguments import Parser, add_plugin
from benches.cli.commands import COMMANDS, Command
from harness import streams
from harness.version import VERSION

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, also if imgbench's own modules cannot be imported."""
    closed = streams.prepare()
    try:
        code = _run_command(sys.argv[1:] if arguments is None else arguments, closed)
    except Exception:
        streams.complain(traceback.format_exc().rstrip())
        streams.complain("imgbench: this is a defect of imgbench, please report it with the lines above")
        code = BENCHMARK_ERROR
    finally:
        unwritten = streams.lost()
    if unwritten is not None:
        streams.complain(f"imgbench: stdout: {unwritten.strerror or unwritten}")
        return code or BENCHMARK_ERROR
    return code


def _run_command(arguments: Sequence[str], closed: Sequence[str]) -> int:
    try:
        plugins = _load_plugins(arguments)
        options = parser().parse_args(arguments)
        options.plugin, options.closed = plugins, closed
        signal.signal(signal.SIGTERM, _interrupt)
        os.umask(os.umask(0o077) & 0o077)  # a umask that masks the owner's bits would leave an unreadable run
        return COMMANDS[options.command].run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        from benches import failures

        if not failures.known(error):
            raise
        streams.complain(f"imgbench: {failures.text(error)}")
        return failures.exit_code(error)


def _load_plugins(arguments: Sequence[str]) -> list[str]:
    """Imports the plugins that the command line names, which may add the command itself. Returns their names in
    full."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_plugin(early)
    try:
        named = early.parse_known_args(arguments)[0].plugin or []
    except argparse.ArgumentError:  # the complete parser reports the error
        return []
    if not named:
        return []
    import benches

    plugins = [benches.in_full(plugin) for plugin in named]
    benches.load_plugins(*plugins)
    return plugins


class CommandParser(Parser):
    """A command's parser, whose arguments are declared when the command is chosen: only its module is imported."""

    def __init__(self, *, command: Command, **options: Any) -> None:
        super().__init__(**options)
        self.command: Command | None = command

    def declare(self) -> None:
        """Declares the arguments of the command, and the option `--plugin` that every command has."""
        if self.command is not None:
            self.command.arguments(self)
            add_plugin(self)
            self.command = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.declare()
        return super().parse_known_args(args, namespace)


def parser() -> Parser:
    """The parser of the whole command line. Choices come from the registries."""
    top = Parser(
        prog="imgbench", description="Benchmarks image models: speed, memory, energy and quality in one record."
    )
    top.add_argument("--version", action="version", version=f"imgbench {VERSION}")
    add_plugin(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, command=command)
    return top


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
