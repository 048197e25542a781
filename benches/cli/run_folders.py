"""Run folders as a command line names them: a new one, a given one, or the newest one in a folder of runs.

The newest run is the one whose header has the latest time, because the files of a copy have the time of the copying.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from benches.failures import UsageError
from harness import storage, streams, strict_json
from harness.paired import paired_run
from harness.types import Run

REPORT_FILE = "report.html"
SHOWN = 3  # problems of a run that are listed; the rest are counted


def new_folder(root: Path, name: str) -> Path:
    """Makes a new, empty run folder below `root`, which no other command uses."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    root.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        folder = root / (f"{name}-{stamp}" + (f"-{number}" if number else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def run_folder(path: Path) -> Path:
    """The folder itself if it is a run's, else that of the newest run in it. Raises UnreadableRun if there is none, and
    UsageError if there are only paired runs, which have commands of their own."""
    _check_exists(path)
    found = path if (path / storage.RUN_FILE).exists() else _newest(path, storage.RUN_FILE)
    if found is None and is_paired(path):
        folder = paired_folder(path)
        raise UsageError(
            f"{folder} is a paired run of imgbench ab: imgbench report writes its page, imgbench explain RUN ROW "
            "explains the decision on a row, and imgbench replay decides again"
        )
    if found is None:
        raise storage.UnreadableRun(f"{path} is not a run folder: it has no {storage.RUN_FILE}")
    return found


def load_run(path: Path) -> Run:
    """The run in a folder, or the newest run of a folder of runs; parts that cannot be read are reported on stderr.
    Raises what `run_folder` raises."""
    run = storage.load(run_folder(path))
    if run.problems:
        more = f" (and {len(run.problems) - SHOWN} more)" if len(run.problems) > SHOWN else ""
        streams.complain(f"imgbench: {run.folder}: {'; '.join(run.problems[:SHOWN])}{more}")
    return run


def is_paired(path: Path) -> bool:
    """Whether a RUN is a paired run. In a folder of runs, its newest run counts."""
    here = [name for name in (storage.RUN_FILE, paired_run.HEADER_FILE) if (path / name).exists()]
    found = path if here else _newest(path, storage.RUN_FILE, paired_run.HEADER_FILE)
    return found is not None and (found / paired_run.HEADER_FILE).exists()


def paired_folder(path: Path) -> Path:
    """A paired run's folder, or the newest one in a folder of runs. Raises UsageError, and UnreadableRun if the path
    does not exist."""
    _check_exists(path)
    found = path if paired_run.is_paired(path) else _newest(path, paired_run.HEADER_FILE)
    if found is None:
        raise UsageError(f"{path} holds no paired run (imgbench ab writes them)")
    return found


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise storage.UnreadableRun(f"{path} does not exist")


def _newest(root: Path, *headers: str) -> Path | None:
    """The folder in `root` whose header, a file of one of these names, was created last."""
    found = [header for name in headers for header in root.glob(f"*/{name}")] if root.is_dir() else []
    return max(found, key=_age).parent if found else None


def _age(header: Path) -> tuple[str, int, str]:
    """A sort key by age. Runs of the same second are sorted by the number in their names: gate-…-9 before gate-…-10."""
    name = header.parent.name
    return _created(header), len(name), name


def _created(header: Path) -> str:
    """When the run began, ISO 8601 in UTC. An unreadable header gets the time of its file, so that an unreadable newest
    run is refused and not skipped."""
    try:
        created = strict_json.read(header).get("created")
    except (OSError, ValueError, AttributeError):
        created = None
    if isinstance(created, str) and created:
        return created
    return datetime.fromtimestamp(header.stat().st_mtime, UTC).isoformat(timespec="seconds")
