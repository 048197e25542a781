"""`python -m benches.gpu_check`: all checks, the table as it grows, the verdict, the exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import benches
from benches import gpu_check
from benches.gpu_check import Check, sensor_process
from benches.gpu_check.rows import PLUGIN, rows
from harness.timing import perf_counter
from harness.worker import one_line


def verdict(found: Sequence[Check]) -> str:
    """ "PASSED: 31 ok, 0 failed, 4 left out"."""
    count = {result: sum(c.result == result for c in found) for result in ("ok", "FAILED", "left out")}
    word = "FAILED" if count["FAILED"] else "PASSED"
    return f"{word}: {count['ok']} ok, {count['FAILED']} failed, {count['left out']} left out"


def line(check: Check) -> str:
    return f"{check.result:<8}  {check.what}: {check.detail}  ({check.seconds:.1f} s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything, prints the table as it grows, and writes --out."""
    parser = argparse.ArgumentParser(
        prog="gpu-check", description=gpu_check.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep every figure here, as JSON")
    options = parser.parse_args(arguments)
    benches.load_plugins()
    importlib.import_module(PLUGIN)
    from harness.devices.cuda import unavailable

    if reason := unavailable():
        print(f"no GPU to check: {reason}")
        return 2
    began = perf_counter()
    found: list[Check] = []

    def say(check: Check) -> None:
        found.append(check)
        print(line(check), flush=True)

    try:
        for check in sensor_process.checked():
            say(check)
    except Exception as error:
        say(Check(what="the device", result="FAILED", detail=one_line(error)))
    try:
        measured = list(rows(began, say))
        if not any(check.result == "ok" for check in measured):
            say(Check(what="rows", result="FAILED", detail="not one of them was measured"))
    except Exception as error:  # the verdict and the figures of all else are kept
        say(Check(what="rows", result="FAILED", detail=one_line(error)))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(c) for c in found], indent=1, default=str) + "\n")
    print(f"{verdict(found)}, in {perf_counter() - began:.0f} s")
    return 1 if any(c.result == "FAILED" for c in found) else 0


def end(run: Callable[[], int]) -> NoReturn:
    """Ends the program with the code of `run()`; a child that hangs in the driver, where no signal reaches it, is not
    waited for."""
    try:
        code = run()
    except KeyboardInterrupt:
        code = 130
    except Exception:
        traceback.print_exc()
        code = 1
    if not multiprocessing.active_children():
        sys.exit(code)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # at an ordinary exit, multiprocessing joins every child


if __name__ == "__main__":
    end(main)
