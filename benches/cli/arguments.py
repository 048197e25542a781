"""Arguments that several commands share, and their types."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NoReturn

from baselines.stored import location
from baselines.verdict import USAGE
from benches.failures import UsageError
from harness import devices
from harness.registry import DEVICES

UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


class Parser(argparse.ArgumentParser):
    """argparse that exits with USAGE after a usage error, because make returns argparse's own code 2."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"imgbench: {message}\n")


def add_device(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument("--device", type=device_name, choices=tuple(DEVICES), help=words)


def add_measuring(parser: argparse.ArgumentParser, *, threads: str) -> None:
    """What each command that measures a suite takes. `threads` says how the default compares with the cores."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="FOLDER", help="folder for run folders (runs)"
    )
    parser.add_argument("--only", metavar="AXIS=VALUE,...", help="measure only these cases; a|b allows several values")
    add_device(parser, "default: cuda if there is a GPU, else cpu")
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help=f"CPU threads (default: {threads} the cores and the CPU quota allow)",
    )


def add_plugin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        action="append",
        metavar="MODULE",
        help="import a module or a .py file that registers models, pipelines, backends, precisions, schedulers, "
        "optimisations, metrics, sections, devices, GPUs or commands",
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="the folder of the baselines (default: $IMGBENCH_BASELINES, else the folder baselines of this project)",
    )


def store_of(options: argparse.Namespace) -> Path:
    """The folder of the baselines."""
    return location.chosen(options.store)


def device_name(text: str) -> str:
    """The name of a device that imgbench knows, as an argument's type."""
    if text not in DEVICES:
        raise argparse.ArgumentTypeError(devices.unknown(text))
    return text


def positive(text: str) -> int:
    """A whole number of 1 or more, as an argument's type."""
    return _whole(text, 1)


def count(text: str) -> int:
    """A whole number of 0 or more, as an argument's type."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, {least} or more")
    return number


def seconds(text: str, *, zero: bool = False) -> float:
    """Seconds of a duration such as "90", "90s", "10m", "1h" or "1h30m"; 0 only where `zero` allows it."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text or not all(u for _, u in parts[:-1]):
        raise UsageError(f"--budget: {text!r} must be a duration such as 90s, 10m or 1h30m")
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if total <= 0 and not zero:
        raise UsageError("--budget: must be more than 0")
    return total
