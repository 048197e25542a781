"""`python -m benches.gpu_check`: runs all checks, writes the record as it grows, and gives the verdict and the exit
code."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from benches import gpu_check
from benches.gpu_check import LAST_S, Check, controls, published, record, verdict
from benches.gpu_check.record import Row, Unreadable, Writer
from harness import streams

HEADER_S: Final = 60.0
HUNG: Final = "a process did not end in time and could not be killed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything, or with --verify derives the verdict of a record."""
    parser = argparse.ArgumentParser(
        prog="gpu-check", description=gpu_check.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="folder for the record (runs)")
    parser.add_argument(
        "--verify", type=Path, metavar="FILE", help="derive the verdict of this record; needs neither a GPU nor torch"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="with --verify: write the page of the record to this file"
    )
    parser.add_argument("--commit", help="commit to write into the record, for a copy of the code without .git")
    options = parser.parse_args(arguments)
    return verify(options.verify, options.page) if options.verify else measure(options.out, options.commit)


def verify(path: Path, page: Path | None = None) -> int:
    """Prints the table and the verdict of a record and returns the exit code; also writes its page where one is
    requested."""
    try:
        found = record.read(path)
    except Unreadable as error:
        tell(str(error))
        return verdict.NO_GPU
    decided = verdict.decide(found)
    if page is not None:
        tell(paged(page, found, decided))
    tell(*map(line, decided.found), *ending(decided, found))
    return decided.code


def paged(path: Path, found: record.Record, decided: verdict.Verdict) -> str:
    """Writes the page. Returns a line that says where it is, or which package of a report is missing."""
    import benches

    try:
        from benches.gpu_check import page
    except ModuleNotFoundError as error:
        return f"no page: {error.name} is not installed"
    benches.load_plugins()
    page.write(path, found, decided)
    return f"page      {path}"


def tell(*lines: str) -> None:
    """Prints lines, in any encoding. A closed pipe does not stop the measurement."""
    print("\n".join(lines), file=streams.output(), flush=True)


def line(check: Check) -> str:
    """One line of the table."""
    seconds = f"  ({check.seconds:.1f} s)" if check.seconds else ""
    return f"{check.result:<8}  {check.what}: {check.detail}{seconds}"


def ending(decided: verdict.Verdict, found: record.Record) -> Iterator[str]:
    """The lines below the table: published figures, what failed, what is missing, the verdict."""
    yield from (f"published  {text}" for text in published.lines(found))
    yield from (f"failed    {text}" for text in decided.failed)
    yield from (f"missing   {text}" for text in decided.missing)
    elapsed = "" if found.end is None else f", in {found.end['elapsed_s']:.0f} s"
    yield f"{decided.line}{elapsed}"


def measure(out: Path, commit: str | None = None) -> int:
    """Runs the whole check and writes its record into `out`; `commit` is the commit that the caller gives for the
    code."""
    from harness.timing import perf_counter

    began = perf_counter()
    writers: list[Writer] = []  # one, once there is a header
    last = threading.Timer(LAST_S, lambda: give_up(writers, lambda: perf_counter() - began))
    last.daemon = True
    last.start()
    try:
        return _measured(out, commit, began, writers, last)
    finally:
        last.cancel()


def _measured(out: Path, commit: str | None, began: float, writers: list[Writer], last: threading.Timer) -> int:
    import benches
    from benches.gpu_check import header, long_work, plain_vit  # noqa: F401  # so that every worker has their models
    from benches.gpu_check.plan import everything
    from benches.gpu_check.rows import PLUGINS, Bench
    from benches.preload import libraries
    from harness.processes.worker import Workers
    from harness.registry import MODELS
    from harness.storage import now
    from harness.timing import perf_counter

    benches.load_plugins()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="imgbench-gpu-check-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        cases = [planned.case for planned in everything((9, 0)) if planned.case.model in MODELS]
        workers = Workers(PLUGINS, folder / "logs", libraries(cases))
        reply = workers.call(header.collect, None, HEADER_S, "header", lambda _phase: None)
        if not isinstance(reply.value, dict):
            tell(f"no GPU to check: {reply.value or reply.reason}")
            return verdict.NO_GPU
        writer = Writer(fresh(out / f"gpu-check-{header.slug(reply.value)}.jsonl"))
        writer.header({"created": now(), "budget_s": gpu_check.BUDGET_S, "commit_by_caller": commit, **reply.value})
        writers.append(writer)
        tell(f"recording into {writer.path}")
        bench = Bench(workers=workers, folder=folder, began=began, writer=writer, say=say_row, tell=tell)
        capability = reply.value["capability"]
        reason = run(bench, (int(capability[0]), int(capability[1])))
        if not writer.close(perf_counter() - began, reason):
            threading.Event().wait()  # `give_up` has closed the record and ends the program
        last.cancel()
        return conclude(writer)


def run(bench: Any, capability: tuple[int, int]) -> str | None:
    """Runs all steps in order. Returns why they ended early, or None. A step that fails does not stop the others."""
    from benches.gpu_check import block, exports, negative, plan, sensor_process
    from benches.gpu_check.rows import beside

    def device() -> None:
        with beside(lambda: exports.export(bench, plan.DEVICE_UNTIL_S), "export"):
            for check in sensor_process.checked(left_s=lambda: plan.DEVICE_UNTIL_S - bench.elapsed_s):
                bench.writer.check(check)
                tell(line(check))

    def paired() -> None:
        try:
            from benches.gpu_check import comparison
        except ModuleNotFoundError as error:
            bench.writer.comparison((), f"{error.name} is not installed")
            return
        comparison.paired(bench, capability, plan.PAIRED_UNTIL_S)

    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("device", device),
        ("backends", lambda: bench.step(plan.backends(capability), plan.BACKENDS_UNTIL_S)),
        ("laws", lambda: bench.step(plan.laws(capability), plan.LAWS_UNTIL_S)),
        ("networks", lambda: bench.step(plan.networks(capability), plan.NETWORKS_UNTIL_S)),
        ("controls", lambda: negative.measure(bench, capability, plan.CONTROLS_UNTIL_S)),
        ("block", lambda: block.measure(bench, capability, plan.BLOCK_UNTIL_S)),
        ("ab", paired),
        ("rest", lambda: bench.step(plan.rest(capability), gpu_check.BUDGET_S)),
    )
    for name, step in steps:
        try:
            step()
        except KeyboardInterrupt:
            return f"interrupted in the step {name}"
        except Exception as error:  # what was measured is kept, and the next steps are tried
            traceback.print_exc()
            bench.writer.check(Check(what=f"step {name}", result="FAILED", detail=f"{type(error).__name__}: {error}"))
    return None


def say_row(row: Row) -> None:
    """Prints a row with its result. The laws decide on controls at the end."""
    if row.name in controls.EXPECTED:
        tell(f"{'control':<8}  {row.name}: {row.measurement.status} {row.measurement.reason or ''}")
    else:
        tell(line(verdict.of_row(row)))


def conclude(writer: Writer, page: bool = True) -> int:
    """Packs the record, prints what was not printed yet, and returns the exit code. The page is written last."""
    packed = writer.path.with_suffix(".json.gz")
    writer.pack(packed)
    found = record.read(packed)
    decided = verdict.decide(found)
    told = {*found.checks, *found.rows} - {*controls.EXPECTED}
    laws = [check for check in decided.found if check.what not in told]
    tell(*map(line, laws), f"record    {packed}", *ending(decided, found))
    if page:
        tell(paged(writer.path.with_suffix(".html"), found, decided))
    return decided.code


def give_up(writers: list[Writer], elapsed_s: Callable[[], float], leave: Callable[[int], Any] = os._exit) -> None:
    """Ends the program when the time is over; runs in a separate thread. It prints the verdict of the record if there
    is a record, which begins when a GPU has answered."""
    code = verdict.CODES["INCOMPLETE"]
    try:
        if not writers:
            tell(f"INCOMPLETE: {HUNG}; there is no record after {elapsed_s():.0f} s")
        elif writers[0].close(elapsed_s(), HUNG):
            code = conclude(writers[0], page=False)
        for child in multiprocessing.active_children():
            child.kill()
    finally:
        leave(code)


def fresh(path: Path) -> Path:
    """`path`, or an unused name beside it, so that no record is overwritten."""
    number, tried = 1, path
    while tried.exists() or tried.with_suffix(".json.gz").exists():
        number += 1
        tried = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return tried


def end(run: Callable[[], int]) -> NoReturn:
    """Ends the program with the code of `run()`. It does not wait for a child process that hangs in the driver, which
    no signal can end."""
    streams.prepare()
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
