"""`imgbench`: parses, calls, prints. What a command does stands in `benches.cli.run`.

    imgbench run digits                      measure a suite, compare with the stored baseline, write the report
    imgbench compare runs                    the newest run in a folder against the stored baseline
    imgbench export runs --format json       the table of the newest run

Exit codes: 0 fine, 10 regressed, 11 inconclusive (--strict), 12 not comparable or no baseline, 13 nothing measured,
15 quality regressed, 20 benchmark error, 64 usage, 130 interrupted. Every file is written before the code is decided.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from baselines.verdict import BENCHMARK_ERROR, USAGE
from harness import streams

INTERRUPTED = 130
LISTED = (
    "suites", "models", "backends", "precisions", "schedulers", "optimizations", "metrics", "devices", "gpus",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse with the exit code of measurement.md for usage errors (its own 2 is what make returns)."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"imgbench: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; also where not even our own modules can be imported."""
    closed = streams.prepare()
    try:
        code = _run_command(arguments, closed)
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


def _run_command(arguments: Sequence[str] | None, closed: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    os.umask(os.umask(0o077) & 0o077)  # a umask that masks the owner's bits would leave an unreadable run
    import benches
    from benches import failures
    from benches.cli import run as commands

    try:
        if options.command == "export" and options.out is None and "stdout" in closed:
            raise failures.UsageError("export: stdout is closed, so that the table would be lost; give --out FILE")
        if named := getattr(options, "plugin", None):
            options.plugin = [benches.in_full(plugin) for plugin in named]
            benches.load_plugins(*options.plugin)
        return commands.COMMANDS[options.command](options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except failures.KNOWN as error:
        streams.complain(f"imgbench: {failures.text(error)}")
        return failures.exit_code(error)


def parser() -> Parser:
    """The whole command line; every choice comes from what it chooses from."""
    top = Parser(
        prog="imgbench", description="Benchmarks image models: speed, memory, energy and quality in one record."
    )
    top.add_argument("--version", action="version", version=f"imgbench {_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _run(commands.add_parser("run", help="measure a suite, compare it with the stored baseline, write the report"))
    _report(commands.add_parser("report", help="write the HTML report of one or more runs"))
    _compare(commands.add_parser("compare", help="compare a run with the stored baseline; the exit code is the gate"))
    _ab(commands.add_parser("ab", help="base against head in one run, interleaved: the gate for noisy machines"))
    _explain(commands.add_parser("explain", help="say in words how the verdicts of one row came about"))
    _replay(commands.add_parser("replay", help="decide again from the raw values: bit for bit the same"))
    _selftest(commands.add_parser("selftest", help="measure the gate itself: false alarms, and what it catches"))
    _baseline(commands.add_parser("baseline", help="accept a run as a baseline, or list the stored ones"))
    _export(commands.add_parser("export", help="write a run's table as CSV, Parquet, JSON or pytest-benchmark's JSON"))
    _show(commands.add_parser("show", help="print a run's table"))
    _list(commands.add_parser("list", help="list suites, models, backends, schedulers or metrics"))
    _doctor(commands.add_parser("doctor", help="say what this machine can measure, and what is missing for the rest"))
    return top


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("suite", nargs="?", metavar="SUITE", help="a built-in suite's name, or a YAML file")
    command.add_argument("--resume", type=Path, metavar="RUN", help="finish an interrupted run instead")
    command.add_argument("--retry-failed", action="store_true", help="with --resume: also measure again what failed")
    command.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="where run folders go (runs)")
    command.add_argument("--only", metavar="AXIS=VALUE,...", help="measure only these cases; a|b allows several values")
    command.add_argument(
        "--device", type=device_name, choices=_devices(), help="default: cuda where there is one, else cpu"
    )
    command.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: as many as cores and CPU quota allow)"
    )
    command.add_argument("--replicates", type=positive, metavar="N", help="processes a case, instead of the suite's")
    command.add_argument("--no-report", action="store_true", help="do not compare and write no report")
    command.add_argument("--dry-run", action="store_true", help="print the cases and stop")
    _plugin(command)
    _store(command)


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the (first) run folder")
    _store(command)


def _compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")
    command.add_argument("--strict", action="store_true", help="inconclusive verdicts exit with 11, new metrics 12")
    command.add_argument("--allow-new", action="store_true", help="rows and metrics that no session knows are no error")
    command.add_argument("--exit-zero", action="store_true", help="advisory: always exit with 0")
    command.add_argument("--json", action="store_true", help="print the comparison as JSON")
    command.add_argument("--budget", default="2m", metavar="TIME", help="to measure suspects again (2m; 0: do not)")
    command.add_argument(
        "--max-age", type=_days, default=180.0, metavar="DAYS", help="older sessions are stale and do not count (180)"
    )
    _artifacts(command)
    _store(command)


def _ab(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "suite", metavar="SUITE", help="a built-in suite's name (gate is made for this), or a YAML file"
    )
    for name in ("base", "head"):
        command.add_argument(
            f"--{name}",
            action="append",
            metavar="ARM",
            help="comma-separated: ref=GITREF, python=PATH, env:NAME=VALUE, AXIS=VALUE, inject:KIND=SIZE "
            "(default: things as they are)",
        )
    command.add_argument("--budget", default="10m", metavar="TIME", help="at most this long, as 90s, 10m, 1h (10m)")
    command.add_argument("--project", type=Path, metavar="FOLDER", help="git repository of ref= (default: here)")
    command.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="where run folders go (runs)")
    command.add_argument("--only", metavar="AXIS=VALUE,...", help="only these cases; a|b allows several values")
    command.add_argument(
        "--device", type=device_name, choices=_devices(), help="default: cuda where there is one, else cpu"
    )
    command.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: one fewer than cores and CPU quota allow)"
    )
    command.add_argument("--seed", type=int, metavar="N", help="of the random order (default: a new one, stored)")
    command.add_argument("--strict", action="store_true", help="inconclusive verdicts exit with 11")
    command.add_argument("--exit-zero", action="store_true", help="advisory: always exit with 0")
    _artifacts(command)
    _plugin(command)


def _artifacts(command: argparse.ArgumentParser) -> None:
    """What CI wants, written before the exit code is decided."""
    group = command.add_argument_group("for CI")
    group.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    group.add_argument("--markdown", type=Path, metavar="FILE", help="write the comparison as Markdown")
    group.add_argument("--comment", type=Path, metavar="FILE", help="write a pull-request comment (65,536 characters)")
    group.add_argument("--badge", type=Path, metavar="FILE", help="write a badge for shields.io's endpoint")
    group.add_argument("--json-file", type=Path, metavar="FILE", help="write the comparison as JSON")
    group.add_argument("--annotations", action="store_true", help="print GitHub annotations")
    group.add_argument(
        "--step-summary",
        type=Path,
        nargs="?",
        const=Path(os.environ.get("GITHUB_STEP_SUMMARY") or "step-summary.md"),
        metavar="FILE",
        help="append the Markdown summary (default: $GITHUB_STEP_SUMMARY)",
    )


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", type=Path, metavar="RUN", help="a compared or paired run, or a folder of them (its newest)"
    )
    command.add_argument("row", metavar="ROW", help="the row's id, or a part of its id or label")
    _store(command)


def _replay(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", type=Path, metavar="RUN", help="a compared or paired run, or a folder of them (its newest)"
    )
    _store(command)


def _selftest(command: argparse.ArgumentParser) -> None:
    from benches.selftest import PLANS

    command.add_argument("suite", nargs="?", default="gate", metavar="SUITE", help="default: gate")
    command.add_argument(
        "--trials", type=_count, default=1, metavar="N", help="runs of each plan (1; 0: count the kept ones)"
    )
    command.add_argument("--history", type=Path, metavar="FILE", help="keep the trials here, and count those of before")
    command.add_argument("--record", type=Path, metavar="FILE", help="one A/A run in full, added to this recording")
    command.add_argument("--conditions", default="", metavar="TEXT", help="what else the machine did, for --record")
    command.add_argument("--recorded", type=Path, metavar="FILE", help="judge N resampled runs of this recording")
    command.add_argument(
        "--rounds", type=positive, default=32, metavar="N", help="budget of a resampled run: pairs of every row (32)"
    )
    command.add_argument("--apart", action="store_true", help="a fork server for each arm, as two git refs have")
    command.add_argument("--plan", action="append", metavar="PLAN", help=f"default: {', '.join(PLANS)}")
    command.add_argument("--rows", type=positive, default=1, metavar="N", help="slow rows of a planted run (1)")
    command.add_argument("--budget", default="5m", metavar="TIME", help="of each run (5m)")
    command.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="where run folders go (runs)")
    command.add_argument("--only", metavar="AXIS=VALUE,...", help="only these cases; a|b allows several values")
    command.add_argument(
        "--device", type=device_name, choices=_devices(), help="default: cuda where there is one, else cpu"
    )
    command.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: one fewer than cores and CPU quota allow)"
    )
    _plugin(command)


def _baseline(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    save = actions.add_parser("save", help="accept a run as a baseline of this machine")
    save.add_argument("run", type=Path, metavar="RUN")
    save.add_argument("--reason", required=True, help="why this run is the new normal; stored with it")
    save.add_argument("--force", action="store_true", help="accept rows that are not ok, and rows that are gone")
    save.add_argument("--reference", action="store_true", help="store it as the suite's reference for every machine")
    _store(save)
    listing = actions.add_parser("list", help="list the stored baselines")
    listing.add_argument("--json", action="store_true")
    _store(listing)


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")
    command.add_argument("--format", required=True, choices=["csv", "parquet", "json", "pytest-benchmark"])
    command.add_argument("--samples", action="store_true", help="a row a raw sample instead of a row a case")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: stdout (Parquet needs a file)")


def _show(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=LISTED)
    command.add_argument(
        "--device", type=device_name, choices=_devices(), help="whose backends (default: the device at hand)"
    )
    command.add_argument("--json", action="store_true")
    _plugin(command)


def _doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true")


def _plugin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plugin",
        action="append",
        metavar="MODULE",
        help="import a module, or a .py file, that registers models, backends or probes",
    )


def _store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store", type=Path, metavar="FOLDER", help="where baselines are kept (default: baselines)")


def _devices() -> tuple[str, ...]:
    from harness.registry import DEVICES

    return tuple(DEVICES)


def _version() -> str:
    from harness.processes.environment import VERSION

    return VERSION


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 0 or more")
    return number


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of days, 0 or more")
    return days


def device_name(text: str) -> str:
    """The name of a device that imgbench knows, as an argument's type."""
    from harness import devices

    if text not in devices.DEVICES:
        raise argparse.ArgumentTypeError(devices.unknown(text))
    return text


def positive(text: str) -> int:
    """A whole number of 1 or more, as an argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
