"""`imgbench export`: a run as a table of data."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import reports.formats.benchmark_json
from baselines.verdict import FINE
from benches.cli.printing import say
from benches.cli.run_folders import load_run
from benches.failures import UsageError
from harness import frames, storage, streams
from harness.types import Run


def arguments(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a folder of runs (its newest)")
    command.add_argument(
        "--format", required=True, choices=["csv", "parquet", "json", "pytest-benchmark"], help="format of the file"
    )
    command.add_argument("--samples", action="store_true", help="write a row for each raw sample instead of each case")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: stdout (Parquet needs a file)")


def run(options: Namespace) -> int:
    if options.out is None and "stdout" in options.closed:
        raise UsageError("export: stdout is closed, so the table would be lost; give --out FILE")
    if options.out is not None and not options.out.parent.is_dir():
        raise UsageError(f"export: --out {options.out}: the folder {options.out.parent} does not exist")
    measured = load_run(options.run)
    if options.format == "pytest-benchmark":
        return _export_benchmarks(measured, options)
    frame = frames.samples_frame(measured) if options.samples else frames.cases_frame(measured)
    if options.format == "parquet":
        if options.out is None:
            raise UsageError("export: Parquet is a binary format; give --out FILE")
        frames.flat(frame).to_parquet(options.out, index=False)
    else:
        text = frames.to_json(frame) if options.format == "json" else frames.to_csv(frame)
        return _write(text, options.out)
    say(str(options.out))
    return FINE


def _export_benchmarks(measured: Run, options: Namespace) -> int:
    if options.samples:
        raise UsageError("export: --format pytest-benchmark already contains the samples; leave --samples out")
    try:
        document = reports.formats.benchmark_json.document(measured)
    except reports.formats.benchmark_json.NotInstalled as error:
        raise UsageError(f"export: {error}") from None
    if apart := reports.formats.benchmark_json.pooled_medians_apart(document["benchmarks"]):
        streams.complain(f"imgbench: {apart}")
    return _write(json.dumps(document, indent=1, allow_nan=False), options.out)


def _write(text: str, path: Path | None) -> int:
    """Writes to the file and prints its path, or writes to stdout."""
    if path is None:
        shown = streams.escaped(text, sys.stdout)
        if shown != text:
            streams.complain(
                f"imgbench: export: the encoding of stdout, {sys.stdout.encoding}, lacks characters of the table, "
                "which are written as escapes (\\u00b7); --out FILE writes UTF-8"
            )
        streams.output().write(shown if shown.endswith("\n") else shown + "\n")
    else:
        storage.write_atomically(path, text)
        say(str(path))
    return FINE
